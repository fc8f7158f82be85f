"""Who leads a namespace, as far as it says so itself: for liveness only.

A leader writes its record again and again; a standby that sees it stand still takes its turn. The
log alone decides who leads (LeaderElected and its epoch): a lease that is wrong costs a change of
leaders, and nothing more.

    LeaseError
    ├── LeaseUnavailable   nobody keeps the record now; nothing is known
    └── LeaseTaken         the record is not the one that was to be replaced
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class LeaseError(Exception):
    """Base of what can go wrong with the lease."""


class LeaseUnavailable(LeaseError):
    """Nobody keeps the record now."""


class LeaseTaken(LeaseError):
    """The record is not the one that was to be replaced."""


class LeaderPhase(StrEnum):
    """What the writer of the record is about."""

    CLAIMING = "claiming"
    """It is about to be elected; `epoch` is the one it wants."""
    LEADING = "leading"
    RELEASED = "released"
    """It has stopped in good order: whoever comes next need not wait."""
    LOST = "lost"
    """It ended because the log lacks what it had acknowledged: nobody may lead before that is mended."""


@dataclass(frozen=True, slots=True)
class LeaderRecord:
    """What a leader says of itself."""

    leader: str
    """The process, told apart from every other one."""
    epoch: int
    address: str
    """host:port of its gRPC server."""
    lease_seconds: float
    """Without a renewal for this long it counts as gone."""
    phase: LeaderPhase = LeaderPhase.LEADING
    sequence: int = 0
    """Up to here the log had acknowledged commits of this leader; 0: it does not say."""
    message_id: str = ""
    """Of the commit at `sequence`."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The record as it stands. A revision says only whether it changed."""

    record: LeaderRecord | None = None
    revision: int = 0
    """0: there is no record."""


class LeaderLease(Protocol):
    """The record of one namespace's leader, and who waits for its place. Every call may raise LeaseUnavailable."""

    async def read(self) -> LeaseView:
        """The record as it stands."""
        ...

    async def write(self, record: LeaderRecord, replaces: int) -> int:
        """Replace the record of revision `replaces` (0: none is there); its revision. Raises LeaseTaken."""
        ...

    async def enlist(self, standby: str) -> None:
        """Say that a standby waits; to be said again at least every few seconds."""
        ...

    async def withdraw(self, standby: str) -> None:
        """Say that a standby waits no longer."""
        ...

    async def standbys(self) -> frozenset[str]:
        """Who waits."""
        ...

    async def close(self) -> None:
        """Let go of the connection; the record stays."""
        ...
