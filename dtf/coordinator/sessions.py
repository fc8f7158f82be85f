"""The open sessions, by worker. Part of the state they stand for is in the log; who is heard from is not."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.coordinator.heartbeat_rule import HeartbeatRule
from dtf.coordinator.session import Session
from dtf.coordinator.session_secrets import SessionSecrets
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import Rejection
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.rpc.errors import StaleSession, Unauthenticated, UnknownSession


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How often workers are heard from, how much one may hold, and what proves a session."""

    heartbeats: HeartbeatRule
    max_credits: int
    secrets: SessionSecrets


class Sessions:
    """One session a present worker. A new reign opens them anew, each with one fresh term."""

    def __init__(self, state: State, clock: Clock, rules: SessionRules) -> None:
        self.state = state
        self.clock = clock
        self.rules = rules
        self._by_worker: dict[str, Session] = {}
        self._hungry: dict[str, Session] = {}
        self.heartbeat_seconds = rules.heartbeats.heartbeat_seconds
        """The interval for a fleet of the present size."""
        for worker in state.workers.values():
            if worker.is_present:
                self.open(worker.worker_id, worker.incarnation)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_worker.values()))

    def __len__(self) -> int:
        return len(self._by_worker)

    @property
    def hungry(self) -> Mapping[str, Session]:
        """Sessions that are served and said they can take leases, by worker; the one that waits longest first."""
        return self._hungry

    def weigh(self, session: Session) -> None:
        """Note whether a session is hungry; call it when its credits or its stream changed."""
        if session.is_serving and session.credits > 0:
            self._hungry.setdefault(session.worker_id, session)
        else:
            self._hungry.pop(session.worker_id, None)

    def get(self, worker_id: str) -> Session | None:
        """The open session of a worker, if any."""
        return self._by_worker.get(worker_id)

    def worker(self, session: Session) -> Worker:
        """What the log says of a session's worker."""
        return self.state.workers[session.worker_id]

    def open(self, worker_id: str, incarnation: int) -> None:
        """A worker registered."""
        self._hungry.pop(worker_id, None)
        self._by_worker[worker_id] = Session(worker_id, incarnation, self.clock.monotonic())
        self.heartbeat_seconds = self.rules.heartbeats.interval(len(self._by_worker))

    def close(self, worker_id: str, refusal: Rejection | None) -> None:
        """A session is over; its stream ends with the refusal, if it has one."""
        session = self._by_worker.pop(worker_id, None)
        self._hungry.pop(worker_id, None)
        self.heartbeat_seconds = self.rules.heartbeats.interval(len(self._by_worker))
        if session is not None and session.stream is not None:
            session.stream.end(refusal)

    def end_streams(self, refusal: Rejection) -> None:
        """End every stream; the sessions live on, for whoever leads next."""
        for session in self:
            if session.stream is not None:
                session.stream.end(refusal)

    def token_of(self, worker_id: str, incarnation: int) -> str:
        """The secret of a session."""
        return self.rules.secrets.of(worker_id, incarnation)

    def check_token(self, handle: worker_service_pb2.SessionHandle) -> None:
        """Raises Unauthenticated unless the handle carries its session's secret."""
        if not self.rules.secrets.is_right(handle.session_token, handle.worker_id, handle.incarnation):
            raise Unauthenticated("the session token does not belong to this worker and incarnation")

    def of_handle(self, handle: worker_service_pb2.SessionHandle) -> Session:
        """The open session a handle names. Raises Unauthenticated, UnknownSession, StaleSession."""
        self.check_token(handle)
        session = self._by_worker.get(handle.worker_id)
        if session is not None and session.incarnation == handle.incarnation:
            return session
        worker = self.state.workers.get(handle.worker_id)
        if worker is None or handle.incarnation > worker.incarnation:
            raise UnknownSession(
                f"no session {handle.incarnation} of worker {handle.worker_id!r} is known; open a new one",
                worker_id=handle.worker_id,
            )
        name = common_pb2.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_").lower()
        raise StaleSession(
            f"session {handle.incarnation} of worker {handle.worker_id!r} is over (the worker is now "
            f"{name}, incarnation {worker.incarnation}); open a new one",
            worker_id=handle.worker_id,
            incarnation=str(worker.incarnation),
        )

    def credits_of(self, session: Session) -> int:
        """Leases a session takes now: what it said, within the window it has."""
        window = min(session.window, self.rules.max_credits)
        return max(0, min(session.credits, window - self.worker(session).lease_count))

    def move_back(self, worker_ids: Iterable[str]) -> None:
        """Let other hungry sessions go before these."""
        for worker_id in worker_ids:
            session = self._hungry.pop(worker_id, None)
            if session is not None:
                self._hungry[worker_id] = session

    def tolerance_of(self, session: Session) -> float:
        """Silence after which a session expires."""
        rule = self.rules.heartbeats
        if session.stream is None:
            return rule.detached_lease(self.heartbeat_seconds)
        return rule.attached_lease(session.tolerated_heartbeat_seconds)

    def silent_seconds(self, worker_id: str) -> float:
        """Time since a worker was last heard from; 0 if it is not attached."""
        session = self._by_worker.get(worker_id)
        if session is None or session.stream is None:
            return 0.0
        return max(0.0, self.clock.monotonic() - session.heard_at)
