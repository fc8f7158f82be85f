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
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import Outcome, PendingCommit, Settle, Step, headers_of, serialize
from dtf.coordinator.pipeline import CommitPipeline, WriterStopped
from dtf.core.chain import ChainReader
from dtf.core.run.commands import Command, Rejection
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog
from dtf.ports.spool import CommitSpool
from dtf.rpc.errors import NotLeading

log = logging.getLogger(__name__)

DEFAULT_WEIGHT_BYTES = 256
"""What a command is taken to add to a commit when its sender does not say."""

MAX_COMMIT_BYTES = 960 * 1024
"""Of events: what fits, with inputs and headers, into nats-server's largest message of 1 MiB."""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How large and how many commits may be."""

    max_commit_bytes: int = 64 * 1024
    max_in_flight: int = 16


class MonotonicTime:
    """The coordinator's time: the wall clock at the start, then the monotonic clock; it never repeats."""

    def __init__(self, clock: Clock, after_ns: int) -> None:
        self._clock = clock
        self._base_ns = clock.now_ns()
        self._base = clock.monotonic()
        self._last_ns = after_ns

    def next_ns(self) -> int:
        """Now, and later than every answer before and every commit stored."""
        now_ns = self._base_ns + int((self._clock.monotonic() - self._base) * 1e9)
        self._last_ns = max(now_ns, self._last_ns + 1)
        return self._last_ns


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


@dataclass(frozen=True, slots=True)
class _Queued:
    command: Command
    settle: Settle | None
    weight: int
    is_patient: bool


