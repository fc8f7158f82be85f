"""Where snapshots are kept: a few of the newest, each known by the sequence it was taken at.

SnapshotStoreError    the store cannot be read or written; the message says what to do
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

KEPT_SNAPSHOTS = 3
"""A damaged one must leave another, and one taken while another is read must not remove it."""


class SnapshotStoreError(Exception):
    """A snapshot cannot be listed, read, written or removed."""


@dataclass(frozen=True, slots=True, order=True)
class SnapshotName:
    """Which snapshot. They sort by age, the oldest first."""

    sequence: int
    """Of the last message in it."""
    hash: str
    """Of the last commit in it: 64 hexadecimal digits."""


class SnapshotStore(Protocol):
    """Keeps the newest KEPT_SNAPSHOTS snapshots. Every call may raise SnapshotStoreError."""

    @property
    def description(self) -> str:
        """Where it is, for messages: a directory, a bucket."""
        ...

    async def names(self) -> Sequence[SnapshotName]:
        """The snapshots that are whole as far as the store knows, the newest first."""
        ...

    async def save(self, name: SnapshotName, data: bytes) -> None:
        """Keep `data`, durably; then remove all but the newest. Saved again, it is there once."""
        ...

    async def load(self, name: SnapshotName) -> bytes:
        """The bytes that were saved; they may have been damaged since."""
        ...

    async def remove(self, name: SnapshotName) -> None:
        """Forget one; no error if it is not there."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...
