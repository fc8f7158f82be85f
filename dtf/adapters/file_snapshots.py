"""Snapshots in a directory, one file each; a file has its name only once it is whole and on the disk."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dtf.ports.snapshot_store import KEPT_SNAPSHOTS, SnapshotName, SnapshotStoreError

_FILE = re.compile(r"(\d{20})-([0-9a-f]{64}|)\.snapshot")
_UNFINISHED = ".new"

Result = TypeVar("Result")


class FileSnapshots:
    """The SnapshotStore port on a directory, which is made when something is saved."""

    def __init__(self, directory: Path, *, kept: int = KEPT_SNAPSHOTS) -> None:
        self._directory = directory
        self._kept = kept

    @property
    def description(self) -> str:
        """The directory."""
        return str(self._directory)

    def path_of(self, name: SnapshotName) -> Path:
        """The file of a snapshot, whether or not it is there."""
        return self._directory / f"{name.sequence:020d}-{name.hash}.snapshot"

    async def names(self) -> Sequence[SnapshotName]:
        """The snapshots there are, the newest first."""
        return await self._on_disk(self._names)

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """Keep `data`, durably; then remove all but the newest."""
        await self._on_disk(lambda: self._save(name, data))

    async def load(self, name: SnapshotName) -> bytes:
        """The bytes that were saved."""
        return await self._on_disk(self.path_of(name).read_bytes)

    async def remove(self, name: SnapshotName) -> None:
        """Forget one; no error if it is not there."""
        await self._on_disk(lambda: self.path_of(name).unlink(missing_ok=True))

    async def close(self) -> None:
        """Nothing is held."""

    def _names(self) -> list[SnapshotName]:
        if not self._directory.is_dir():
            return []
        found = (_FILE.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted((SnapshotName(int(match[1]), match[2]) for match in found if match), reverse=True)

    def _save(self, name: SnapshotName, data: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path_of(name)
        temporary = path.with_name(f"{path.name}.{os.getpid()}{_UNFINISHED}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(self._directory)
        for old in self._names()[self._kept :]:
            self.path_of(old).unlink(missing_ok=True)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """What a process that was killed had begun to write; of one that lives, nothing."""
        for path in self._directory.glob(f"*{_UNFINISHED}"):
            process_id = path.name.removesuffix(_UNFINISHED).rpartition(".")[2]
            if not (process_id.isdigit() and Path(f"/proc/{process_id}").exists()):
                path.unlink(missing_ok=True)

    async def _on_disk(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise SnapshotStoreError(
                f"snapshots in {self._directory}: {error.strerror or error} "
                f"({Path(str(error.filename or self._directory)).name}); "
                "make room there, or make it readable for this user"
            ) from error


def sync_directory(directory: Path) -> None:
    """Force the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
