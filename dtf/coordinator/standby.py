"""A coordinator that waits for its turn: it folds the log as it grows and watches the leader's lease.

    following ──the lease stands still, is released, or its leader's listener is gone──▶ claiming
        ▲                                                                                  │
        └───────────── another one was first, or the leader renewed after all ◀────────────┤
                                                                                           ▼
                                the log still has what was folded (recovery.py): the caller is elected

A place that is free is claimed only if the log has what the leader's record says it had
acknowledged: a standby that started after the broker lost its tail knows it from nowhere else.

Of several standbys one claims: the lease is replaced at the revision that was read. The claim is
renewed like a leader's lease until the election is in the log, so that the others wait for it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from dtf.coordinator.lease_keeper import LeaseKeeper
from dtf.coordinator.recovery import Fold, HistoryLost, fold, message_at
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, StoredCommit
from dtf.ports.leader_lease import (
    LeaderLease,
    LeaderPhase,
    LeaderRecord,
    LeaseError,
    LeaseTaken,
    LeaseView,
)
from dtf.rpc.presence import Presence

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""Between two looks at the lease: what a good stop costs at most before the next one leads."""
ENLIST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What the lease says of this process."""

    leader: str
    address: str
    lease_seconds: float

    def record(self, epoch: int, phase: LeaderPhase) -> LeaderRecord:
        """The record of this process."""
        return LeaderRecord(self.leader, epoch, self.address, self.lease_seconds, phase)


class Standby:
    """Waits once. The reign handed in is folded on while it waits."""

    def __init__(
        self, event_log: EventLog, lease: LeaderLease, clock: Clock, identity: Identity, reign: Fold
    ) -> None:
        self._log = event_log
        self._lease = lease
        self._clock = clock
        self._identity = identity
        self._reign = reign
        self._presence = Presence(clock)
        self._seen = LeaseView()
        self._last_record: LeaderRecord | None = None
        """Kept here where a broker that was restarted forgot it."""
        self._moved_at = clock.monotonic()
        self._enlisted_at = float("-inf")

    async def turn(self) -> LeaseKeeper:
        """Wait until the place is free and claim it; what keeps the claim.

        Raises HistoryLost if the log lacks what the leader knew, ChainBroken, LogError.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(self._follow()), tasks.create_task(self._presence.run())]
                keeper = await self._claim()
                for part in parts:
                    part.cancel()
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        await self._withdraw()
        return keeper

    async def _follow(self) -> None:
        following = self._log.follow(self._reign.chain.sequence)
        batches = cast(AsyncGenerator[Sequence[StoredCommit], None], following)
        async with aclosing(batches) as follow:
            async for batch in follow:
                for stored in batch:
                    fold(self._reign.state, self._reign.chain, stored)

    # -- the lease

    async def _claim(self) -> LeaseKeeper:
        while True:
            try:
                view = await self._look()
                if view is not None:
                    return await self._take(view)
            except LeaseTaken:
                log.info("another standby was first")
            except LeaseError as error:
                # Nothing is known of the leader while nobody keeps its lease: its silence begins anew.
                self._moved_at = self._clock.monotonic()
                log.debug("the lease cannot be read: %s", error)
            await self._pause()

    async def _pause(self) -> None:
        """Until the next look. What this process stood still itself meanwhile is no silence of the leader's."""
        before = self._clock.monotonic()
        await self._clock.sleep(LOOK_SECONDS)
        self._moved_at += max(0.0, self._clock.monotonic() - before - LOOK_SECONDS)

    async def _look(self) -> LeaseView | None:
        """The lease if its place is free."""
        view = await self._lease.read()  # first, because it makes the bucket where there is none
        now = self._clock.monotonic()
        if now - self._enlisted_at >= ENLIST_SECONDS:
            await self._lease.enlist(self._identity.leader)
            self._enlisted_at = now
        if view.revision != self._seen.revision or view.record != self._seen.record:
            self._seen, self._moved_at = view, now
            if view.record is not None:
                self._last_record = view.record
                self._presence.follow(view.record.address)
        return view if self._is_free(view.record, now) else None

    def _is_free(self, record: LeaderRecord | None, now: float) -> bool:
        silent_seconds = now - self._moved_at
        if record is None:
            return silent_seconds > self._identity.lease_seconds
        if record.phase in (LeaderPhase.RELEASED, LeaderPhase.LOST):
            return True
        if silent_seconds > record.lease_seconds:
            log.warning("the leader is silent", extra={"leader": record.leader, "seconds": silent_seconds})
            return True
        if self._presence.is_gone:
            log.warning("the leader does not listen any more", extra={"leader": record.leader})
            return True
        return False

    async def _take(self, view: LeaseView) -> LeaseKeeper:
        seen_epoch = view.record.epoch if view.record is not None else 0
        epoch = max(seen_epoch, self._reign.chain.epoch) + 1
        record = self._identity.record(epoch, LeaderPhase.CLAIMING)
        known = view.record or self._last_record
        if known is not None:
            await refuse_shortened(self._log, known, self._reign.chain.epoch)
            record = replace(record, sequence=known.sequence, message_id=known.message_id)
        revision = await self._lease.write(record, view.revision)
        log.info("claimed the lease", extra={"epoch": epoch, "sequence": self._reign.chain.sequence})
        return LeaseKeeper(self._lease, self._clock, record, revision)

    async def _withdraw(self) -> None:
        try:
            await self._lease.withdraw(self._identity.leader)
        except LeaseError as error:
            log.debug("still enlisted for some seconds: %s", error)


async def refuse_shortened(event_log: EventLog, record: LeaderRecord, epoch: int = 0) -> None:
    """Raises HistoryLost if the log lacks what the leader said was acknowledged.

    A record of an earlier epoch than the log's says nothing: somebody was elected since.
    """
    if not record.sequence or record.epoch < epoch:
        return
    found = await message_at(event_log, record.sequence)
    head = await event_log.head()
    if found is None and head.first_sequence > record.sequence:
        return
    if found is None or found.message_id != record.message_id:
        raise HistoryLost(
            f"the event log lost messages: {record.leader} had acknowledged {record.sequence} in epoch "
            f"{record.epoch}; the log {'ends' if found is None else 'has another one there and ends'} "
            f"at {head.last_sequence}",
            "`dtf log repair` on the machine of that leader puts them back from its spool",
            "where that spool is gone, `dtf log repair --accept-loss SEQUENCE` there goes on without them",
        )
