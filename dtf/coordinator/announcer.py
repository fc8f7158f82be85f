"""What durable commits mean to workers: events in, words for their streams out."""

from collections.abc import Callable, Iterable, Sequence

from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import PendingCommit
from dtf.coordinator.session import Outbox, Session
from dtf.coordinator.sessions import Sessions
from dtf.core.run.commands import Command, ReconcileLeases, ReportResults
from dtf.core.run.queries import exhausted_runs
from dtf.rpc.errors import StaleSession

_FEW_LEASES = 2
"""A worker with more leases a slot than this does not wait for a successor."""


class Announcer:
    """Follows durable commits and fills the outboxes of attached workers."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.durable_fence = sessions.state.next_fence
        """Fences below this were granted durably."""

    def announce(self, commit: PendingCommit) -> None:
        """Tell workers what a durable commit means to them."""
        touched: set[str] = set()
        for step in commit.steps:
            if isinstance(step.command, ReportResults | ReconcileLeases):
                touched.add(step.command.worker_id)
            for event in step.events:
                kind = event.WhichOneof("event")
                tell = _TELL.get(kind or "")
                if tell is not None:
                    tell(self, event, step.command)
                if kind == "leases_granted":
                    touched.add(event.leases_granted.worker_id)
        self.tell_exhausted(touched)

    def note_durable(self, commit: PendingCommit) -> None:
        """Know the fences that a commit granted."""
        for event in commit.events:
            granted = event.leases_granted
            self.durable_fence = max(self.durable_fence, granted.first_fence + len(granted.tasks))

    def tell_exhausted(self, worker_ids: Iterable[str]) -> None:
        """Tell workers that hold little which of their runs they will get no more of now."""
        for worker_id in worker_ids:
            session = self._sessions.get(worker_id)
            if session is None or session.stream is None:
                continue
            worker = self._sessions.worker(session)
            if not 0 < worker.lease_count <= _FEW_LEASES * worker.slots:
                continue
            outbox = session.stream.outbox
            for run_id in exhausted_runs(self._sessions.state, worker, self._sessions.credits_of(session)):
                if run_id not in outbox.told_exhausted:
                    outbox.exhausted.add(run_id)
                    outbox.wake.set()

    def _outbox(self, worker_id: str) -> Outbox | None:
        session = self._sessions.get(worker_id)
        return session.stream.outbox if session is not None and session.stream is not None else None

    def _created(self, event: events_pb2.Event, _command: Command) -> None:
        """Idle workers hear of a pytest run at once: they collect while its client still does."""
        created = event.run_created
        if len(created.templates) != 1 or not created.templates[0].HasField("pytest"):
            return
        for session in self._sessions:
            worker = self._sessions.worker(session)
            if session.is_serving and worker.takes_work and not worker.lease_count:
                outbox_of(session).heralded.add(created.run_id)
                outbox_of(session).wake.set()

    def _granted(self, event: events_pb2.Event, _command: Command) -> None:
        granted = event.leases_granted
        self.durable_fence = max(self.durable_fence, granted.first_fence + len(granted.tasks))
        session = self._sessions.get(granted.worker_id)
        if session is None or session.incarnation != granted.incarnation or not session.is_serving:
            return  # what is not told now is sent when the worker attaches
        outbox = outbox_of(session)
        outbox.told_exhausted.discard(granted.run_id)
        first = granted.first_fence
        outbox.leases.add(granted.run_id, range(first, first + len(granted.tasks)), granted.tasks)
        outbox.wake.set()

    def _ended(self, event: events_pb2.Event, command: Command) -> None:
        self._take_back(event.attempts_ended.worker_id, event.attempts_ended.fences, command)

    def _released(self, event: events_pb2.Event, command: Command) -> None:
        self._take_back(event.leases_released.worker_id, event.leases_released.fences, command)

    def _take_back(self, worker_id: str, fences: Sequence[int], command: Command) -> None:
        """Cancel leases that are over, unless it was the worker itself that ended them."""
        session = self._sessions.get(worker_id)
        if session is not None:
            session.revoked.difference_update(fences)
        if not isinstance(command, ReportResults):
            self._cancel(worker_id, fences)

    def _cancel(self, worker_id: str, fences: Iterable[int]) -> None:
        outbox = self._outbox(worker_id)
        if outbox is not None:
            outbox.cancelled.extend(fences)
            outbox.wake.set()

    def _refused(self, event: events_pb2.Event, _command: Command) -> None:
        self._cancel(event.results_refused.worker_id, event.results_refused.fences)

    def _cancelling(self, event: events_pb2.Event, _command: Command) -> None:
        run_id = event.run_cancel_requested.run_id
        for session in self._sessions:
            self._cancel(session.worker_id, self._sessions.worker(session).leases.get(run_id, ()))

    def _run_ended(self, event: events_pb2.Event, _command: Command) -> None:
        for session in self._sessions:
            outbox = self._outbox(session.worker_id)
            if outbox is None:
                continue
            outbox.heralded.discard(event.run_finished.run_id)
            if event.run_finished.run_id in outbox.known_runs:
                outbox.ended.add(event.run_finished.run_id)
                outbox.wake.set()

    def _draining(self, event: events_pb2.Event, _command: Command) -> None:
        self._set_draining(event.worker_drain_requested.worker_id, True)

    def _working(self, event: events_pb2.Event, _command: Command) -> None:
        session = self._sessions.get(event.worker_released.worker_id)
        if session is not None:
            session.is_drain_posted = False
        self._set_draining(event.worker_released.worker_id, False)

    def _set_draining(self, worker_id: str, is_draining: bool) -> None:
        outbox = self._outbox(worker_id)
        if outbox is not None:
            outbox.is_draining = is_draining
            outbox.wake.set()

    def _registered(self, event: events_pb2.Event, _command: Command) -> None:
        said = event.worker_registered
        self._sessions.close(
            said.worker_id, StaleSession(f"worker {said.worker_id!r} opened session {said.incarnation}")
        )
        self._sessions.open(said.worker_id, said.incarnation)

    def _lost(self, event: events_pb2.Event, _command: Command) -> None:
        said = event.worker_lost
        self._sessions.close(
            said.worker_id,
            StaleSession(
                f"worker {said.worker_id!r} was silent for {said.silent_seconds:.1f} s and counts as lost; "
                "open a new session",
                worker_id=said.worker_id,
            ),
        )

    def _left(self, event: events_pb2.Event, _command: Command) -> None:
        self._sessions.close(event.worker_left.worker_id, None)


def outbox_of(session: Session) -> Outbox:
    """The outbox of an attached session."""
    if session.stream is None:
        raise RuntimeError(f"worker {session.worker_id!r} is not attached")
    return session.stream.outbox


_TELL: dict[str, Callable[[Announcer, events_pb2.Event, Command], None]] = {
    "run_created": Announcer._created,
    "leases_granted": Announcer._granted,
    "attempts_ended": Announcer._ended,
    "leases_released": Announcer._released,
    "results_refused": Announcer._refused,
    "run_cancel_requested": Announcer._cancelling,
    "run_finished": Announcer._run_ended,
    "worker_drain_requested": Announcer._draining,
    "worker_released": Announcer._working,
    "worker_registered": Announcer._registered,
    "worker_lost": Announcer._lost,
    "worker_left": Announcer._left,
}
"""What a durable event means to workers, by its kind; the others mean nothing to them."""
