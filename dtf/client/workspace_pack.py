"""Packs a working tree: the same tree gives the same bytes, whoever packs it.

    look (names, hashes, secrets, limits) ──▶ Survey ──▶ pack ──▶ Archive: tar in zstd, with its digest

Owners, times and the permissions beyond "its owner may execute it" stay behind; what git keeps of a
file travels.
"""

import hashlib
import os
import posixpath
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from dtf.client.workspace_files import (
    PackingStopped,
    WorkspaceError,
    list_files,
    matches,
    split_patterns,
)
from dtf.client.workspace_secrets import SCAN_BYTES, suspicion
from dtf.core.workspace import (
    PACKED_TIME,
    Entry,
    UnsafePath,
    check_link,
    check_path,
    encoded,
    manifest_digest,
    text_digest,
)
from dtf.settings.workspaces import WorkspaceSettings

LEVEL = 3
"""Of zstd: faster than most networks."""
MOST_NAMED = 10
"""Files named in an error."""

Stop = Callable[[], bool]
"""Whether to stop packing."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What will be packed."""

    root: Path
    entries: Sequence[Entry]
    links: dict[str, str]
    """Target of each link by its path."""
    size_bytes: int
    is_of_git: bool

    @property
    def digest(self) -> str:
        """The SHA-256 of the tree's manifest."""
        return manifest_digest(self.entries)


@dataclass(slots=True)
class Archive:
    """A packed tree in a file that goes when it is closed."""

    digest: str
    size_bytes: int
    file: BinaryIO


def survey(root: Path, settings: WorkspaceSettings, stop: Stop = lambda: False) -> Survey:
    """Look at every file that is to travel. Raises WorkspaceError naming all that must not, PackingStopped."""
    listing = list_files(root, split_patterns(settings.include), split_patterns(settings.exclude))
    _check_sizes(root, listing.paths, settings)
    allowed = split_patterns(settings.allow)
    entries: list[Entry] = []
    links: dict[str, str] = {}
    faults: list[str] = []
    secrets: list[str] = []
    size = 0
    for path in listing.paths:
        if stop():
            raise PackingStopped
        try:
            check_path(path)
            if (root / path).is_symlink():
                links[path] = target = _target(root, path)
                entries.append(Entry(path, text_digest(target), is_link=True))
                continue
            content, head, file_bytes = _read(root / path)
        except UnsafePath as error:
            faults.append(str(error))
            continue
        except FileNotFoundError:
            continue  # deleted and still tracked, or gone just now
        except OSError as error:
            faults.append(f"{path} cannot be read: {error.strerror}")
            continue
        size += file_bytes
        entries.append(Entry(path, content, bool((root / path).stat().st_mode & 0o100)))
        why = suspicion(path, head)
        if why and not matches(path, allowed):
            secrets.append(f"{path}: {why}")
    _refuse(faults, secrets)
    return Survey(root, entries, links, size, listing.is_of_git)


def _refuse(faults: Sequence[str], secrets: Sequence[str]) -> None:
    if faults:
        raise WorkspaceError(
            f"{_count(faults, 'file')} of the working tree cannot travel to workers",
            *_some(faults),
            "leave them out by .gitignore or [workspace] exclude",
        )
    if secrets:
        names = ", ".join(secret.partition(":")[0] for secret in secrets[:MOST_NAMED])
        raise WorkspaceError(
            f"{_count(secrets, 'file')} that would travel to every worker look{'s' if len(secrets) == 1 else ''}"
            " like a secret",
            *_some(secrets),
            "keep them here: add them to .gitignore (tracked ones: git rm --cached) or to [workspace] exclude",
            f'if they are none, name them in dtf.toml: [workspace] allow = "{names}"',
        )


