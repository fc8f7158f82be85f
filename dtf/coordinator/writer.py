"""The one writer: commands become events, events become commits, effects follow the acknowledgement.

    post ──▶ queue ──▶ cut: decide, evolve, serialize ──▶ pipeline ──▶ acknowledged ──▶ effects, in order
                 ▲                                            │
                 └──────── gathers while a commit is in flight

State is evolved when a commit is cut, ahead of its durability, so that the next commands see it;
nothing of it leaves the process before the acknowledgement. Whoever answers from state awaits
`settled()` first. A commit is cut when none is in flight, or when what waits fills one (64 KiB), so
that at low load a commit holds one event and at high load up to 16 full ones are in flight. While
an append has failed (pipeline.py) nothing is decided.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from dtf.coordinator.command_queue import DEFAULT_WEIGHT_BYTES, CommandQueue, QueuedCommand
from dtf.coordinator.commit_cutter import CommitCutter, CommitDraft
from dtf.coordinator.commits import Outcome, PendingCommit, Settle, Step
from dtf.coordinator.monotonic_time import MonotonicTime
from dtf.coordinator.outcomes import OutcomeResolver, abandon, tell, tell_all
from dtf.coordinator.pipeline import CommitPipeline, WriterStopped
from dtf.core.chain import ChainReader
from dtf.core.run.commands import Command, Rejection
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog
from dtf.ports.spool import CommitSpool
from dtf.rpc.errors import NotLeading

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How large and how many commits may be."""

    max_commit_bytes: int = 64 * 1024
    max_in_flight: int = 16


class WriterListener(Protocol):
    """What the writer asks and tells, in its own turn; none of it may wait."""

    def follow_up(self) -> Command | None:
        """A command to decide with every commit, after those that were posted."""
        ...

    def decided(self, step: Step) -> None:
        """The follow-up was decided; it is not durable yet."""
        ...

    def idle(self) -> None:
        """A turn decided nothing, and nothing is in flight."""
        ...

    def durable(self, commit: PendingCommit) -> None:
        """A commit was acknowledged; called in the order of the log, before outcomes are told."""
        ...


