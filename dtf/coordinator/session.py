"""One worker's session, and the stream it is attached by.

    CreateSession ──▶ open, detached ◀──▶ attached (reconciling ─▶ reconciled) ──▶ ended
                                                                   lost, left, superseded

A stream hears nothing of leases until the lease book and the worker's own list have been
reconciled: what the worker lacks is sent again under its old fence, what it should not have is
cancelled. Only then does it take new work.
"""

import asyncio
from dataclasses import dataclass, field

from dtf.api.v1 import worker_service_pb2
from dtf.coordinator.assignments import assignments, context
from dtf.coordinator.lease_spans import LeaseSpans
from dtf.core.run.commands import Rejection
from dtf.core.run.state import State

MAX_ITEMS = 256
MAX_BYTES = 2**20
"""A message down closes at either; measured in design/measured.md."""
PLENTY_OF_LEASES = 192
"""A worker that knows this many is told of more, and of what is durable, in larger messages: a message
costs both sides some 150 µs, and even no-ops keep such a worker busy for longer than GATHER_SECONDS."""
GATHER_SECONDS = 0.002
ACKNOWLEDGE_SECONDS = 0.01
"""Nobody waits for a mere acknowledgement: it goes with the next leases, or by itself after this."""


@dataclass(slots=True)
class Outbox:
    """What a stream is still to be told. `take` makes messages of it."""

    worker_id: str
    leases: LeaseSpans = field(default_factory=LeaseSpans)
    """Assignments not sent yet."""
    cancelled: list[int] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)
    exhausted: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    acknowledged_sequence: int = 0
    heartbeat_seconds: float = 0.0
    """How often the worker is to be heard from."""
    is_draining: bool = False
    heralded: set[str] = field(default_factory=set)
    """Runs to be told of before there is any lease of theirs, so that their warm process gets ready."""
    known_runs: set[str] = field(default_factory=set)
    """Runs whose context this stream has seen."""
    told_exhausted: set[str] = field(default_factory=set)
    _told_sequence: int = -1  # so that the first message confirms that the stream is attached
    _told_draining: bool = False
    _told_heartbeat_seconds: float = 0.0
    _is_acknowledgement_due: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, sequence: int) -> None:
        """Everything up to `sequence` is durable; the worker hears of it within ACKNOWLEDGE_SECONDS."""
        self.acknowledged_sequence = sequence
        if not self._is_acknowledgement_due:
            self._is_acknowledgement_due = True
            asyncio.get_running_loop().call_later(ACKNOWLEDGE_SECONDS, self._acknowledge_now)

    def _acknowledge_now(self) -> None:
        self._is_acknowledgement_due = False
        if self._told_sequence != self.acknowledged_sequence:
            self.wake.set()

    def take(self, state: State) -> worker_service_pb2.AttachResponse | None:
        """The next message, or None when there is nothing to say."""
        response = worker_service_pb2.AttachResponse()
        is_news = self._take_heralds(state, response)
        is_news |= self._take_leases(state, response)
        is_news |= self._take_hints(response)
        is_news |= self._told_sequence != self.acknowledged_sequence
        is_news |= self._told_draining != self.is_draining
        is_news |= self._told_heartbeat_seconds != self.heartbeat_seconds
        if not is_news:
            return None
        if self._told_heartbeat_seconds != self.heartbeat_seconds:
            self._told_heartbeat_seconds = response.heartbeat_seconds = self.heartbeat_seconds
        self._told_sequence = response.acknowledged_sequence = self.acknowledged_sequence
        self._told_draining = response.is_draining = self.is_draining
        return response

    def _take_heralds(self, state: State, response: worker_service_pb2.AttachResponse) -> bool:
        untold = [run_id for run_id in sorted(self.heralded - self.known_runs) if run_id in state.runs]
        self.heralded.clear()
        self.known_runs.update(untold)
        response.contexts.extend(context(state.runs[run_id]) for run_id in untold)
        return bool(untold)

    def _take_leases(self, state: State, response: worker_service_pb2.AttachResponse) -> bool:
        worker = state.workers[self.worker_id]
        spans = list(self.leases.take(state, worker, MAX_ITEMS, MAX_BYTES))
        for span in spans:
            run = state.runs[span.run_id]
            if span.run_id not in self.known_runs:
                self.known_runs.add(span.run_id)
                response.contexts.append(context(run))
            response.assignments.append(assignments(run, span.fences, span.tasks))
        return bool(spans)

    def can_wait(self, state: State) -> bool:
        """Whether more may be gathered first: there is no hint, and the worker has much to do meanwhile."""
        if self.cancelled or self.revoked or self.exhausted or self.ended or self.leases.count >= MAX_ITEMS:
            return False
        told = state.workers[self.worker_id].lease_count - self.leases.count
        return told >= PLENTY_OF_LEASES and self._told_draining == self.is_draining

    def _take_hints(self, response: worker_service_pb2.AttachResponse) -> bool:
        """What concerns leases waits until they are told, so that no word of one precedes it."""
        if self.leases:
            return False
        told = sorted(self.exhausted - self.told_exhausted)
        ended = sorted(self.ended & self.known_runs)
        is_news = bool(self.cancelled or self.revoked or told or ended)
        response.cancelled_fences.extend(self.cancelled)
        response.revoked_fences.extend(self.revoked)
        response.exhausted_runs.extend(told)
        response.ended_runs.extend(ended)
        self.told_exhausted.update(told)
        self.known_runs.difference_update(ended)
        for said in (self.cancelled, self.revoked, self.exhausted, self.ended):
            said.clear()
        return is_news


class Stream:
    """One Attach call. It ends once, with a refusal or without."""

    def __init__(self, worker_id: str) -> None:
        self.outbox = Outbox(worker_id)
        self.is_reconciled = False
        self.has_failed = False
        """A message of it was refused: nothing after that one is acknowledged."""
        self.unsettled = 0
        """Messages whose commit has not been acknowledged."""
        self.settled = asyncio.Event()
        self.writing = asyncio.Lock()
        """Held while a message is being sent."""
        self._ended: asyncio.Future[Rejection | None] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self._ended.done()

    def end(self, refusal: Rejection | None = None) -> None:
        """End the stream; the first reason stays."""
        if not self._ended.done():
            self._ended.set_result(refusal)

    async def ended(self) -> Rejection | None:
        """Return when the stream ends, with the refusal it ends with."""
        return await asyncio.shield(self._ended)


@dataclass(slots=True)
class Session:
    """An open session of one incarnation."""

    worker_id: str
    incarnation: int
    heard_at: float
    """Monotonic seconds of the last message."""
    stream: Stream | None = None
    told_heartbeat_seconds: float = 0.0
    """The interval its stream was told; 0: none yet."""
    tolerated_heartbeat_seconds: float = 0.0
    """The interval it is held to: a shorter one only once it was heard from again."""
    credits: int = 0
    """Leases the worker said it can take, less those granted since."""
    window: int = 0
    """Most leases it ever said it can hold: a message that crosses a grant on its way says too much."""
    posted_sequence: int | None = None
    """Sequence of the last message with content; None: none yet in this reign."""
    acknowledged_sequence: int = 0
    revoked: set[int] = field(default_factory=set)
    is_drain_posted: bool = False

    @property
    def is_serving(self) -> bool:
        """Whether it takes work now."""
        return self.stream is not None and self.stream.is_reconciled
