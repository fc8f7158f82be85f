"""Sessions of all workers: what they say becomes commands, what is durable becomes what they hear.

Liveness is kept here, by the monotonic clock, and outside of the hashed state: every message is a
heartbeat, a new reign gives every present worker one fresh term, and expiry is a command that
carries how long each was silent.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.coordinator.commits import Outcome, PendingCommit, Step
from dtf.coordinator.session import Outbox, Session, Stream
from dtf.coordinator.stealing import Seat, revocations
from dtf.coordinator.writer import Writer
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import (
    Command,
    Conflict,
    DrainWorker,
    ExpireWorkers,
    GrantLeases,
    InvalidRequest,
    NotFound,
    NotPossible,
    ReconcileLeases,
    Rejection,
    ReportResults,
)
from dtf.core.run.placement import fits
from dtf.core.run.queries import exhausted_runs
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.rpc.auth import is_equal, session_token
from dtf.rpc.errors import SessionReplaced, StaleSession, Unauthenticated, UnknownSession

log = logging.getLogger(__name__)

TelemetrySink = Callable[[Session, worker_service_pb2.Telemetry], None]


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long silence may last, how much a worker may hold, and what proves a session."""

    heartbeat_seconds: float
    lease_seconds: float
    max_credits: int
    token: str


class SessionHub:
    """Every open session. Follows durable commits; gives the writer its follow-up commands."""

    def __init__(self, state: State, clock: Clock, rules: SessionRules, telemetry: TelemetrySink) -> None:
        self._state = state
        self._clock = clock
        self._rules = rules
        self._telemetry = telemetry
        self._sessions: dict[str, Session] = {}
        self._durable_fence = state.next_fence
        self._writer: Writer | None = None
        heard_at = clock.monotonic()
        for worker in state.workers.values():
            if worker.is_present:
                self._open(worker.worker_id, worker.incarnation, heard_at)

    def bind(self, writer: Writer) -> None:
        """Name the writer that decides; once, before anything is received."""
        self._writer = writer

    @property
    def writer(self) -> Writer:
        """The writer that decides."""
        if self._writer is None:
            raise RuntimeError("the session hub has no writer yet")
        return self._writer

    @property
    def sessions(self) -> Iterable[Session]:
        """Every open session."""
        return self._sessions.values()

    def token_of(self, worker_id: str, incarnation: int) -> str:
        """The secret of a session."""
        return session_token(self._rules.token, worker_id, incarnation)

    def silent_seconds(self, worker_id: str) -> float:
        """Time since a worker was last heard from; 0 if it is not attached."""
        session = self._sessions.get(worker_id)
        if session is None or session.stream is None:
            return 0.0
        return max(0.0, self._clock.monotonic() - session.heard_at)

    # -- what workers say

    def check_token(self, handle: worker_service_pb2.SessionHandle) -> None:
        """Raises Unauthenticated unless the handle carries its session's secret."""
        if not is_equal(handle.session_token, self.token_of(handle.worker_id, handle.incarnation)):
            raise Unauthenticated("the session token does not belong to this worker and incarnation")

    def session_of(self, handle: worker_service_pb2.SessionHandle) -> Session:
        """The open session a handle names. Raises Unauthenticated, UnknownSession, StaleSession."""
        self.check_token(handle)
        session = self._sessions.get(handle.worker_id)
        if session is not None and session.incarnation == handle.incarnation:
            return session
        worker = self._state.workers.get(handle.worker_id)
        if worker is None or handle.incarnation > worker.incarnation:
            raise UnknownSession(
                f"no session {handle.incarnation} of worker {handle.worker_id!r} is known; open a new one",
                worker_id=handle.worker_id,
            )
        raise StaleSession(
            f"session {handle.incarnation} of worker {handle.worker_id!r} is over (the worker is now "
            f"{_state_name(worker)}, incarnation {worker.incarnation}); open a new one",
            worker_id=handle.worker_id,
            incarnation=str(worker.incarnation),
        )

    def attach(self, handle: worker_service_pb2.SessionHandle) -> tuple[Session, Stream]:
        """Give a session its stream, in the place of the one before. Raises Rejection."""
        session = self.session_of(handle)
        if session.stream is not None:
            session.stream.end(
                SessionReplaced(f"a newer stream of worker {session.worker_id!r} took this one's place")
            )
        stream = session.stream = Stream(session.worker_id)
        session.heard_at = self._clock.monotonic()
        session.credits, session.window = 0, len(handle.held_fences)
        session.revoked.clear()
        stream.outbox.acknowledged_sequence = session.acknowledged_sequence
        held = tuple(handle.held_fences)
        self.writer.post(
            ReconcileLeases(session.worker_id, session.incarnation, held),
            lambda outcome: self._reconciled(session, stream, held, outcome),
        )
        return session, stream

    def detach(self, session: Session, stream: Stream) -> None:
        """Forget a stream that ended; the session lives on until it expires."""
        stream.end()
        if session.stream is stream:
            session.stream = None

    def receive(self, session: Session, stream: Stream, message: worker_service_pb2.AttachRequest) -> None:
        """Take in one message. Raises InvalidRequest; what the core refuses ends the stream later."""
        session.heard_at = self._clock.monotonic()
        session.credits = min(message.credits, self._rules.max_credits)
        if message.HasField("session"):
            session.window = max(session.window, session.credits + len(message.session.held_fences))
        else:
            session.window = max(session.window, session.credits)
        if message.HasField("telemetry"):
            self._telemetry(session, message.telemetry)
        if message.state == common_pb2.WORKER_STATE_DRAINING:
            self._drain(session)
        if message.results or message.ends or message.released_fences:
            self._report(session, stream, message)
        elif message.sequence:
            self._note_sequence(session, message.sequence)
            self._acknowledge(session, message.sequence)
        self.writer.wake()

    def _report(self, session: Session, stream: Stream, message: worker_service_pb2.AttachRequest) -> None:
        sequence = message.sequence
        if not sequence:
            raise InvalidRequest(
                "a message with results, ends or releases needs a sequence of 1 or more; it has 0"
            )
        if not self._note_sequence(session, sequence):
            if sequence <= session.acknowledged_sequence:
                stream.outbox.wake.set()
            return
        stream.unsettled += 1
        stream.settled.clear()
        self.writer.post(
            ReportResults(
                session.worker_id,
                session.incarnation,
                message.results,
                message.ends,
                tuple(message.released_fences),
            ),
            lambda outcome: self._reported(session, stream, sequence, outcome),
            weight=message.ByteSize(),
        )

    @staticmethod
    def _note_sequence(session: Session, sequence: int) -> bool:
        """Whether this is the next message; False for one seen before. Raises InvalidRequest on a gap.

        The first message of a reign may have any number: what came before was acknowledged to the
        worker, or is sent again, by the reign before.
        """
        posted = session.posted_sequence
        if posted is not None and sequence <= posted:
            return False
        if posted is not None and sequence != posted + 1:
            raise InvalidRequest(f"message {sequence} came after {posted}; expected {posted + 1}")
        session.posted_sequence = sequence
        return True

    def _reported(self, session: Session, stream: Stream, sequence: int, outcome: Outcome) -> None:
        stream.unsettled -= 1
        stream.settled.set()
        if stream.has_failed:
            return
        if outcome.error is None:
            self._acknowledge(session, sequence)
            return
        stream.has_failed = True
        session.posted_sequence = sequence - 1
        log.warning(
            "a worker's report was refused",
            extra={
                "worker": session.worker_id,
                "incarnation": session.incarnation,
                "cause": str(outcome.error),
            },
        )
        stream.end(_as_rejection(outcome.error))

    def _acknowledge(self, session: Session, sequence: int) -> None:
        session.acknowledged_sequence = max(session.acknowledged_sequence, sequence)
        if session.stream is not None:
            session.stream.outbox.acknowledged_sequence = session.acknowledged_sequence
            session.stream.outbox.wake.set()

    def _drain(self, session: Session) -> None:
        worker = self._state.workers[session.worker_id]
        if session.is_drain_posted or not worker.takes_work:
            return
        session.is_drain_posted = True
        self.writer.post(DrainWorker(session.worker_id, "worker", "the worker was asked to stop"))

    def _reconciled(self, session: Session, stream: Stream, held: Sequence[int], outcome: Outcome) -> None:
        """Send again what the worker lacks, cancel what it should not have, and begin to serve it."""
        if session.stream is not stream or stream.is_over:
            return
        if outcome.error is not None:
            stream.end(_as_rejection(outcome.error))
            return
        worker = self._state.workers[session.worker_id]
        has = set(held)
        owned = {fence for leases in worker.leases.values() for fence in leases}
        stream.outbox.cancelled.extend(fence for fence in held if fence not in owned)
        for run_id, leases in worker.leases.items():
            stream.outbox.leases.extend(
                (run_id, fence, task)
                for fence, task in leases.items()
                if fence not in has and fence < self._durable_fence
            )
            if self._state.runs[run_id].is_cancelling:
                stream.outbox.cancelled.extend(fence for fence in leases if fence in has)
        stream.outbox.is_draining = worker.state == common_pb2.WORKER_STATE_DRAINING
        stream.is_reconciled = True
        stream.outbox.wake.set()
        self.writer.wake()

    # -- what the writer asks

    def follow_up(self) -> Command | None:
        """Grants for the credits at hand, decided with every commit."""
        if not self._state.queued_count:
            return None
        offered = {seat.worker_id: seat.credits for seat in self._seats() if seat.credits}
        return GrantLeases(offered) if offered else None

    def decided(self, step: Step) -> None:
        """Take granted leases off the credits at once: the next commit may be cut before this one lands."""
        for event in step.events:
            granted = event.leases_granted
            session = self._sessions.get(granted.worker_id)
            if session is not None:
                session.credits = max(0, session.credits - len(granted.tasks))

    def _seats(self) -> list[Seat]:
        seats = []
        for session in self._sessions.values():
            worker = self._state.workers[session.worker_id]
            if not session.is_serving or not worker.takes_work:
                continue
            credits = self._credits(session, worker)
            seats.append(Seat(session.worker_id, max(1, worker.slots), worker.lease_count, credits))
        return seats

    def _credits(self, session: Session, worker: Worker) -> int:
        """Leases a worker takes now: what it said, within the window it has."""
        window = min(session.window, self._rules.max_credits)
        return max(0, min(session.credits, window - worker.lease_count))

    # -- what is durable

    def durable(self, commit: PendingCommit) -> None:
        """Tell workers what a durable commit means to them."""
        touched: set[str] = set()
        for step in commit.steps:
            if isinstance(step.command, ReportResults | ReconcileLeases):
                touched.add(step.command.worker_id)
            for event in step.events:
                tell = _TELL.get(event.WhichOneof("event") or "")
                if tell is not None:
                    tell(self, event, step.command)
                if event.HasField("leases_granted"):
                    touched.add(event.leases_granted.worker_id)
        self._tell_exhausted(touched)
        if not self.writer.in_flight_count:
            self._steal()

    def _granted(self, event: events_pb2.Event, _command: Command) -> None:
        granted = event.leases_granted
        self._durable_fence = max(self._durable_fence, granted.first_fence + len(granted.tasks))
        session = self._sessions.get(granted.worker_id)
        if session is None or session.incarnation != granted.incarnation or not session.is_serving:
            return  # what is not told now is sent when the worker attaches
        outbox = _outbox(session)
        outbox.told_exhausted.discard(granted.run_id)
        outbox.leases.extend(
            (granted.run_id, fence, task) for fence, task in enumerate(granted.tasks, granted.first_fence)
        )
        outbox.wake.set()

    def _ended(self, event: events_pb2.Event, command: Command) -> None:
        self._cancel(event.attempts_ended.worker_id, event.attempts_ended.fences, command)

    def _released(self, event: events_pb2.Event, command: Command) -> None:
        self._cancel(event.leases_released.worker_id, event.leases_released.fences, command)

    def _cancel(self, worker_id: str, fences: Sequence[int], command: Command) -> None:
        """Take leases back, unless it was the worker itself that ended them."""
        session = self._sessions.get(worker_id)
        if session is None:
            return
        session.revoked.difference_update(fences)
        if isinstance(command, ReportResults) or session.stream is None:
            return
        session.stream.outbox.cancelled.extend(fences)
        session.stream.outbox.wake.set()

    def _refused(self, event: events_pb2.Event, _command: Command) -> None:
        refused = event.results_refused
        session = self._sessions.get(refused.worker_id)
        if session is not None and session.stream is not None and session.incarnation == refused.incarnation:
            session.stream.outbox.cancelled.extend(refused.fences)
            session.stream.outbox.wake.set()

    def _cancelling(self, event: events_pb2.Event, _command: Command) -> None:
        run_id = event.run_cancel_requested.run_id
        for session in self._sessions.values():
            leases = self._state.workers[session.worker_id].leases.get(run_id)
            if leases and session.stream is not None:
                session.stream.outbox.cancelled.extend(leases)
                session.stream.outbox.wake.set()

    def _run_ended(self, event: events_pb2.Event, _command: Command) -> None:
        for session in self._sessions.values():
            if session.stream is not None:
                session.stream.outbox.ended.add(event.run_finished.run_id)
                session.stream.outbox.wake.set()

    def _draining(self, event: events_pb2.Event, _command: Command) -> None:
        self._set_draining(event.worker_drain_requested.worker_id, True)

    def _working(self, event: events_pb2.Event, _command: Command) -> None:
        session = self._sessions.get(event.worker_released.worker_id)
        if session is not None:
            session.is_drain_posted = False
        self._set_draining(event.worker_released.worker_id, False)

    def _set_draining(self, worker_id: str, is_draining: bool) -> None:
        session = self._sessions.get(worker_id)
        if session is not None and session.stream is not None:
            session.stream.outbox.is_draining = is_draining
            session.stream.outbox.wake.set()

    def _registered(self, event: events_pb2.Event, _command: Command) -> None:
        said = event.worker_registered
        self._close(
            said.worker_id, StaleSession(f"worker {said.worker_id!r} opened session {said.incarnation}")
        )
        self._open(said.worker_id, said.incarnation, self._clock.monotonic())

    def _lost(self, event: events_pb2.Event, _command: Command) -> None:
        said = event.worker_lost
        self._close(
            said.worker_id,
            StaleSession(
                f"worker {said.worker_id!r} was silent for {said.silent_seconds:.1f} s and counts as lost; "
                "open a new session",
                worker_id=said.worker_id,
            ),
        )

    def _left(self, event: events_pb2.Event, _command: Command) -> None:
        self._close(event.worker_left.worker_id, None)

    def _open(self, worker_id: str, incarnation: int, heard_at: float) -> None:
        self._sessions[worker_id] = Session(worker_id, incarnation, heard_at)

    def _close(self, worker_id: str, refusal: Rejection | None) -> None:
        session = self._sessions.pop(worker_id, None)
        if session is not None and session.stream is not None:
            session.stream.end(refusal)

    def _tell_exhausted(self, worker_ids: Iterable[str]) -> None:
        """Tell workers that hold little which of their runs they will get no more of now."""
        for worker_id in worker_ids:
            session = self._sessions.get(worker_id)
            worker = self._state.workers.get(worker_id)
            if session is None or session.stream is None or worker is None:
                continue
            if not 0 < worker.lease_count <= _FEW_LEASES * worker.slots:
                continue
            outbox = session.stream.outbox
            for run_id in exhausted_runs(self._state, worker, self._credits(session, worker)):
                if run_id not in outbox.told_exhausted:
                    outbox.exhausted.add(run_id)
                    outbox.wake.set()

    def _steal(self) -> None:
        """Ask leases back for idle workers, once nothing queued can be granted to them."""
        seats = self._seats()
        if len(seats) < 2 or not any(seat.idle_slots for seat in seats):
            return
        tasks: dict[int, tuple[str, int]] = {}

        def waiting(worker_id: str) -> list[int]:
            worker = self._state.workers[worker_id]
            revoked = self._sessions[worker_id].revoked
            fences = sorted(fence for leases in worker.leases.values() for fence in leases)
            for run_id, leases in worker.leases.items():
                tasks.update((fence, (run_id, task)) for fence, task in leases.items())
            return [fence for fence in fences[worker.slots :] if fence not in revoked]

        def is_fit(fence: int, worker_id: str) -> bool:
            run_id, task = tasks[fence]
            run = self._state.runs[run_id]
            return not run.is_cancelling and fits(self._state.workers[worker_id], run.template_of(task))

        for worker_id, fences in revocations(seats, waiting, is_fit).items():
            session = self._sessions[worker_id]
            session.revoked.update(fences)
            _outbox(session).revoked.extend(fences)
            _outbox(session).wake.set()

    # -- liveness

    async def reap(self) -> None:
        """Expire workers that fell silent, for ever.

        When this loop itself was held up (a paused machine), what workers said meanwhile has not
        been read yet: the time it overslept is nobody's silence.
        """
        period = self._rules.heartbeat_seconds
        last = self._clock.monotonic()
        while True:
            await self._clock.sleep(period)
            now = self._clock.monotonic()
            overslept = now - last - period
            last = now
            if overslept > period or self.writer.is_stalled:
                for session in self._sessions.values():
                    session.heard_at = min(now, session.heard_at + max(overslept, 0.0) + period)
            self._expire(now)
            self._tell_exhausted(tuple(self._sessions))

    def _expire(self, now: float) -> None:
        if self.writer.is_stalled:
            return
        silent = tuple(
            (session.worker_id, session.incarnation, now - session.heard_at)
            for session in self._sessions.values()
            if now - session.heard_at >= self._rules.lease_seconds
        )
        if silent:
            self.writer.post(ExpireWorkers(silent))


