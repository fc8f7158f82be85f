"""Unpacked workspaces on this machine, shared by its workers.

    <root>/NAME.lock            locked alone by who makes or removes NAME, shared by who uses it
    <root>/NAME/                appears by a rename, whole; its tree is ready once ready.json is there
        tree/                   the workspace
        setup.log               what its set-up printed
        ready.json              what it holds, how large it is
    <root>/NAME.failed          a set-up that failed: the run it failed for, and how
    <root>/incoming/NAME/       being unpacked; remains of a crash are removed by the next who makes NAME

NAME is the digest of the content with that of the environment it was set up for. The kernel frees
the locks of a process however it ends. Only the owner can enter the root.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from dtf.worker.workspace_archive import PACKED_TIME_NS

DAY_SECONDS = 86_400.0
_APP_DIRECTORY = Path("dtf") / "workspaces"


class Ready(msgspec.Struct):
    """The content of ready.json."""

    digest: str
    size_bytes: int
    setup_seconds: float
    altered: list[str]
    """Files that the set-up changed."""
    files: dict[str, int]
    """Size of each unpacked file; links are left out."""


class Failed(msgspec.Struct):
    """The content of NAME.failed."""

    run_id: str
    message: str
    output: str


class CacheUnusable(OSError):
    """No directory can be found for workspaces."""


def cache_root(configured: str) -> Path:
    """The directory of workspaces, made if need be. Raises CacheUnusable."""
    candidates = [Path(configured)] if configured else list(_usual_roots())
    for candidate in candidates:
        try:
            if _temporary() in candidate.parents:
                _claim(_temporary())
            candidate.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = candidate.stat()
            if found.st_uid == os.getuid() and os.access(candidate, os.W_OK | os.X_OK):
                candidate.chmod(0o700)
                return candidate.resolve()
        except OSError:
            continue
    tried = ", ".join(map(str, candidates))
    raise CacheUnusable(
        f"workspaces cannot be kept in {tried}: set [worker] cache_dir to a directory of this user's"
    )


def _usual_roots() -> Iterator[Path]:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base.startswith("/"):
        yield Path(base) / _APP_DIRECTORY
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
    if home.startswith("/"):
        yield Path(home) / ".cache" / _APP_DIRECTORY
    yield _temporary() / "workspaces"


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"dtf-{os.getuid()}"


def _claim(directory: Path) -> None:
    """Make a directory where anyone may make one. Raises CacheUnusable if others made it or can write to it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CacheUnusable(f"{directory} is not a directory of this user's alone")
    directory.chmod(0o700)


class Cell:
    """One name of the cache."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.directory = root / name
        self.tree = self.directory / "tree"
        self.log = self.directory / "setup.log"
        self.incoming = root / "incoming" / name
        self._ready = self.directory / "ready.json"
        self._failed = root / f"{name}.failed"
        self._lock = root / f"{name}.lock"

    def try_lock(self, *, alone: bool) -> int | None:
        """A descriptor that holds the lock until it is closed; None: it cannot be had now."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            ours, theirs = os.fstat(descriptor), self._lock.stat()
        except OSError:
            os.close(descriptor)
            return None
        if (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
            os.close(descriptor)  # it was removed, with what it locked, since it was opened
            return None
        return descriptor

    @property
    def is_ready(self) -> bool:
        """Whether the tree can be used."""
        return self._ready.exists()

    def ready(self) -> Ready | None:
        """What the tree is; None: it is not ready."""
        try:
            return msgspec.json.decode(self._ready.read_bytes(), type=Ready)
        except (OSError, msgspec.DecodeError):
            return None

    def note_ready(self, ready: Ready) -> None:
        """The tree can be used from now on."""
        partial = self._ready.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(ready))
        partial.replace(self._ready)
        self._failed.unlink(missing_ok=True)

    def failed(self, run_id: str) -> Failed | None:
        """How the set-up failed for this run; another run may try again."""
        try:
            found = msgspec.json.decode(self._failed.read_bytes(), type=Failed)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.run_id == run_id else None

    @property
    def has_failed(self) -> bool:
        """Whether a set-up failed, for whatever run."""
        return self._failed.exists()

    def note_failed(self, failed: Failed) -> None:
        """Spare the other workers of this machine the same failure, for this run."""
        self._failed.write_bytes(msgspec.json.encode(failed))

    def touch(self) -> None:
        """It is used now."""
        with suppress(OSError):
            os.utime(self._lock)

    @property
    def used_at(self) -> float:
        """When it was last used, as file times have it."""
        try:
            return self._lock.stat().st_mtime
        except OSError:
            return 0.0

    def is_altered(self, ready: Ready) -> bool:
        """Whether a file that came with the workspace is gone or was written since its set-up."""
        altered = set(ready.altered)
        return any(path not in altered for path in changed_files(self.tree, ready.files))

    def clear(self) -> None:
        """Remove what there is of the tree. The lock must be held alone."""
        self._ready.unlink(missing_ok=True)
        remove_tree(self.directory)
        remove_tree(self.incoming)

    def remove(self) -> None:
        """Remove all of it, the lock at last, which must be held alone."""
        self.clear()
        self._failed.unlink(missing_ok=True)
        self._lock.unlink(missing_ok=True)


def changed_files(tree: Path, files: dict[str, int]) -> Iterator[str]:
    """Files that are gone, or are not as they were unpacked."""
    for path, size in files.items():
        try:
            found = (tree / path).lstat()
        except OSError:
            yield path
            continue
        if found.st_size != size or found.st_mtime_ns != PACKED_TIME_NS:
            yield path


def remove_tree(path: Path) -> None:
    """Remove a directory and what is in it; directories that user code locked are opened first."""

    def open_and_retry(remove: object, name: str, _: object) -> None:
        with suppress(OSError):
            Path(name).parent.chmod(0o700)
            Path(name).chmod(0o700)
        if callable(remove):
            with suppress(OSError):
                remove(name)

    if path.exists():
        shutil.rmtree(path, onerror=open_and_retry)
    if path.exists():
        shutil.rmtree(path)


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - hot in large trees
    return total


class Cache:
    """All names of the cache."""

    def __init__(self, root: Path, max_bytes: int, max_days: float) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._max_days = max_days
        (root / "incoming").mkdir(mode=0o700, exist_ok=True)

    def cell(self, name: str) -> Cell:
        """The cell of a name."""
        return Cell(self.root, name)

    def evict(self, now: float) -> list[str]:
        """Remove what is too old, what is too much (unused for longest first), and remains of crashes.

        `now`: as file times have it. What is in use, or being made, stays. Returns the names removed.
        """
        cells = sorted(self._cells(), key=lambda cell: cell.used_at)
        sizes = {cell.name: ready.size_bytes for cell in cells if (ready := cell.ready()) is not None}
        total = sum(sizes.values())
        removed = []
        for cell in cells:
            is_old = now - cell.used_at > self._max_days * DAY_SECONDS
            is_remains = cell.name not in sizes and not cell.has_failed
            if not (is_old or is_remains or (total > self.max_bytes and cell.name in sizes)):
                continue
            lock = cell.try_lock(alone=True)
            if lock is None:
                continue
            try:
                cell.remove()
            finally:
                os.close(lock)
            total -= sizes.get(cell.name, 0)
            removed.append(cell.name)
        return removed

    def _cells(self) -> Iterator[Cell]:
        for path in self.root.glob("*.lock"):
            yield self.cell(path.name.removesuffix(".lock"))