@dataclass(slots=True)
class _Draft:
    """A commit that is being made."""

    now_ns: int
    steps: list[Step] = field(default_factory=list)
    size: int = 0
    """Of its events."""


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
        self._hash = chain.last_hash
        self._sequence = chain.sequence
        self._nonce = nonce
        self._counter = 0
        self._code_version = code_version
        self._limits = limits
        self._listener = listener
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
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
            _tell(settle, Outcome(0, (), refusal))
            return
        self._queue.append(_Queued(command, settle, weight, is_patient))
        self._queued_bytes += weight
        self._schedule()

    def begin(self, command: Command, *, weight: int = DEFAULT_WEIGHT_BYTES) -> "asyncio.Future[Outcome]":
        """Queue a command for a caller who waits; the future gives its outcome and never an exception."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.post(command, _Resolver(future), weight=weight, is_patient=False)
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
            _abandon(commit, refusal, lambda _step: True)
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
        if in_flight and self._queued_bytes < self._limits.max_commit_bytes:
            return
        if in_flight < self._limits.max_in_flight:
            self._cut()
            if self._queue:
                self._schedule()

    def _cut(self) -> None:
        """Decide what waits, up to one commit's worth, and send it."""
        draft = _Draft(self._time.next_ns())
        while self._queue and draft.size < self._limits.max_commit_bytes:
            item = self._queue.popleft()
            self._queued_bytes -= item.weight
            draft = self._add(draft, self._decide(item.command, item.settle, draft.now_ns))
        self._wants_follow_up = False
        command = self._listener.follow_up()
        if command is not None:
            step = self._decide(command, None, draft.now_ns)
            draft = self._add(draft, step)
            self._listener.decided(step)
        if draft.size:
            self._send(draft)
        elif self._pipeline.in_flight:
            # Answers rest on state that may not be durable yet: they wait for the last commit in flight.
            self._pipeline.in_flight[-1].steps.extend(draft.steps)
        else:
            _settle(draft.steps, self.durable_sequence)
            self._listener.idle()

    def _decide(self, command: Command, settle: Settle | None, now_ns: int) -> Step:
        try:
            return Step(command, decide(self.state, command, now_ns), settle)
        except Rejection as rejection:
            return Step(command, (), settle, rejection)
        except Exception as error:  # decide is pure: the state is as it was, and one command is lost
            log.exception("a command could not be decided", extra={"command": type(command).__name__})
            return Step(command, (), settle, error)

    def _add(self, draft: _Draft, step: Step) -> _Draft:
        """Evolve a step into the draft; the draft that is open now.

        A step that would make the draft too large for the broker begins the next one. Only a step
        that is too large by itself is spread over several: its outcome is told with its last part.
        """
        sizes = [event.ByteSize() for event in step.events]
        if draft.size and draft.size + sum(sizes) > MAX_COMMIT_BYTES:
            draft = self._sent(draft)
        taken: list[events_pb2.Event] = []
        for event, size in zip(step.events, sizes, strict=True):
            if draft.size and draft.size + size > MAX_COMMIT_BYTES:
                draft.steps.append(Step(step.command, taken, None, continues=True))
                draft, taken = self._sent(draft), []
            evolve(self.state, event, draft.now_ns, self._sequence + 1)
            taken.append(event)
            draft.size += size
        draft.steps.append(Step(step.command, taken, step.settle, step.error))
        return draft

    def _sent(self, draft: _Draft) -> _Draft:
        self._send(draft)
        return _Draft(draft.now_ns)

    def _send(self, draft: _Draft) -> None:
        self._counter += 1
        events = [event for step in draft.steps for event in step.events]
        payload, message_id = serialize(
            commit_id=self._nonce + self._counter.to_bytes(8, "big"),
            epoch=self.epoch,
            previous_hash=self._hash,
            now_ns=draft.now_ns,
            code_version=self._code_version,
            steps=draft.steps,
            events=events,
        )
        commit = PendingCommit(
            sequence=self._sequence + 1,
            now_ns=draft.now_ns,
            payload=payload,
            message_id=message_id,
            previous_message_id=self._hash.hex(),
            expected_last_sequence=None if self._pipeline.in_flight else self._sequence,
            headers=headers_of(events),
            events=events,
            steps=draft.steps,
        )
        self._sequence = commit.sequence
        self._hash = bytes.fromhex(message_id)
        self._pipeline.send(commit)

    # -- what the pipeline tells

    def landed(self, commit: PendingCommit) -> None:
        """Let a commit's effects out."""
        try:
            self._listener.durable(commit)
        except Exception:  # one listener's fault must not keep the others from what is durable
            log.exception("a listener failed on a durable commit", extra={"sequence": commit.sequence})
        _settle(commit.steps, commit.sequence)
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
            _abandon(commit, refusal, lambda step: isinstance(step.settle, _Resolver))

    def _drop_queued(self, refusal: Rejection, is_chosen: Callable[[_Queued], bool]) -> None:
        dropped = [item for item in self._queue if is_chosen(item)]
        self._queue = deque(item for item in self._queue if not is_chosen(item))
        self._queued_bytes = sum(item.weight for item in self._queue)
        for item in dropped:
            _tell(item.settle, Outcome(0, (), refusal))


class _Resolver:
    """Resolves a future with an outcome, once: a caller told of a stalled log hears nothing later."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Outcome]") -> None:
        self._future = future

    def __call__(self, outcome: Outcome) -> None:
        if not self._future.done():
            self._future.set_result(outcome)


def _tell(settle: Settle | None, outcome: Outcome) -> None:
    if settle is None:
        return
    try:
        settle(outcome)
    except Exception:
        log.exception("an outcome could not be told", extra={"sequence": outcome.sequence})


def _settle(steps: list[Step], sequence: int) -> None:
    for step in steps:
        _tell(step.settle, Outcome(sequence, step.events, step.error))


def _abandon(commit: PendingCommit, refusal: Rejection, is_chosen: Callable[[Step], bool]) -> None:
    for step in commit.steps:
        if is_chosen(step):
            _tell(step.settle, Outcome(0, (), refusal))
    for waiter in commit.waiters:
        if not waiter.done():
            waiter.set_exception(refusal)
