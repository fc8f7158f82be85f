"""Has snapshots taken as the log grows, by a process of their own, and trims the spool after each.

The leader's loop only counts. What takes the snapshot is given: a callable that starts a process
which reads the log as any other reader does, and returns when the snapshot is on the disk.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dtf.coordinator.commits import PendingCommit
from dtf.ports.clock import Clock
from dtf.ports.spool import CommitSpool, SpoolError

log = logging.getLogger(__name__)

LEAST_PAUSE_SECONDS = 30.0
"""Between snapshots: at full load one would follow the other, and take a processor for itself."""
RETRY_SECONDS = 300.0
WORTH_TAKING_RATIO = 0.1
"""Share of what brings on a snapshot that makes one worth its while when the coordinator stops."""


class SnapshotFailed(Exception):
    """No snapshot was taken; the message says why."""


@dataclass(frozen=True, slots=True)
class TakenSnapshot:
    """What a snapshot process did."""

    sequence: int
    """Of the snapshot."""
    oldest_kept: int
    """Sequence of the oldest snapshot on this machine's disk: the spool is needed from there on."""


SnapshotLauncher = Callable[[], Awaitable[TakenSnapshot]]
"""Takes a snapshot. Raises SnapshotFailed; a cancelled one leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class SnapshotRules:
    """How much the log grows between snapshots."""

    events: int
    bytes: int


class SnapshotKeeper:
    """Counts what became durable, and has a snapshot taken when it is enough."""

    def __init__(
        self,
        launch: SnapshotLauncher,
        spool: CommitSpool | None,
        clock: Clock,
        rules: SnapshotRules,
        *,
        pending_commits: int,
    ) -> None:
        """`pending_commits` were folded at the start beyond the snapshot that it began from."""
        self._launch = launch
        self._spool = spool
        self._clock = clock
        self._rules = rules
        self._events = pending_commits
        self._bytes = 0
        self._enough = asyncio.Event()
        self._look()

    def durable(self, commit: PendingCommit) -> None:
        """A commit was acknowledged."""
        self._events += len(commit.events)
        self._bytes += len(commit.payload)
        self._look()

    async def run(self) -> None:
        """Take snapshots for ever."""
        while True:
            await self._enough.wait()
            await self._clock.sleep(LEAST_PAUSE_SECONDS if await self._take() else RETRY_SECONDS)

    async def finish(self, timeout_seconds: float) -> None:
        """Take a last one if the log has grown enough for the next start to gain by it."""
        share = max(self._events / self._rules.events, self._bytes / self._rules.bytes)
        if share < WORTH_TAKING_RATIO:
            return
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._take()
        except TimeoutError:
            log.warning("no snapshot at the end: it would have taken too long", extra={"share": share})

    def _look(self) -> None:
        if self._events >= self._rules.events or self._bytes >= self._rules.bytes:
            self._enough.set()

    async def _take(self) -> bool:
        events, size = self._events, self._bytes
        try:
            taken = await self._launch()
        except SnapshotFailed as error:
            log.warning("no snapshot was taken", extra={"cause": str(error)})
            return False
        self._events, self._bytes = self._events - events, self._bytes - size
        self._enough.clear()
        self._look()
        log.info("a snapshot was taken", extra={"sequence": taken.sequence})
        if self._spool is not None:
            try:
                await self._spool.trim(taken.oldest_kept)
            except SpoolError as error:
                log.warning("the spool was not trimmed", extra={"cause": str(error)})
        return True
