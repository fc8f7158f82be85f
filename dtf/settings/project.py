"""Where a project begins and where its state lies."""

import os
from pathlib import Path

STATE_DIRECTORY = ".dtf"
"""Name of the directory, in the project's, that holds all that dtf keeps there. Its mode is 0700."""
SUPERVISOR_LOCK = "supervisor.lock"
"""File in the state directory whose lock says that the project's stack lives."""
MARKERS = ("dtf.toml", "pyproject.toml", ".git")


def find_project_dir(start: Path | None = None) -> Path:
    """The nearest directory from `start` (the working directory) upward that holds a marker, else `start`."""
    begin = (start or Path.cwd()).resolve()
    for directory in (begin, *begin.parents):
        if any((directory / marker).exists() for marker in MARKERS):
            return directory
    return begin


def state_dir(project_dir: Path) -> Path:
    """The project's state directory, whether or not it exists."""
    return project_dir / STATE_DIRECTORY


def namespace_dir(state: Path, namespace: str) -> Path:
    """Where a namespace keeps its own in a state directory; that of the default one is the directory itself.

    Runs of two namespaces may have the same id, so nothing that is named after runs may be shared.
    """
    return state if namespace == "default" else state / "namespaces" / namespace


def make_private_dir(path: Path) -> Path:
    """`path` as a directory that its owner alone can enter; made, or mended, as needed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Replace `path` at once by a file on the disk that its owner alone can read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def revision_of(directory: Path) -> str:
    """The commit that git has checked out there, read from its files; "" if that cannot be told."""
    git = next((p / ".git" for p in (directory, *directory.parents) if (p / ".git").is_dir()), None)
    if git is None:
        return ""
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        if (git / reference).exists():
            return (git / reference).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), "")
