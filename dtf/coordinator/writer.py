"""The one writer: commands become events, events become commits, effects follow the acknowledgement.

    post ──▶ queue ──▶ cut: decide, evolve, serialize ──▶ append ──▶ acknowledged ──▶ effects, in order
                 ▲                                           │
                 └── gathers while a commit is in flight     └─▶ failed: stop deciding, read back (recovery)

State is evolved when a commit is cut, ahead of its durability, so that the next commands see it;
nothing of it leaves the process before the acknowledgement. Whoever answers from state awaits
`settled()` first. A commit is cut when none is in flight, or when what waits fills one (64 KiB), so
that at low load a commit holds one event and at high load up to 16 full ones are in flight. Each
names the one before it (Nats-Expected-Last-Msg-Id), so that a stranger's message or a newer leader
fails all that follow.

On a failed append the writer decides nothing until the log's own end has been read:

    same commits there      they landed: acknowledged
    absent, log as expected sent again from the first that is missing, with back-off
    log shorter             LogTailLost: what was acknowledged is gone
    a newer leader's there  Deposed: drop the state, stop
    anything else there     LogDisturbed: drop the state, stop; the next start passes it over
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import Outcome, PendingCommit, Settle, Step, headers_of, serialize
from dtf.core.chain import ChainReader
from dtf.core.events import parse_commit
from dtf.core.run.commands import Command, Rejection
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogError, LogFull, StoredCommit
from dtf.rpc.errors import LogFullRefusal, LogUnavailableRefusal, NotLeading

log = logging.getLogger(__name__)

DEFAULT_WEIGHT_BYTES = 256
"""What a command is taken to add to a commit when its sender does not say."""
MAX_PAYLOAD_BYTES = 900 * 1024
"""A commit stops growing well below nats-server's largest message of 1 MiB."""
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 2.0
FAILURES_BEFORE_REFUSING = 2
"""One failed append may be a broker's restart; after the second, clients are told rather than kept."""


class WriterStopped(Exception):
    """Base of what ends a reign.

    WriterStopped
    ├── Deposed        a newer leader wrote where this writer's commit would have gone
    ├── LogDisturbed   a stranger wrote there: starting again is enough
    └── LogTailLost    the log ends before what it had acknowledged
    """


class Deposed(WriterStopped):
    """A newer leader wrote to the log."""


class LogDisturbed(WriterStopped):
    """A stranger wrote to the log."""


class LogTailLost(WriterStopped):
    """The log ends before what it had acknowledged."""


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

    def durable(self, commit: PendingCommit) -> None:
        """A commit was acknowledged; called in the order of the log, before outcomes are told."""
        ...


