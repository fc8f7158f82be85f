"""Folds of the events about workers. Leases end by events of their own (AttemptsEnded)."""

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.join_token import JoinToken
from dtf.core.fleet.pool_wish import PoolEvent, fold_wish
from dtf.core.fleet.worker import CompletedFences, Worker
from dtf.core.run.state import State


def registered(state: State, said: events_pb2.WorkerRegistered, now_ns: int, _sequence: int) -> None:
    """A session begins; whatever the worker was before, it now takes work."""
    worker = state.workers.get(said.worker_id)
    if worker is None:
        worker = state.workers[said.worker_id] = Worker(said.worker_id)
    worker.incarnation = said.incarnation
    worker.state = common_pb2.WORKER_STATE_ACTIVE
    worker.pool = said.pool
    worker.labels = dict(said.labels)
    worker.cpus = said.resources.cpus
    worker.memory_bytes = said.resources.memory_bytes
    worker.gpus = said.resources.gpus
    worker.slots = said.slots
    worker.host = said.host
    worker.process_id = said.process_id
    worker.version = said.version
    worker.launch_id = said.launch_id
    worker.request_id = said.request_id
    worker.join_token_id = said.join_token_id
    worker.reason = ""
    worker.quarantine = ""
    worker.registered_at_ns = now_ns
    worker.gone_at_ns = 0
    worker.completed = CompletedFences()
    worker.completed_count = 0
    if said.request_id:
        state.session_requests[said.request_id] = (said.worker_id, said.incarnation)
        state.hash_cache.note_sessions((), (said.request_id,))
    token = state.tokens.get(said.join_token_id)
    if token is not None:
        token.use_count += 1
        token.last_worker_id = said.worker_id
        state.hash_cache.note_tokens((token.token_id,))


def token_issued(state: State, said: events_pb2.TokenIssued, now_ns: int, _sequence: int) -> None:
    """Workers may join with it; others are forgotten."""
    state.cluster_id = state.cluster_id or said.cluster_id
    state.tokens[said.token_id] = JoinToken.of(said, now_ns)
    for token_id in said.forgotten_token_ids:
        state.tokens.pop(token_id, None)
    state.hash_cache.note_tokens((said.token_id, *said.forgotten_token_ids))


def token_revoked(state: State, said: events_pb2.TokenRevoked, now_ns: int, _sequence: int) -> None:
    """It admits nobody any more."""
    token = state.tokens.get(said.token_id)
    if token is not None:
        token.revoked_at_ns = now_ns
        token.revoked_by = said.revoked_by
        state.hash_cache.note_tokens((said.token_id,))


def drain_requested(
    state: State, said: events_pb2.WorkerDrainRequested, _now_ns: int, _sequence: int
) -> None:
    """It takes nothing new."""
    _become(state, said.worker_id, common_pb2.WORKER_STATE_DRAINING, said.reason)


def quarantined(state: State, said: events_pb2.WorkerQuarantined, _now_ns: int, _sequence: int) -> None:
    """It is trusted with nothing."""
    _become(state, said.worker_id, common_pb2.WORKER_STATE_QUARANTINED, said.reason)


def released(state: State, said: events_pb2.WorkerReleased, _now_ns: int, _sequence: int) -> None:
    """It works again."""
    _become(state, said.worker_id, common_pb2.WORKER_STATE_ACTIVE, "")


def lost(state: State, said: events_pb2.WorkerLost, now_ns: int, _sequence: int) -> None:
    """Its session is over, without its consent."""
    _become(state, said.worker_id, common_pb2.WORKER_STATE_LOST, said.reason, gone_at_ns=now_ns)


def left(state: State, said: events_pb2.WorkerLeft, now_ns: int, _sequence: int) -> None:
    """Its session is over."""
    _become(state, said.worker_id, common_pb2.WORKER_STATE_LEFT, said.reason, gone_at_ns=now_ns)


def _become(
    state: State,
    worker_id: str,
    new: "common_pb2.WorkerState.ValueType",
    reason: str,
    *,
    gone_at_ns: int = 0,
) -> None:
    worker = state.workers.get(worker_id)
    if worker is not None:
        if gone_at_ns:
            worker.quarantine = worker.distrust
        worker.state = new
        worker.reason = reason
        worker.gone_at_ns = gone_at_ns
        if gone_at_ns:
            # Its session hears nothing more: what it repeats is refused before it is decided.
            worker.completed = CompletedFences(generation=worker.completed.generation + 1)


def forgotten(state: State, said: events_pb2.WorkersForgotten, _now_ns: int, _sequence: int) -> None:
    """Workers long gone leave the state, the keys of their sessions too; their incarnations do not come again."""
    gone = {worker_id for worker_id in said.worker_ids if state.workers.pop(worker_id, None) is not None}
    their_requests = [key for key, session in state.session_requests.items() if session[0] in gone]
    for request_id in (*their_requests, *said.request_ids):
        state.session_requests.pop(request_id, None)
    state.hash_cache.note_sessions(gone, (*their_requests, *said.request_ids))
    state.incarnation_floor = max(state.incarnation_floor, said.incarnation_floor)


def pool_wished(state: State, said: PoolEvent, now_ns: int, _sequence: int) -> None:
    """An operator wished something of a pool."""
    fold_wish(state.pools, said, now_ns)
