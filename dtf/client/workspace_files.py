"""Which files of a working tree travel: what git tracks, and what it does not ignore.

Without git it is everything but the usual junk. What is neither file, nor link, nor directory
(sockets, pipes, devices) stays behind.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dtf.client.supervisor_connection import StackError
from dtf.settings.project import STATE_DIRECTORY

GIT_TIMEOUT_SECONDS = 120.0
JUNK = (
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "*.pyc",
    "*.egg-info",
    "node_modules",
    ".venv",
    "venv",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".idea",
    ".vscode",
    ".DS_Store",
)
"""What nobody means to send, where no git says so."""


class WorkspaceError(StackError):
    """The working tree cannot travel as it is. `advice` says what to do."""


class PackingStopped(Exception):
    """Packing was called off."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The paths that travel, sorted, and how they were found."""

    paths: Sequence[str]
    is_of_git: bool


def split_patterns(text: str) -> Sequence[str]:
    """The patterns of a setting, which are separated by commas."""
    return [pattern.strip().strip("/") for pattern in text.split(",") if pattern.strip()]


def matches(path: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names `path`, a directory it is in or, having no '/', one of its parts."""
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(
        fnmatchcase(candidate, pattern)
        for pattern in patterns
        for candidate in (above if "/" in pattern else (*above, *parts))
    )


def list_files(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    """What of `root` travels. Raises WorkspaceError."""
    found = _listed_by_git(root)
    is_of_git = found is not None
    paths = set(_walk(root, "", JUNK) if found is None else found)
    for pattern in include:
        paths.update(_included(root, pattern))
    kept = (
        path
        for path in paths
        if STATE_DIRECTORY not in path.split("/")  # of any project: that of a run may be below the root
        and not matches(path, exclude)
        and _can_travel(root / path)
    )
    return Listing(sorted(kept, key=os.fsencode), is_of_git)


def _can_travel(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _included(root: Path, pattern: str) -> Iterator[str]:
    whole = root.resolve()
    for path in root.glob(pattern):
        found = path.resolve()
        if STATE_DIRECTORY in (found.relative_to(whole) if found.is_relative_to(whole) else found).parts:
            continue  # by way of a link
        relative = str(path.relative_to(root))
        if path.is_dir() and not path.is_symlink():
            yield from _walk(root, f"{relative}/", ("__pycache__", "*.pyc"))
        else:
            yield relative


def _walk(root: Path, prefix: str, junk: Sequence[str]) -> Iterator[str]:
    with os.scandir(root / prefix) as entries:
        for entry in entries:
            path = prefix + entry.name
            if any(fnmatchcase(entry.name, pattern) for pattern in junk):
                continue
            if not entry.is_dir(follow_symlinks=False):
                yield path
            elif not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):  # noqa: PTH110, PTH118
                yield from _walk(root, f"{path}/", junk)


def _listed_by_git(root: Path) -> Iterator[str] | None:
    """What git lists; None where the tree is not git's, or there is no git. Raises WorkspaceError."""
    if not any((directory / ".git").exists() for directory in (root, *root.parents)):
        return None
    if shutil.which("git") is None:
        return None
    return iter(_ask_git(root, ""))


def _ask_git(root: Path, prefix: str) -> Iterator[str]:
    """Tracked and untracked files below `prefix`, with those of repositories inside (submodules)."""
    try:
        answer = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=root / prefix,
            capture_output=True,
            check=False,
            timeout=GIT_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkspaceError(f"git cannot list the files of {root / prefix}: {error}") from error
    if answer.returncode:
        raise WorkspaceError(
            f"git cannot list the files of {root / prefix}: {os.fsdecode(answer.stderr).strip()}",
            "mend that, or run where the workers need no copy: --workspace shared or --workspace tree",
        )
    for name in filter(None, answer.stdout.split(b"\0")):
        path = prefix + os.fsdecode(name).rstrip("/")
        if (root / path).is_dir() and not (root / path).is_symlink():
            inner = (root / path / ".git").exists()
            yield from _ask_git(root, f"{path}/") if inner else _walk(root, f"{path}/", JUNK)
        else:
            yield path