class Writer:
    """Decides commands in the order they come and appends what they produce. Runs in one event loop."""

    def __init__(
        self,
        event_log: EventLog,
        clock: Clock,
        state: State,
        chain: ChainReader,
        *,
        nonce: bytes,
        code_version: str,
        limits: WriterLimits,
        listener: WriterListener,
        spool: CommitSpool | None = None,
    ) -> None:
        self.state = state
        self.epoch = chain.epoch
        self._time = MonotonicTime(clock, chain.now_ns)
        self._limits = limits
        self._listener = listener
        self._queue = CommandQueue()
        self._is_scheduled = False
        self._wants_follow_up = False
        self._stopped: WriterStopped | None = None
        self.confirm: Callable[[], Awaitable[None]] | None = None
        """Returns while nobody else can lead (LeaseKeeper.confirm); None: the log alone says so."""
        self._pipeline = CommitPipeline(
            event_log,
            clock,
            self,
            epoch=chain.epoch,
            sequence=chain.sequence,
            message_id=chain.last_hash.hex(),
            spool=spool,
        )
        self._cutter = CommitCutter(self._pipeline, state, chain, nonce=nonce, code_version=code_version)

    @property
    def durable_sequence(self) -> int:
        """Sequence of the last acknowledged commit."""
        return self._pipeline.durable_sequence

    @property
    def durable_hash(self) -> str:
        """Hash of the last acknowledged commit."""
        return self._pipeline.durable_id

    @property
    def is_stalled(self) -> bool:
        """Whether nothing is decided, because an append failed or the reign is over."""
        return self._pipeline.is_stalled or self._stopped is not None

    @property
    def refusing(self) -> Rejection | None:
        """Why submissions are refused; None: they are not."""
        return self._pipeline.refusing

    @property
    def in_flight_count(self) -> int:
        """Commits sent and not acknowledged."""
        return len(self._pipeline.in_flight)

    def post(
        self,
        command: Command,
        settle: Settle | None = None,
        *,
        weight: int = DEFAULT_WEIGHT_BYTES,
        is_patient: bool = True,
    ) -> None:
        """Queue a command; `settle` hears its outcome. One that is not patient is refused while the log fails."""
        refusal = self._refusal(is_patient)
        if refusal is not None:
            tell(settle, Outcome(0, (), refusal))
            return
        self._queue.put(QueuedCommand(command, settle, weight, is_patient))
        self._schedule()

    def begin(self, command: Command, *, weight: int = DEFAULT_WEIGHT_BYTES) -> "asyncio.Future[Outcome]":
        """Queue a command for a caller who waits; the future gives its outcome and never an exception."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.post(command, OutcomeResolver(future), weight=weight, is_patient=False)
        return future

    async def submit(self, command: Command, *, weight: int = DEFAULT_WEIGHT_BYTES) -> Outcome:
        """Decide a command for a caller who waits; return once it is durable. Raises Rejection."""
        outcome = await self.begin(command, weight=weight)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def wake(self) -> None:
        """Ask for the follow-up command soon: what it depends on outside of state has changed."""
        self._wants_follow_up = True
        self._schedule()

    async def settled(self) -> None:
        """Return when everything in state now is durable, and this leader's own.

        Raises Rejection while the log fails, or when another may lead by now.
        """
        refusal = self._refusal(is_patient=False)
        if refusal is not None:
            raise refusal
        if self._pipeline.in_flight:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pipeline.in_flight[-1].waiters.append(waiter)
            await waiter
        if self.confirm is not None:
            await self.confirm()

    async def run(self) -> None:
        """Recover from failed appends for ever. Raises WriterStopped when the reign is over."""
        await self._until_stopped(self._pipeline.run())

    async def watch(self) -> None:
        """Look at the log's end now and then, for ever. Raises WriterStopped when the reign is over."""
        await self._until_stopped(self._pipeline.watch())

    async def _until_stopped(self, part: Awaitable[None]) -> None:
        try:
            await part
        except WriterStopped as error:
            self.stop(error)
            raise

    def stop(self, reason: WriterStopped) -> None:
        """Decide nothing more; whoever waits hears that this coordinator does not lead."""
        self._stopped = self._stopped or reason
        refusal = NotLeading(str(self._stopped))
        for commit in self._pipeline.in_flight:
            abandon(commit, refusal, lambda _step: True)
            commit.steps, commit.waiters = [], []
        self._drop_queued(refusal, lambda _item: True)

    def _refusal(self, is_patient: bool) -> Rejection | None:
        if self._stopped is not None:
            return NotLeading(str(self._stopped))
        return None if is_patient else self._pipeline.refusing

    # -- cutting commits

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self.is_stalled or not (self._queue or self._wants_follow_up):
            return
        in_flight = len(self._pipeline.in_flight)
        if in_flight and self._queue.waiting_bytes < self._limits.max_commit_bytes:
            return
        if in_flight < self._limits.max_in_flight:
            self._cut()
            if self._queue:
                self._schedule()

    def _cut(self) -> None:
        """Decide what waits, up to one commit's worth, and send it."""
        cutter, draft = self._cutter, CommitDraft(self._time.next_ns())
        while self._queue and draft.size < self._limits.max_commit_bytes:
            item = self._queue.take()
            draft = cutter.add(draft, cutter.decide(item.command, item.settle, draft.now_ns))
        self._wants_follow_up = False
        command = self._listener.follow_up()
        if command is not None:
            step = cutter.decide(command, None, draft.now_ns)
            draft = cutter.add(draft, step)
            self._listener.decided(step)
        if draft.size:
            cutter.send(draft)
        elif self._pipeline.in_flight:
            # Answers rest on state that may not be durable yet: they wait for the last commit in flight.
            self._pipeline.in_flight[-1].steps.extend(draft.steps)
        else:
            tell_all(draft.steps, self.durable_sequence)
            self._listener.idle()

    # -- what the pipeline tells

    def landed(self, commit: PendingCommit) -> None:
        """Let a commit's effects out."""
        try:
            self._listener.durable(commit)
        except Exception:  # one listener's fault must not keep the others from what is durable
            log.exception("a listener failed on a durable commit", extra={"sequence": commit.sequence})
        tell_all(commit.steps, commit.sequence)
        for waiter in commit.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def moved(self) -> None:
        """Cut the next commit if there is anything for it."""
        self._schedule()

    def refused(self, refusal: Rejection) -> None:
        """Tell callers who wait. What is in flight may land yet: asking again is safe, it is done once."""
        self._drop_queued(refusal, lambda item: not item.is_patient)
        for commit in self._pipeline.in_flight:
            abandon(commit, refusal, lambda step: isinstance(step.settle, OutcomeResolver))

    def _drop_queued(self, refusal: Rejection, is_chosen: Callable[[QueuedCommand], bool]) -> None:
        for item in self._queue.drop(is_chosen):
            tell(item.settle, Outcome(0, (), refusal))
