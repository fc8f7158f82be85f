"""Unpacks a workspace's archive, and trusts nothing in it.

Files, then links: as long as anything is written, every directory of the tree is one that was made
here, so no name leads through a link. Entries of other kinds, names that are no plain paths inside
the tree, two entries of one name and more bytes than are allowed are refused. What was unpacked is
hashed; the manifest must be the one that the run names.
"""

import hashlib
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from dtf.core.workspace import Entry, UnsafePath, check_link, check_path, manifest_digest, text_digest

READ_BYTES = 2**20
PACKED_TIME_NS = 1_600_000_000 * 10**9
"""When unpacked files say they were written, so that one written since is told from them."""
MAX_ENTRIES = 2_000_000


class BadArchive(ValueError):
    """The archive is not the workspace that the run names, or is not to be unpacked."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive became."""

    entries: Sequence[Entry]
    size_bytes: int


def unpack(archive: BinaryIO, target: Path, digest: str, max_bytes: int) -> Unpacked:
    """Unpack into the empty directory `target`. Raises BadArchive, OSError."""
    try:
        unpacked = _Unpacker(target, max_bytes).unpack(archive)
    except OSError:
        raise
    except Exception as error:  # whatever a parser may raise at bytes that are no archive
        raise BadArchive(f"the workspace cannot be unpacked: {error}") from error
    found = manifest_digest(unpacked.entries)
    if found != digest:
        raise BadArchive(f"what was unpacked is workspace {found[:12]}; the run names {digest[:12]}")
    return unpacked


class _Unpacker:
    def __init__(self, target: Path, max_bytes: int) -> None:
        self._target = target
        self._room = max_bytes
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._names: set[str] = set()
        self._links: dict[str, str] = {}

    def unpack(self, archive: BinaryIO) -> Unpacked:
        with (
            zstandard.ZstdDecompressor().stream_reader(archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar,
        ):
            for member in tar:
                self._take(tar, member)
        for path, target in self._links.items():
            self._parent(path)
            os.symlink(target, self._target / path)  # noqa: PTH211 - the target as it is, not as a Path has it
        return Unpacked(self._entries, self._max_bytes - self._room)

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = member.name
        check_path(path)
        if path in self._names:
            raise UnsafePath(f"{path!r} is there twice")
        if len(self._names) >= MAX_ENTRIES:
            raise UnsafePath(f"it has more than {MAX_ENTRIES:,} entries")
        self._names.add(path)
        if member.issym():
            check_link(path, member.linkname)
            self._links[path] = member.linkname
            self._entries.append(Entry(path, text_digest(member.linkname), is_link=True))
        elif member.isreg() and not member.issparse():
            self._write(tar, member)
        else:
            raise UnsafePath(f"{path!r} is neither a file nor a symbolic link")

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._room -= member.size
        if member.size < 0 or self._room < 0:
            raise UnsafePath(f"it has more than the {self._max_bytes:,} bytes that are allowed here")
        source = tar.extractfile(member)
        assert source is not None
        self._parent(member.name)
        is_program = bool(member.mode & 0o100)
        mode = 0o755 if is_program else 0o644
        path = self._target / member.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        hasher = hashlib.sha256()
        with os.fdopen(os.open(path, flags, mode), "wb") as file:
            while piece := source.read(READ_BYTES):
                hasher.update(piece)
                file.write(piece)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.utime(file.fileno(), ns=(PACKED_TIME_NS, PACKED_TIME_NS))
        self._entries.append(Entry(member.name, hasher.hexdigest(), is_program))

    def _parent(self, path: str) -> None:
        (self._target / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
