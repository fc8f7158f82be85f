"""Blobs and output on a file system.

    <root>/blobs/<first two digits>/<digest>          content, written once, never changed
    <root>/outputs/<run>/<task>.<attempt>             output of an attempt, grows
    <root>/incoming/                                  pieces not yet whole; a crash may leave some

When a blob was last used is the time of its file's last change. A blob appears under its digest by an atomic rename after its content is on the disk, so that a
file that is there is whole. Every call that wrote returns after the data, and the directory entry
if it is new, are on the disk.
"""

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dtf.ports.blob_store import BlobCorrupt, BlobMissing, Stored

PIECE_BYTES = 256 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class FileBlobStore:
    """The BlobStore port on a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self._outputs = root / "outputs"
        self._incoming = root / "incoming"
        self._removing = threading.Lock()
        for directory in (root, self._blobs, self._outputs, self._incoming):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, data: bytes) -> str:
        """Store `data` and return its digest."""
        digest = hashlib.sha256(data).hexdigest()
        await asyncio.to_thread(self._put, digest, data)
        return digest

    async def put_stream(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Store what `chunks` yield under `digest`; return its size. Raises BlobCorrupt."""
        target = self._blob_path(digest)
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        incoming, hasher, size = Path(name), hashlib.sha256(), 0
        try:
            with os.fdopen(descriptor, "wb") as file:
                async for chunk in chunks:
                    hasher.update(chunk)
                    size += len(chunk)
                    await asyncio.to_thread(file.write, chunk)
                if hasher.hexdigest() != digest:
                    raise BlobCorrupt(
                        f"{size} bytes came whose SHA-256 is {hasher.hexdigest()}, announced was {digest}; "
                        "send them again"
                    )
                await asyncio.to_thread(_flush, file)
            await asyncio.to_thread(_move_into_place, incoming, target)
        finally:
            await asyncio.to_thread(incoming.unlink, missing_ok=True)
        return size

    async def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB from `offset` on. Raises BlobMissing."""
        path = self._blob_path(digest)
        if not await asyncio.to_thread(self._use, path):
            raise BlobMissing(f"no blob has the digest {digest}")
        async for piece in _pieces(path, offset):
            yield piece

    async def append_output(self, run_id: str, task: int, attempt: int, offset: int, data: bytes) -> int:
        """Write `data` at `offset` of an attempt's output; return its length now.

        Raises ValueError for a piece that begins past the end: the bytes between are not there.
        """
        return await asyncio.to_thread(
            self._append_output, self._output_path(run_id, task, attempt), offset, data
        )

    async def read_output(
        self, run_id: str, task: int, attempt: int, offset: int = 0
    ) -> AsyncIterator[bytes]:
        """Pieces of an attempt's output from `offset` on, as far as it is stored now."""
        path = self._output_path(run_id, task, attempt)
        if path.is_file():
            async for piece in _pieces(path, offset):
                yield piece

    async def list_outputs(self, run_id: str) -> list[tuple[int, int]]:
        """(task, attempt) of every output stored for a run, sorted."""
        return await asyncio.to_thread(self._list_outputs, run_id)

    async def list_stored(self) -> list[Stored]:
        """Everything that is stored."""
        return await asyncio.to_thread(lambda: [*self._stored_blobs(), *self._stored_outputs()])

    async def remove(self, stored: Stored) -> bool:
        """Remove it, unless it was used since it was listed; whether it is gone."""
        return await asyncio.to_thread(self._remove, stored)

    def _use(self, path: Path) -> bool:
        """Note that a blob is used; whether there is one. What was noted is not removed."""
        with self._removing, suppress(FileNotFoundError):
            os.utime(path)
            return True
        return False

    def _stored_blobs(self) -> Iterator[Stored]:
        for path in self._blobs.glob("*/*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                yield Stored(status.st_size, status.st_mtime_ns, digest=path.name)

    def _stored_outputs(self) -> Iterator[Stored]:
        for directory in self._outputs.iterdir():
            with suppress(FileNotFoundError):
                yield _stored_output(directory)

    def _remove(self, stored: Stored) -> bool:
        with self._removing:
            if stored.digest:
                path = self._blob_path(stored.digest)
                if path.exists() and path.stat().st_mtime_ns != stored.used_at_ns:
                    return False
                path.unlink(missing_ok=True)
                return True
            directory = self._output_directory(stored.run_id)
            with suppress(FileNotFoundError):
                if _stored_output(directory) != stored:
                    return False
            shutil.rmtree(directory, ignore_errors=True)
            return not directory.exists()

    def _put(self, digest: str, data: bytes) -> None:
        target = self._blob_path(digest)
        if self._use(target):
            return
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        incoming = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                _flush(file)
            _move_into_place(incoming, target)
        finally:
            incoming.unlink(missing_ok=True)

    def _append_output(self, path: Path, offset: int, data: bytes) -> int:
        is_new = not path.exists()
        if is_new:
            _make_directory(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            length = os.fstat(descriptor).st_size
            if offset > length:
                raise ValueError(
                    f"output is {length} bytes long and the piece begins at {offset}; send {length} on"
                )
            new = data[length - offset :]
            position = length
            while new:
                written = os.pwrite(descriptor, new, position)
                position, new = position + written, new[written:]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(path.parent)
        return position

    def _list_outputs(self, run_id: str) -> list[tuple[int, int]]:
        directory = self._output_directory(run_id)
        found = []
        with suppress(FileNotFoundError):
            for path in directory.iterdir():
                task, _, attempt = path.name.partition(".")
                if task.isdigit() and attempt.isdigit():
                    found.append((int(task), int(attempt)))
        return sorted(found)

    def _blob_path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise BlobMissing(f"{digest[:80]!r} is not a digest; expected 64 hexadecimal digits")
        return self._blobs / digest[:2] / digest

    def _output_directory(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise ValueError(f"{run_id[:80]!r} is not the identifier of a run")
        return self._outputs / run_id

    def _output_path(self, run_id: str, task: int, attempt: int) -> Path:
        if task < 0 or attempt < 0:
            raise ValueError(f"task {task}, attempt {attempt}: neither can be negative")
        return self._output_directory(run_id) / f"{task:d}.{attempt:d}"


def _stored_output(directory: Path) -> Stored:
    found = [path.stat() for path in directory.iterdir()]
    used_at_ns = max(status.st_mtime_ns for status in (directory.stat(), *found))
    return Stored(sum(status.st_size for status in found), used_at_ns, run_id=directory.name)


async def _pieces(path: Path, offset: int) -> AsyncIterator[bytes]:
    """The file from `offset` to its end as it is reached."""
    with await asyncio.to_thread(path.open, "rb") as file:
        file.seek(offset)
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _move_into_place(incoming: Path, target: Path) -> None:
    _make_directory(target.parent)
    incoming.replace(target)
    _sync_directory(target.parent)


def _make_directory(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
