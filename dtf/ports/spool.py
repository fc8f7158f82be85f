"""The spool: every commit of this coordinator, on its own disk before any effect of it leaves.

It is what repairs a broker that lost the end of its log, and what tells a log that is shorter than
what it acknowledged from commits that never reached it.

    SpoolError          the spool cannot be written or read; the message says what to do
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class SpoolError(Exception):
    """The spool takes nothing, or cannot be read."""


@dataclass(frozen=True, slots=True)
class SpooledCommit:
    """A commit as it is appended to the log."""

    sequence: int
    payload: bytes
    message_id: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SpoolMark:
    """How far the log had acknowledged commits, as one reign noted before it let any effect out."""

    sequence: int
    message_id: str
    writer: str
    """Which reign's file says so."""


@dataclass(frozen=True, slots=True)
class SpoolContents:
    """What earlier reigns left."""

    commits: Sequence[SpooledCommit]
    """In the order of sequence; two reigns may each have one of the same sequence."""
    marks: Sequence[SpoolMark]
    """The last of each reign."""
    damage: Sequence[str]
    """What could not be read, file by file. A record that kill -9 cut short at an end is none."""


class CommitSpool(Protocol):
    """Local, durable, written by one reign at a time under a name of its own."""

    @property
    def description(self) -> str:
        """Where it is, for messages."""
        ...

    async def read(self, after: int) -> SpoolContents:
        """The commits with a sequence above `after`, and every mark. Raises SpoolError."""
        ...

    def begin(self, writer: str) -> None:
        """Write under this name from now on. Raises SpoolError."""
        ...

    def write(self, commit: SpooledCommit) -> "asyncio.Future[None]":
        """Add one commit; the future is done when it is on the disk, or fails with SpoolError.

        Commits added while others are being forced to the disk go with the next such call.
        """
        ...

    def acknowledge(self, sequence: int, message_id: str) -> None:
        """Note that the log holds all commits up to this one. It outlives the process, not the machine.

        A crash of the machine takes it back to what the commits on the disk say.
        """
        ...

    async def trim(self, through: int) -> None:
        """Remove what only holds commits up to `through`, which snapshots hold as well."""
        ...

    async def close(self) -> None:
        """Finish what was added, and let go of the files."""
        ...
