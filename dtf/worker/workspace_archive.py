"""Unpacks a workspace's archive, and trusts nothing in it.

Files, then links: as long as anything is written, every directory of the tree is one that was made
here, so no name leads through a link. Entries of other kinds, names that are no plain paths inside
the tree or lead through a link, links that lead out of it by way of others, two entries of one name,
headers that are large or extended and more bytes than are allowed are refused. What was unpacked is
hashed; the manifest must be the one that the run names.
"""

import hashlib
import os
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import zstandard

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

READ_BYTES = 2**20
PACKED_TIME_NS = PACKED_TIME * 10**9
"""When unpacked files say they were written, so that one written since is told from them."""
MAX_ENTRIES = 2_000_000
HEADER_BYTES = 65_536
"""At most read for the headers of one entry, with what is read ahead: names of 4,096 bytes need a quarter."""
PATH_BYTES = 4_096
"""Of a name at most, as for the kernel (PATH_MAX)."""
LINK_STEPS = 4_096
"""Parts of names at most on the way of a link, through others."""


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


def check_links(names: Iterable[str], links: Mapping[str, str]) -> None:
    """Raises UnsafePath if one of `names` leads through a link, or a link, through others, out of the tree."""
    for name in names if links else ():
        directory = name
        while directory := posixpath.dirname(directory):
            if directory in links:
                raise UnsafePath(f"{name!r} leads through the link {directory!r}")
    for name, target in links.items():
        _follow(name, target, links)


def _follow(name: str, target: str, links: Mapping[str, str]) -> None:
    """Go the way of a link as a kernel does, but name by name."""
    here = name.split("/")[:-1]
    ahead = target.split("/")[::-1]
    for _ in range(LINK_STEPS):
        if not ahead:
            return
        match ahead.pop():
            case "" | ".":
                pass
            case ".." if not here:
                raise UnsafePath(f"the link {name!r} leads out of the tree, to {target!r}")
            case "..":
                here.pop()
            case part:
                onward = links.get("/".join([*here, part]))
                if onward is None:
                    here.append(part)
                else:
                    ahead += onward.split("/")[::-1]
    raise UnsafePath(f"the link {name!r} leads through too many others")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Metered:
    """Reads no more than is allowed, so that what is packed well takes no more memory than what is not."""

    def __init__(self, source: _Readable) -> None:
        self._source = source
        self.allowed_bytes = HEADER_BYTES

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.allowed_bytes -= len(data)
        if self.allowed_bytes < 0:
            raise UnsafePath(f"an entry has headers of more than {HEADER_BYTES:,} bytes")
        return data


class _Unpacker:
    def __init__(self, target: Path, max_bytes: int) -> None:
        self._target = target
        self._room = max_bytes
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._names: set[str] = set()
        self._links: dict[str, str] = {}

    def unpack(self, archive: BinaryIO) -> Unpacked:
        with zstandard.ZstdDecompressor().stream_reader(archive) as stream:
            self._source = _Metered(stream)
            with tarfile.open(
                fileobj=cast(BinaryIO, self._source), mode="r|", encoding="utf-8", errors="surrogateescape"
            ) as tar:
                for member in tar:
                    self._take(tar, member)
                    self._source.allowed_bytes = HEADER_BYTES
        check_links(self._names, self._links)
        for path, target in self._links.items():
            self._parent(path)
            os.symlink(target, self._target / path)  # noqa: PTH211 - the target as it is, not as a Path has it
        return Unpacked(self._entries, self._max_bytes - self._room)

    def _take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = member.name
        check_path(path)
        if max(len(encoded(path)), len(encoded(member.linkname))) > PATH_BYTES:
            raise UnsafePath(f"{path[:80]!r}… or where it leads has more than {PATH_BYTES:,} bytes")
        if member.pax_headers:
            raise UnsafePath(f"{path!r} has extended headers, which no packed tree has")
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
        self._source.allowed_bytes = member.size + HEADER_BYTES
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
