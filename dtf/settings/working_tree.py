"""What git says of a tree that is used in place: files that differ from the commit that is checked out."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

GIT_SECONDS = 20.0
"""How long git may take for a look at a tree."""
MOST_NAMED = 3

_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
"""Nothing is written to the tree, and no program that its settings name is started."""


@dataclass(frozen=True, slots=True)
class Edits:
    """Files that git knows and that differ from the commit."""

    changed_ns: Mapping[str, int | None]
    """Path → when it was last written, since 1970; None: it was deleted."""

    def since(self, time_ns: int) -> list[str]:
        """Those written at or after that time; of deleted ones that is not known."""
        return [
            path for path, changed in self.changed_ns.items() if changed is not None and changed >= time_ns
        ]


def edits_of(directory: Path) -> Edits | None:
    """The edits in the tree that holds `directory`, not those of files that git does not know; None: git cannot tell."""
    root = _ask(directory, "rev-parse", "--show-toplevel")
    said = _ask(directory, "status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    if root is None or said is None:
        return None
    top = Path(root.rstrip("\n"))
    paths = [entry[3:] for entry in said.split("\0") if entry]
    return Edits({path: _written(top / path) for path in paths})


def named(paths: "list[str]") -> str:
    """ "a.py, b.py and 2 more"."""
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return ", ".join(paths[:MOST_NAMED]) + more


def _ask(directory: Path, *arguments: str) -> str | None:
    command = [*_GIT, "-C", str(directory), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")


def _written(path: Path) -> int | None:
    try:
        return path.lstat().st_mtime_ns
    except OSError:
        return None
