"""What workers say becomes commands; what is durable becomes what they hear.

Liveness is kept here, by the monotonic clock, and outside of the hashed state: every message is a
heartbeat, a new reign gives every present worker one fresh term, and expiry is a command that
carries how long each was silent.
"""

import logging
from collections.abc import Callable, Sequence

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.coordinator.announcer import Announcer
from dtf.coordinator.commits import Outcome, PendingCommit, Step
from dtf.coordinator.dispatcher import Dispatcher
from dtf.coordinator.session import Session, Stream
from dtf.coordinator.sessions import Sessions
from dtf.coordinator.writer import Writer
from dtf.core.run.commands import (
    Command,
    Conflict,
    DrainWorker,
    ExpireWorkers,
    InvalidRequest,
    NotFound,
    NotPossible,
    ReconcileLeases,
    Rejection,
    ReportResults,
)
from dtf.rpc.errors import SessionReplaced, StaleSession

log = logging.getLogger(__name__)

_NOT_TOLD = "the coordinator failed while it told workers what they lack; its log says why. Attach again"

TelemetrySink = Callable[[Session, worker_service_pb2.Telemetry], None]


class SessionHub:
    """Between the streams of workers and the writer."""

    def __init__(self, sessions: Sessions, telemetry: TelemetrySink) -> None:
        self._sessions = sessions
        self._telemetry = telemetry
        self._announcer = Announcer(sessions)
        self._dispatcher = Dispatcher(sessions)
        self._writer: Writer | None = None
        self.unsettled_bytes = 0
        """Of reports that are not durable yet, of all workers."""

    def bind(self, writer: Writer) -> None:
        """Name the writer that decides; once, before anything is received."""
        self._writer = writer

    @property
    def writer(self) -> Writer:
        """The writer that decides."""
        if self._writer is None:
            raise RuntimeError("the session hub has no writer yet")
        return self._writer

    # -- streams

    def attach(self, handle: worker_service_pb2.SessionHandle) -> tuple[Session, Stream]:
        """Give a session its stream, in the place of the one before. Raises Rejection."""
        session = self._sessions.of_handle(handle)
        if session.stream is not None:
            session.stream.end(
                SessionReplaced(f"a newer stream of worker {session.worker_id!r} took this one's place")
            )
        stream = session.stream = Stream(session.worker_id)
        session.heard_at = self._sessions.clock.monotonic()
        session.credits, session.window = 0, len(handle.held_fences)
        session.told_heartbeat_seconds = 0.0
        self._sessions.weigh(session)
        self._pace(session, stream)
        session.revoked.clear()
        if session.posted_sequence is None and handle.first_sequence:
            session.posted_sequence = handle.first_sequence - 1
        stream.outbox.acknowledged_sequence = session.acknowledged_sequence
        stream.outbox.is_draining = self._sessions.worker(session).state == common_pb2.WORKER_STATE_DRAINING
        held = tuple(handle.held_fences)
        self.writer.post(
            ReconcileLeases(session.worker_id, session.incarnation, held),
            lambda outcome: self._reconciled(session, stream, held, outcome),
        )
        stream.outbox.known_runs.update(handle.known_runs)
        return session, stream

    def detach(self, session: Session, stream: Stream) -> None:
        """Forget a stream that ended; the session lives on until it expires."""
        stream.end()
        if session.stream is stream:
            session.stream = None
            session.heard_at = self._sessions.clock.monotonic()  # its time to come back begins now
            self._sessions.weigh(session)

    def _reconciled(self, session: Session, stream: Stream, held: Sequence[int], outcome: Outcome) -> None:
        """Send again what the worker lacks, cancel what it should not have, and begin to serve it."""
        if session.stream is not stream or stream.is_over:
            return
        if outcome.error is not None:
            stream.end(_as_rejection(outcome.error))
            return
        try:
            self._bring_up_to_date(session, stream, held)
        except Exception:
            stream.end(Rejection(_NOT_TOLD))  # a stream that is attached and not served would wait for ever
            raise
        self._announcer.tell_exhausted([session.worker_id])
        self.writer.wake()

    def _bring_up_to_date(self, session: Session, stream: Stream, held: Sequence[int]) -> None:
        worker = self._sessions.worker(session)
        has = set(held)
        owned = {fence for leases in worker.leases.values() for fence in leases}
        stream.outbox.cancelled.extend(fence for fence in held if fence not in owned)
        for run_id, leases in worker.leases.items():
            untold = [
                (fence, task)
                for fence, task in leases.items()
                if fence not in has and fence < self._announcer.durable_fence
            ]
            stream.outbox.leases.add(run_id, [fence for fence, _ in untold], [task for _, task in untold])
            if self._sessions.state.runs[run_id].is_cancelling:
                stream.outbox.cancelled.extend(leases)
        stream.outbox.ended.update(run_id for run_id in stream.outbox.known_runs if self._is_over(run_id))
        stream.is_reconciled = True
        self._sessions.weigh(session)
        stream.outbox.wake.set()

    def _is_over(self, run_id: str) -> bool:
        """Whether a run has ended durably, or is gone from the state altogether."""
        run = self._sessions.state.runs.get(run_id)
        return run is None or (run.is_terminal and run.last_sequence <= self.writer.durable_sequence)

    # -- what workers say

    def receive(self, session: Session, stream: Stream, message: worker_service_pb2.AttachRequest) -> None:
        """Take in one message. Raises InvalidRequest; what the core refuses ends the stream later."""
        session.heard_at = self._sessions.clock.monotonic()
        self._pace(session, stream)
        before = self._sessions.credits_of(session)
        session.credits = min(message.credits, self._sessions.rules.max_credits)
        held = len(message.session.held_fences) if message.HasField("session") else 0
        session.window = max(session.window, session.credits + held)
        self._sessions.weigh(session)
        if message.HasField("telemetry"):
            self._telemetry(session, message.telemetry)
        if message.state == common_pb2.WORKER_STATE_DRAINING:
            self._drain(session)
        if message.results or message.ends or message.released_fences:
            self._report(session, stream, message)
        elif message.sequence and self._is_next(session, message.sequence):
            self._acknowledge(session, message.sequence)
        if self._sessions.credits_of(session) > before:
            self.writer.wake()

    def _pace(self, session: Session, stream: Stream) -> None:
        """Tell a worker that was heard how often to be, if that is not what it was told."""
        interval = self._sessions.heartbeat_seconds
        told = session.told_heartbeat_seconds
        session.tolerated_heartbeat_seconds = max(told, interval)
        if told != interval:
            session.told_heartbeat_seconds = stream.outbox.heartbeat_seconds = interval
            if stream.is_reconciled:
                stream.outbox.wake.set()

    def _report(self, session: Session, stream: Stream, message: worker_service_pb2.AttachRequest) -> None:
        sequence = message.sequence
        if not sequence:
            raise InvalidRequest(
                "a message with results, ends or releases needs a sequence of 1 or more; it has 0"
            )
        if not self._is_next(session, sequence):
            return
        stream.unsettled += 1
        size = message.ByteSize()
        self.unsettled_bytes += size
        command = ReportResults(
            session.worker_id,
            session.incarnation,
            message.results,
            message.ends,
            tuple(message.released_fences),
        )
        self.writer.post(
            command,
            lambda outcome: self._reported(session, stream, sequence, size, outcome),
            weight=size,
        )

    @staticmethod
    def _is_next(session: Session, sequence: int) -> bool:
        """Whether this is the next message; False for one seen before. Raises InvalidRequest on a gap.

        The first message of a reign has the number that the worker said when it attached: what came
        before was acknowledged by the reign before. A worker that said none may begin with any.
        """
        posted = session.posted_sequence
        if posted is not None and sequence <= posted:
            return False
        if posted is not None and sequence != posted + 1:
            raise InvalidRequest(f"message {sequence} came after {posted}; expected {posted + 1}")
        session.posted_sequence = sequence
        return True

    def _reported(self, session: Session, stream: Stream, sequence: int, size: int, outcome: Outcome) -> None:
        self.unsettled_bytes -= size
        stream.unsettled -= 1
        stream.settled.set()
        if stream.has_failed:
            return
        if outcome.error is None:
            self._acknowledge(session, sequence)
            return
        stream.has_failed = True
        session.posted_sequence = sequence - 1
        if session.stream is not None and session.stream is not stream:
            # It said the same again meanwhile, and was passed over: it has to say it once more.
            session.stream.has_failed = True
            session.stream.end(_as_rejection(outcome.error))
        log.warning(
            "a worker's report was refused",
            extra={
                "worker": session.worker_id,
                "incarnation": session.incarnation,
                "cause": str(outcome.error),
            },
        )
        stream.end(_as_rejection(outcome.error))

    @staticmethod
    def _acknowledge(session: Session, sequence: int) -> None:
        session.acknowledged_sequence = max(session.acknowledged_sequence, sequence)
        if session.stream is not None:
            session.stream.outbox.acknowledge(session.acknowledged_sequence)

    def _drain(self, session: Session) -> None:
        if not session.is_drain_posted and self._sessions.worker(session).takes_work:
            session.is_drain_posted = True
            self.writer.post(DrainWorker(session.worker_id, "worker", "the worker was asked to stop"))

    # -- what the writer asks and tells

    def follow_up(self) -> Command | None:
        """Grants for the credits at hand, decided with every commit."""
        return self._dispatcher.grant()

    def decided(self, step: Step) -> None:
        """Grants were decided."""
        if self._dispatcher.granted(step):
            self.writer.wake()

    def idle(self) -> None:
        """Nothing more can be granted: what waits elsewhere may go to whoever is idle, newcomers too."""
        self._dispatcher.steal()

    def durable(self, commit: PendingCommit) -> None:
        """A commit was acknowledged."""
        try:
            self._announcer.announce(commit)
        except Exception:
            # Some worker waits for a word that will not come. Attached anew, each is told all that it lacks.
            self._announcer.note_durable(commit)
            self._sessions.end_streams(Rejection(_NOT_TOLD))
            raise
        if not self.writer.in_flight_count:
            self._dispatcher.steal()

    # -- liveness

    async def reap(self) -> None:
        """Expire workers that fell silent, for ever.

        When this loop itself was held up (a paused machine), or the log failed, what workers said
        meanwhile may not have been read yet: that time is nobody's silence.
        """
        clock = self._sessions.clock
        last = clock.monotonic()
        while True:
            period = self._sessions.rules.heartbeats.review_period(self._sessions.heartbeat_seconds)
            await clock.sleep(period)
            now = clock.monotonic()
            overslept = now - last - period
            last = now
            if overslept > period or self.writer.is_stalled:
                for session in self._sessions:
                    session.heard_at = min(now, session.heard_at + max(overslept, 0.0) + period)
            if not self.writer.is_stalled:
                self._expire(now)
                self._announcer.tell_exhausted([session.worker_id for session in self._sessions])
                self.writer.wake()

    def _expire(self, now: float) -> None:
        silent = tuple(
            (session.worker_id, session.incarnation, now - session.heard_at)
            for session in self._sessions
            if now - session.heard_at >= self._sessions.tolerance_of(session)
        )
        if silent:
            self.writer.post(ExpireWorkers(silent))


def _as_rejection(error: Exception) -> Rejection:
    """What ends a stream whose message was refused: a fault of the message, or of the whole session."""
    match error:
        case NotFound() | Conflict() | NotPossible():
            return StaleSession(error.message)
        case Rejection():
            return error
        case _:
            return Rejection("the coordinator failed on this message; its log says why")
