"""The leader's side of its lease: renewed five times in its length, and believed no longer than it lasts.

    claiming ──elected──▶ leading ──stop──▶ released, or lost: the log lacks what it had acknowledged
        └────────────────────┴── another's record of a later epoch, or lapsed while a standby waits: Deposed

How long this leader believes itself is counted from before a renewal was sent, by its own clock; a
standby counts from when it saw the renewal, which is later. So whoever answers from state within
`confirm` answers nothing that a next leader could have contradicted by then. A leader without a
standby outlasts a broker that is away: nobody could take its place.

Each renewal says how far the log has acknowledged, so that a standby which has not seen it itself
leads on no log that is shorter (standby.py).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from dtf.coordinator.pipeline import Deposed
from dtf.ports.clock import Clock
from dtf.ports.leader_lease import (
    LeaderLease,
    LeaderPhase,
    LeaderRecord,
    LeaseError,
    LeaseTaken,
    LeaseUnavailable,
)
from dtf.rpc.errors import NotLeading

log = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 5
SHORTEST_WAIT_SECONDS = 0.05
RELEASE_SECONDS = 1.0
WORD_SECONDS = 5.0
"""How long a broker that has just started is waited for, to tell it what its log lacks."""
RETRY_SECONDS = 0.1


class LeaseKeeper:
    """Keeps one process's record. `run` ends by `release`, or by an error."""

    def __init__(
        self, lease: LeaderLease, clock: Clock, record: LeaderRecord, revision: int | None = None
    ) -> None:
        """`revision`: of the record when this process wrote it just now; None: whatever is there is to be read."""
        self._lease = lease
        self._clock = clock
        self._record = record
        self._revision = revision
        self._renewed_at = clock.monotonic()
        self._standbys: frozenset[str] = frozenset()
        self._tried = asyncio.Event()
        self._fault: LeaseError | None = None
        self._is_over = False
        self._position: Callable[[], tuple[int, str]] | None = None

    @property
    def standbys(self) -> frozenset[str]:
        """Who waited for this place when that could last be asked."""
        return self._standbys

    def lead(self, epoch: int, position: Callable[[], tuple[int, str]]) -> None:
        """This process was elected. `position` gives sequence and id of the last acknowledged commit."""
        self._record = replace(self._record, epoch=epoch, phase=LeaderPhase.LEADING)
        self._position = position

    def know(self, sequence: int, message_id: str) -> None:
        """This machine knows that the log had acknowledged so much; the record says so to whoever comes next."""
        self._record = replace(self._record, sequence=sequence, message_id=message_id)

    def _present_record(self) -> LeaderRecord:
        if self._position is not None:
            sequence, message_id = self._position()
            self._record = replace(self._record, sequence=sequence, message_id=message_id)
        return self._record

    async def run(self) -> None:
        """Renew until released. Raises Deposed."""
        pause = self._record.lease_seconds / RENEWALS_PER_LEASE
        try:
            while not self._is_over:
                await self._renew()
                await self._clock.sleep(pause)
        finally:
            self._is_over = True
            self._tell_tried()

    async def confirm(self) -> None:
        """Return when this process may answer from its state. Raises NotLeading.

        A process that was stopped and goes on renews first; until then nobody is answered.
        """
        if self._is_over:
            raise NotLeading("this coordinator does not lead any more")
        if not self._has_lapsed or (self._fault is not None and not self._standbys):
            return
        await self._tried.wait()
        if self._is_over or (self._has_lapsed and self._standbys):
            raise NotLeading("this coordinator could not renew its lease; a standby may lead by now")

    async def release(self, phase: LeaderPhase = LeaderPhase.RELEASED) -> None:
        """Renew no more, and let the next one take over at once. A lease that cannot be released lapses.

        With LeaderPhase.LOST the next one first makes sure that the log is what this one knew. A broker
        that lost the log's tail was most likely restarted, and forgot the record as well: then it is written
        anew, or a standby that started meanwhile would lead on what is left.
        """
        self._is_over = True
        try:
            async with asyncio.timeout(WORD_SECONDS if phase is LeaderPhase.LOST else RELEASE_SECONDS):
                while not await self._is_released(phase):
                    pass
        except (LeaseError, TimeoutError) as error:
            log.info("the lease was not released", extra={"cause": str(error)})

    async def _is_released(self, phase: LeaderPhase) -> bool:
        """One try; False if a renewal that was under way came in between, or word cannot be left yet."""
        is_word = phase is LeaderPhase.LOST
        try:
            view = await self._lease.read()
            if not (is_word if view.record is None else view.record.leader == self._record.leader):
                return True
            await self._lease.write(replace(self._present_record(), phase=phase), view.revision)
        except LeaseTaken:
            return False
        except LeaseUnavailable:
            if not is_word:
                raise
            await self._clock.sleep(RETRY_SECONDS)
            return False
        return True

    @property
    def _has_lapsed(self) -> bool:
        return self._clock.monotonic() - self._renewed_at > self._record.lease_seconds

    async def _renew(self) -> None:
        """One try. Raises Deposed when it is the last."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._patience_seconds(began)):
                await self._write()
                self._renewed_at, self._fault = began, None
                self._standbys = await self._lease.standbys()
        except (LeaseError, TimeoutError) as error:
            self._failed(error)
        self._tell_tried()

    def _patience_seconds(self, now: float) -> float:
        """How long a try may take: to the end of the lease, so that its lapse is noticed in time."""
        left = self._renewed_at + self._record.lease_seconds - now
        return max(left, self._record.lease_seconds / RENEWALS_PER_LEASE)

    async def _write(self) -> None:
        for _ in range(2):
            if self._revision is None:
                self._revision = await self._revision_to_replace()
            try:
                self._revision = await self._lease.write(self._present_record(), self._revision)
            except LeaseTaken:
                self._revision = None
            else:
                return
        raise LeaseTaken("two others wrote the lease at the same time")

    async def _revision_to_replace(self) -> int:
        """The revision of what is there. Raises Deposed if that is of a later reign."""
        view = await self._lease.read()
        found = view.record
        if found is not None and found.leader != self._record.leader and found.epoch > self._record.epoch:
            raise Deposed(
                f"{found.leader} at {found.address} is {found.phase} with epoch {found.epoch} "
                f"(this one's is {self._record.epoch})"
            )
        return view.revision

    def _failed(self, error: LeaseError | TimeoutError) -> None:
        fault = error if isinstance(error, LeaseError) else LeaseUnavailable("the broker did not answer")
        if self._fault is None:
            log.warning("the lease was not renewed", extra={"cause": str(fault)})
        self._fault = fault
        self._revision = None
        if self._has_lapsed and self._standbys:
            raise Deposed(
                f"this coordinator could not renew its lease for {self._record.lease_seconds:g} s "
                f"({fault}) and {len(self._standbys)} standby waits: it leaves its place"
            )

    def _tell_tried(self) -> None:
        self._tried.set()
        self._tried = asyncio.Event()
