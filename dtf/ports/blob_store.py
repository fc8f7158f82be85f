"""Content above 16 KiB, and output of attempts, outside the log."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class BlobMissing(LookupError):
    """No blob has this digest."""


class BlobCorrupt(ValueError):
    """The content does not have the digest it was announced with."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob, or all output of a run."""

    size_bytes: int
    used_at_ns: int
    """When it was last stored, added to or, if it is a blob, read; nanoseconds since 1970 by the store's clock."""
    digest: str = ""
    run_id: str = ""


class BlobStore(Protocol):
    """Content by its SHA-256, and append-only output by name. Every write is durable when it returns."""

    async def put(self, data: bytes) -> str:
        """Store `data` and return its digest (64 hexadecimal digits)."""
        ...

    async def put_stream(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Store what `chunks` yield under `digest`; return its size. Raises BlobCorrupt."""
        ...

    def get(self, digest: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Pieces of at most 256 KiB from `offset` on. Raises BlobMissing."""
        ...

    async def append_output(self, run_id: str, task: int, attempt: int, offset: int, data: bytes) -> int:
        """Write `data` at `offset` of an attempt's output; return its length now. Writing twice is writing once."""
        ...

    def read_output(self, run_id: str, task: int, attempt: int, offset: int = 0) -> AsyncIterator[bytes]:
        """Pieces of an attempt's output from `offset` on, as far as it is stored now."""
        ...

    async def list_outputs(self, run_id: str) -> list[tuple[int, int]]:
        """(task, attempt) of every output stored for a run, sorted."""
        ...

    async def list_stored(self) -> list[Stored]:
        """Everything that is stored."""
        ...

    async def remove(self, stored: Stored) -> bool:
        """Remove it, unless it was used since it was listed; whether it is gone."""
        ...