@dataclass(slots=True)
class _Queued:
    command: Command
    settle: Settle | None
    weight: int
    is_patient: bool


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
    ) -> None:
        self.state = state
        self._log = event_log
        self._clock = clock
        self._time = MonotonicTime(clock, chain.now_ns)
        self._epoch = chain.epoch
        self._hash = chain.last_hash
        self._sequence = chain.sequence
        self._durable_sequence = chain.sequence
        self._durable_id = chain.last_hash.hex()
        self._nonce = nonce
        self._counter = 0
        self._code_version = code_version
        self._limits = limits
        self._listener = listener
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._in_flight: deque[PendingCommit] = deque()
        self._is_scheduled = False
        self._wants_follow_up = False
        self._failed = asyncio.Event()
        self._is_stalled = False
        self._stopped: WriterStopped | None = None
        self.refusing: Rejection | None = None

    @property
    def epoch(self) -> int:
        """Number of this reign."""
        return self._epoch

    @property
    def durable_sequence(self) -> int:
        """Sequence of the last acknowledged commit."""
        return self._durable_sequence

    @property
    def durable_hash(self) -> str:
        """Hash of the last acknowledged commit."""
        return self._durable_id

    @property
    def is_stalled(self) -> bool:
        """Whether deciding is suspended because an append failed."""
        return self._is_stalled or self._stopped is not None

    @property
    def in_flight_count(self) -> int:
        """Commits sent and not acknowledged."""
        return len(self._in_flight)

    def now_ns(self) -> int:
        """The coordinator's time."""
        return self._time.next_ns()

    def post(
        self,
        command: Command,
        settle: Settle | None = None,
        *,
        weight: int = DEFAULT_WEIGHT_BYTES,
        is_patient: bool = True,
    ) -> None:
        """Queue a command; `settle` hears its outcome. One that is not patient is refused while the log fails."""
        if self._stopped is not None:
            _tell(settle, Outcome(0, (), NotLeading(str(self._stopped))))
            return
        if self.refusing is not None and not is_patient:
            _tell(settle, Outcome(0, (), self.refusing))
            return
        self._queue.append(_Queued(command, settle, weight, is_patient))
        self._queued_bytes += weight
        self._wake()

    async def submit(self, command: Command, *, weight: int = DEFAULT_WEIGHT_BYTES) -> Outcome:
        """Decide a command for a caller who waits; return once it is durable. Raises Rejection."""
        outcome = await self.begin(command, weight=weight)
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def begin(self, command: Command, *, weight: int = DEFAULT_WEIGHT_BYTES) -> "asyncio.Future[Outcome]":
        """Queue a command for a caller who waits; the future gives its outcome and never an exception."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.post(command, _Resolver(future), weight=weight, is_patient=False)
        return future

    def wake(self) -> None:
        """Ask for the follow-up command soon, because what it depends on outside of state has changed."""
        self._wants_follow_up = True
        self._wake()

    async def settled(self) -> None:
        """Return when everything in state now is durable. Raises Rejection while the log fails."""
        if self._stopped is not None:
            raise NotLeading(str(self._stopped))
        if self.refusing is not None:
            raise self.refusing
        if self._in_flight:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._in_flight[-1].waiters.append(waiter)
            await waiter

    async def run(self) -> None:
        """Recover from failed appends for ever. Raises WriterStopped when the reign is over."""
        while True:
            await self._failed.wait()
            self._failed.clear()
            try:
                await self._recover()
            except WriterStopped as error:
                self.stop(error)
                raise

    def stop(self, reason: WriterStopped) -> None:
        """Decide nothing more; whoever waits hears that this coordinator does not lead."""
        self._stopped = self._stopped or reason
        refusal = NotLeading(str(reason))
        for commit in self._in_flight:
            _abandon(commit, refusal, lambda _step: True)
        for item in self._queue:
            _tell(item.settle, Outcome(0, (), refusal))
        self._queue.clear()
        self._queued_bytes = 0

    # -- cutting commits

    def _wake(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        if self.is_stalled or not (self._queue or self._wants_follow_up):
            return
        if self._in_flight and self._queued_bytes < self._limits.max_commit_bytes:
            return
        if len(self._in_flight) >= self._limits.max_in_flight:
            return
        self._cut()
        if self._queue:
            self._wake()

    def _cut(self) -> None:
        """Decide what waits, up to one commit's worth, and send it."""
        now_ns = self._time.next_ns()
        steps: list[Step] = []
        size = 0
        while self._queue and size < self._limits.max_commit_bytes:
            item = self._queue.popleft()
            self._queued_bytes -= item.weight
            step = self._decide(item.command, item.settle, now_ns)
            steps.append(step)
            size += sum(event.ByteSize() for event in step.events)
        self._wants_follow_up = False
        command = self._listener.follow_up()
        if command is not None:
            step = self._decide(command, None, now_ns)
            self._listener.decided(step)
            steps.append(step)
        events = [event for step in steps for event in step.events]
        if events:
            self._send(now_ns, steps, events)
        else:
            self._settle_without_events(steps)

    def _decide(self, command: Command, settle: Settle | None, now_ns: int) -> Step:
        try:
            events = decide(self.state, command, now_ns)
        except Rejection as rejection:
            return Step(command, (), settle, rejection)
        except Exception as error:  # decide is pure: the state is as it was, and one command is lost
            log.exception("a command could not be decided", extra={"command": type(command).__name__})
            return Step(command, (), settle, error)
        for event in events:
            evolve(self.state, event, now_ns, self._sequence + 1)
        return Step(command, events, settle)

    def _settle_without_events(self, steps: list[Step]) -> None:
        """Answers rest on state that may not be durable yet: they wait for the last commit in flight."""
        if self._in_flight:
            self._in_flight[-1].steps.extend(steps)
        else:
            self._settle(steps, self._durable_sequence)

    def _send(self, now_ns: int, steps: list[Step], events: list[events_pb2.Event]) -> None:
        self._counter += 1
        payload, message_id = serialize(
            commit_id=self._nonce + self._counter.to_bytes(8, "big"),
            epoch=self._epoch,
            previous_hash=self._hash,
            now_ns=now_ns,
            code_version=self._code_version,
            steps=steps,
            events=events,
        )
        commit = PendingCommit(
            sequence=self._sequence + 1,
            now_ns=now_ns,
            payload=payload,
            message_id=message_id,
            previous_message_id=self._hash.hex() or None,
            expected_last_sequence=None if self._in_flight else self._sequence,
            headers=headers_of(events),
            events=events,
            steps=steps,
        )
        self._sequence = commit.sequence
        self._hash = bytes.fromhex(message_id)
        self._in_flight.append(commit)
        self._append(commit)

    def _append(self, commit: PendingCommit) -> None:
        commit.acknowledgement = self._log.append(
            commit.payload,
            message_id=commit.message_id,
            previous_message_id=commit.previous_message_id,
            expected_last_sequence=commit.expected_last_sequence,
            headers=commit.headers,
        )
        commit.acknowledgement.add_done_callback(self._on_acknowledgement)

    # -- effects

    def _on_acknowledgement(self, future: "asyncio.Future[int]") -> None:
        if future.cancelled() or future.exception() is not None:
            self._is_stalled = True
            self._failed.set()
            return
        if not self._is_stalled and self._stopped is None:
            self._release()

    def _release(self) -> None:
        """Let the effects of what is durable out, in order, as far as the acknowledgements go."""
        while self._in_flight and (sequence := _landed_at(self._in_flight[0])) is not None:
            commit = self._in_flight[0]
            if sequence != commit.sequence:
                self._is_stalled = True
                self._failed.set()
                return
            self._in_flight.popleft()
            self._make_final(commit)
        self._wake()

    def _make_final(self, commit: PendingCommit) -> None:
        self._durable_sequence, self._durable_id = commit.sequence, commit.message_id
        try:
            self._listener.durable(commit)
        except Exception:  # one listener's fault must not keep the others from what is durable
            log.exception("a listener failed on a durable commit", extra={"sequence": commit.sequence})
        self._settle(commit.steps, commit.sequence)
        for waiter in commit.waiters:
            if not waiter.done():
                waiter.set_result(None)

    @staticmethod
    def _settle(steps: list[Step], sequence: int) -> None:
        for step in steps:
            try:
                _tell(step.settle, Outcome(sequence, step.events, step.error))
            except Exception:
                log.exception("an outcome could not be told", extra={"sequence": sequence})

    # -- recovery

    async def _recover(self) -> None:
        """Read the log's end until every commit in flight is durable. Raises WriterStopped."""
        failures, delay = 0, FIRST_RETRY_SECONDS
        while self._in_flight:
            fault = await self._await_in_flight()
            is_readable = True
            try:
                await self._read_back()
            except LogError as unreadable:
                fault, is_readable = unreadable, False
            if not self._in_flight:
                break
            failures += 1
            self._consider_refusing(fault, failures)
            if failures > 1:
                await self._clock.sleep(delay)
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            if is_readable:
                self._resend()
        log.info("the log takes commits again", extra={"failures": failures})
        self.refusing = None
        self._failed.clear()
        self._is_stalled = False
        self._wake()

    async def _await_in_flight(self) -> Exception | None:
        """Wait until every append was answered (the adapter bounds the wait); the first fault, if any."""
        first: Exception | None = None
        for commit in list(self._in_flight):
            future = commit.acknowledgement
            if future is None:
                continue
            await asyncio.wait([future])
            fault = asyncio.CancelledError() if future.cancelled() else future.exception()
            if fault is not None and first is None:
                first = fault if isinstance(fault, Exception) else LogError("the append was cancelled")
        return first

    async def _read_back(self) -> None:
        """Acknowledge what landed. Raises WriterStopped if the log holds anything else, LogError if it is mute."""
        if not self._in_flight:
            return
        first = self._in_flight[0].sequence
        head = await self._log.head()
        if head.last_sequence < first - 1:
            raise LogTailLost(
                f"the log ends at {head.last_sequence} but {first - 1} was acknowledged; "
                "restore its tail from an export, then start again"
            )
        async for batch in self._log.read(first - 1, head.last_sequence):
            for stored in batch:
                expected = self._in_flight[0] if self._in_flight else None
                if expected is None or stored.message_id != expected.message_id:
                    raise self._displaced_by(stored)
                self._in_flight.popleft()
                self._make_final(expected)

    def _displaced_by(self, stored: StoredCommit) -> WriterStopped:
        commit = parse_commit(stored.payload, stored.message_id)
        if commit is not None and commit.epoch > self._epoch:
            return Deposed(
                f"another coordinator leads since message {stored.sequence} of the log "
                f"(epoch {commit.epoch}; this one's was {self._epoch})"
            )
        return LogDisturbed(
            f"message {stored.sequence} of the log is a stranger's; start again, and it is passed over"
        )

    def _resend(self) -> None:
        for index, commit in enumerate(self._in_flight):
            commit.expected_last_sequence = commit.sequence - 1 if index == 0 else None
            self._append(commit)

    def _consider_refusing(self, error: Exception | None, failures: int) -> None:
        if isinstance(error, LogFull):
            refusal: Rejection = LogFullRefusal(f"submissions are refused: {error}")
        elif failures >= FAILURES_BEFORE_REFUSING:
            refusal = LogUnavailableRefusal(f"the event log does not answer: {error}")
        else:
            return
        if self.refusing is None:
            log.warning("refusing submissions", extra={"cause": str(error)})
        self.refusing = refusal
        self._refuse_waiting(refusal)

    def _refuse_waiting(self, refusal: Rejection) -> None:
        """Tell callers who wait. What is in flight may land yet: asking again is safe, it is done once."""
        kept = deque(item for item in self._queue if item.is_patient)
        for item in self._queue:
            if not item.is_patient:
                _tell(item.settle, Outcome(0, (), refusal))
        self._queue = kept
        self._queued_bytes = sum(item.weight for item in kept)
        for commit in self._in_flight:
            _abandon(commit, refusal, lambda step: isinstance(step.settle, _Resolver))


class _Resolver:
    """Resolves a future with an outcome, once: a caller told of a stalled log hears nothing later."""

    __slots__ = ("_future",)

    def __init__(self, future: "asyncio.Future[Outcome]") -> None:
        self._future = future

    def __call__(self, outcome: Outcome) -> None:
        if not self._future.done():
            self._future.set_result(outcome)


def _tell(settle: Settle | None, outcome: Outcome) -> None:
    if settle is not None:
        settle(outcome)


def _abandon(commit: PendingCommit, refusal: Rejection, chosen: Callable[[Step], bool]) -> None:
    for step in commit.steps:
        if chosen(step):
            _tell(step.settle, Outcome(0, (), refusal))
    for waiter in commit.waiters:
        if not waiter.done():
            waiter.set_exception(refusal)


def _landed_at(commit: PendingCommit) -> int | None:
    """The sequence the log acknowledged, or None while it has not or could not."""
    future = commit.acknowledgement
    if future is None or not future.done() or future.cancelled() or future.exception() is not None:
        return None
    return future.result()