_FEW_LEASES = 2
"""A worker with more leases a slot than this does not wait for a successor."""


def _outbox(session: Session) -> "Outbox":
    if session.stream is None:
        raise RuntimeError(f"worker {session.worker_id!r} is not attached")
    return session.stream.outbox


def _as_rejection(error: Exception) -> Rejection:
    """What ends a stream whose message was refused: a fault of the message, or of the whole session."""
    match error:
        case NotFound() | Conflict() | NotPossible():
            return StaleSession(error.message)
        case Rejection():
            return error
        case _:
            return Rejection("the coordinator failed on this message; its log says why")


def _state_name(worker: Worker) -> str:
    name = common_pb2.WorkerState.Name(worker.state)
    return name.removeprefix("WORKER_STATE_").lower()


_TELL: dict[str, Callable[[SessionHub, events_pb2.Event, Command], None]] = {
    "leases_granted": SessionHub._granted,
    "attempts_ended": SessionHub._ended,
    "leases_released": SessionHub._released,
    "results_refused": SessionHub._refused,
    "run_cancel_requested": SessionHub._cancelling,
    "run_finished": SessionHub._run_ended,
    "worker_drain_requested": SessionHub._draining,
    "worker_released": SessionHub._working,
    "worker_registered": SessionHub._registered,
    "worker_lost": SessionHub._lost,
    "worker_left": SessionHub._left,
}
"""What a durable event means to workers, by its kind; the others mean nothing to them."""