def _check_sizes(root: Path, paths: Sequence[str], settings: WorkspaceSettings) -> None:
    """Raises WorkspaceError before anything is read that is too much."""
    sizes = sorted(((_size(root / path), path) for path in paths), reverse=True)
    total = sum(size for size, _ in sizes)
    large = [f"{path}: {size:,} bytes" for size, path in sizes if size > settings.max_file_bytes]
    if large:
        raise WorkspaceError(
            f"{_count(large, 'file')} of the working tree: more than {settings.max_file_bytes:,} bytes",
            *_some(large),
            "leave them out by .gitignore or [workspace] exclude, or raise [workspace] max_file_bytes",
        )
    if total > settings.max_bytes:
        raise WorkspaceError(
            f"the working tree has {total:,} bytes; at most {settings.max_bytes:,} travel to workers",
            *_some([f"{path}: {size:,} bytes" for size, path in sizes[:MOST_NAMED]]),
            "leave out what workers do not need by .gitignore or [workspace] exclude, or raise [workspace] max_bytes",
        )


def _size(path: Path) -> int:
    try:
        return 0 if path.is_symlink() else path.stat().st_size
    except OSError:
        return 0


def _target(root: Path, path: str) -> str:
    """Where a link leads, relative to it. Raises UnsafePath for one that leads out of the tree."""
    target = os.readlink(root / path)  # noqa: PTH115 - a Path would normalize it
    if target.startswith("/"):
        inside = os.path.relpath(target, root)
        if inside.startswith(".."):
            raise UnsafePath(f"the link {path} leads out of the tree, to {target}")
        target = posixpath.relpath(inside, posixpath.dirname(path) or ".")
    check_link(path, target)
    there = (root / path).resolve()
    if not there.is_relative_to(root.resolve()):
        raise UnsafePath(f"the link {path} leads out of the tree, to {there}")
    return target


def _read(path: Path) -> tuple[str, bytes, int]:
    """SHA-256, beginning and size of a file."""
    hasher = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        head = piece = file.read(SCAN_BYTES)
        while piece:
            hasher.update(piece)
            size += len(piece)
            piece = file.read(SCAN_BYTES)
    return hasher.hexdigest(), head, size


def pack(found: Survey, stop: Stop = lambda: False) -> Archive:
    """Pack what was surveyed. Raises WorkspaceError if it changed since, PackingStopped."""
    file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - it outlives this function
    try:
        sink = _HashingSink(file)
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=False)
        with (
            compressor.stream_writer(cast(BinaryIO, sink), closefd=False) as stream,
            tarfile.open(
                fileobj=stream,
                mode="w|",
                format=tarfile.GNU_FORMAT,
                encoding="utf-8",
                errors="surrogateescape",
            ) as tar,
        ):
            for entry in sorted(found.entries, key=lambda entry: encoded(entry.path)):
                if stop():
                    raise PackingStopped
                _add(tar, found, entry)
        file.seek(0)
        return Archive(sink.hasher.hexdigest(), sink.size_bytes, file)
    except BaseException:
        file.close()
        raise


def _add(tar: tarfile.TarFile, found: Survey, entry: Entry) -> None:
    header = tarfile.TarInfo(entry.path)
    header.mtime = PACKED_TIME
    header.mode = 0o755 if entry.is_program else 0o644
    if entry.is_link:
        header.type, header.linkname = tarfile.SYMTYPE, found.links[entry.path]
        tar.addfile(header)
        return
    try:
        with (found.root / entry.path).open("rb") as file:
            header.size = os.fstat(file.fileno()).st_size
            source = _HashingSource(file)
            tar.addfile(header, cast(BinaryIO, source))
    except OSError as error:
        raise _changed(entry.path) from error
    if source.hasher.hexdigest() != entry.content:
        raise _changed(entry.path)


def _changed(path: str) -> WorkspaceError:
    return WorkspaceError(f"{path} changed while the working tree was packed", "run again when it is at rest")


class _HashingSink:
    """Writes to a file and keeps the SHA-256 and length of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hasher = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes) -> int:
        self.hasher.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


class _HashingSource:
    """Reads from a file and keeps the SHA-256 of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.hasher.update(data)
        return data


def pieces_of(file: BinaryIO, size: int, stop: Stop = lambda: False) -> Iterator[bytes]:
    """A file's content in pieces. Raises PackingStopped."""
    file.seek(0)
    while data := file.read(size):
        if stop():
            raise PackingStopped
        yield data


def _some(lines: Sequence[str]) -> Sequence[str]:
    more = len(lines) - MOST_NAMED
    return [*lines[:MOST_NAMED], *([f"… and {more} more"] if more > 0 else [])]


def _count(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
