"""The state as bytes, for snapshots: dtf.api.v1.SavedState, columns copied whole.

    decode_state(encode_state(state)) == state, and both have the same state_hash

A state that evolve led to has one encoding, on every machine. Whatever the bytes, decode_state
gives a state that hangs together (columns of one length, indexes within them) or raises
StateUndecodable; whether it is the right one is for the hash beside it to say.
"""

from google.protobuf.message import DecodeError

from dtf.api.v1 import run_service_pb2, state_pb2
from dtf.core.fleet.pool_wish import PoolWish, fold_wish, scaled_event
from dtf.core.run.saved_columns import StateUndecodable, demand
from dtf.core.run.saved_run import load_run, save_run
from dtf.core.run.saved_token import load_token, save_token
from dtf.core.run.saved_worker import load_worker, save_worker
from dtf.core.run.state import RetiredRun, State
from dtf.core.run.state_hash import SCHEMA_VERSION, forget_caches

__all__ = ["StateUndecodable", "decode_state", "encode_state"]


def encode_state(state: State) -> bytes:
    """The state's bytes; it is not changed, and needs to stand still only during the call."""
    saved = state_pb2.SavedState(
        schema_version=SCHEMA_VERSION,
        epoch=state.epoch,
        leader=state.leader,
        lease_seconds=state.lease_seconds,
        now_unix_nanos=state.now_ns,
        last_sequence=state.last_sequence,
        next_fence=state.next_fence,
        incarnation_floor=state.incarnation_floor,
        queued_count=state.queued_count,
        leased_count=state.leased_count,
    )
    saved.runs.extend(map(save_run, state.runs.values()))
    saved.retired_runs.extend(map(_save_retired, state.retired_runs.values()))
    for request_id, run_id in sorted(state.run_requests.items()):
        saved.run_requests.add(request_id=request_id, run_id=run_id)
    saved.workers.extend(map(save_worker, state.workers.values()))
    saved.cluster_id = state.cluster_id
    saved.tokens.extend(save_token(token, state.cluster_id) for token in state.tokens.values())
    for request_id, (worker_id, incarnation) in state.session_requests.items():
        saved.session_requests.add(request_id=request_id, worker_id=worker_id, incarnation=incarnation)
    saved.pools.extend(_save_pool(wish) for _, wish in sorted(state.pools.items()))
    return saved.SerializeToString(deterministic=True)


def decode_state(data: bytes) -> State:
    """The state that was encoded. Raises StateUndecodable, whatever the bytes."""
    try:
        saved = state_pb2.SavedState.FromString(data)
        demand(
            saved.schema_version == SCHEMA_VERSION,
            f"it is of schema version {saved.schema_version}, this dtf reads {SCHEMA_VERSION}",
        )
        return _load(saved)
    except StateUndecodable:
        raise
    except (DecodeError, ValueError, OverflowError, IndexError) as error:
        raise StateUndecodable(f"the saved state is damaged: {type(error).__name__}: {error}") from error


def _load(saved: state_pb2.SavedState) -> State:
    state = State(
        epoch=saved.epoch,
        leader=saved.leader,
        lease_seconds=saved.lease_seconds,
        now_ns=saved.now_unix_nanos,
        last_sequence=saved.last_sequence,
        next_fence=saved.next_fence,
        incarnation_floor=saved.incarnation_floor,
        queued_count=saved.queued_count,
        leased_count=saved.leased_count,
    )
    for run in map(load_run, saved.runs):
        demand(run.run_id not in state.runs, f"run {run.run_id!r} is there twice")
        state.runs[run.run_id] = run
    state.active_runs = {run_id: run for run_id, run in state.runs.items() if not run.is_terminal}
    for retired in map(_load_retired, saved.retired_runs):
        demand(retired.run_id not in state.runs, f"run {retired.run_id!r} is there and retired")
        state.retired_runs[retired.run_id] = retired
    for request in saved.run_requests:
        known = request.run_id in state.runs or request.run_id in state.retired_runs
        demand(known, f"a request created run {request.run_id!r}, which is not there")
        state.run_requests[request.request_id] = request.run_id
    for entry in saved.workers:
        worker = load_worker(entry, state.runs)
        demand(worker.worker_id not in state.workers, f"worker {worker.worker_id!r} is there twice")
        state.workers[worker.worker_id] = worker
    _load_sessions(state, saved)
    state.cluster_id = saved.cluster_id
    for token in map(load_token, saved.tokens):
        demand(token.token_id not in state.tokens, f"token {token.token_id!r} is there twice")
        state.tokens[token.token_id] = token
    for pool in map(_load_pool, saved.pools):
        demand(not pool.is_empty, f"nothing is wished of pool {pool.pool!r}")
        demand(pool.pool not in state.pools, f"pool {pool.pool!r} is there twice")
        state.pools[pool.pool] = pool
    _check_totals(state)
    forget_caches(state)
    return state


def _load_sessions(state: State, saved: state_pb2.SavedState) -> None:
    for request in saved.session_requests:
        known = request.worker_id in state.workers
        demand(known, f"a request opened a session of worker {request.worker_id!r}, which is not there")
        state.session_requests[request.request_id] = (request.worker_id, request.incarnation)


def _check_totals(state: State) -> None:
    queued = sum(run.queued_count for run in state.runs.values())
    leased = sum(run.leased_count for run in state.runs.values())
    held = sum(worker.lease_count for worker in state.workers.values())
    demand(queued == state.queued_count, f"{queued} tasks are queued, not {state.queued_count}")
    demand(leased == state.leased_count == held, f"{held} leases are held, not {state.leased_count}")


def _save_retired(retired: RetiredRun) -> state_pb2.SavedRetiredRun:
    return state_pb2.SavedRetiredRun(
        run=run_service_pb2.Run.FromString(retired.outline),
        request_id=retired.request_id,
        content_digest=retired.content_digest,
    )


def _load_retired(saved: state_pb2.SavedRetiredRun) -> RetiredRun:
    run = saved.run
    return RetiredRun(
        run_id=run.run_id,
        suite=run.suite,
        first_sequence=run.first_sequence,
        last_sequence=run.last_sequence,
        request_id=saved.request_id,
        content_digest=saved.content_digest,
        outline=run.SerializeToString(deterministic=True),
    )


def _save_pool(wish: PoolWish) -> state_pb2.SavedPool:
    return state_pb2.SavedPool(
        scaled=scaled_event(wish), is_paused=wish.is_paused, changed_unix_nanos=wish.changed_at_ns
    )


def _load_pool(saved: state_pb2.SavedPool) -> PoolWish:
    wishes = {saved.scaled.pool: PoolWish(saved.scaled.pool, is_paused=saved.is_paused)}
    fold_wish(wishes, saved.scaled, saved.changed_unix_nanos)
    return wishes.get(saved.scaled.pool) or PoolWish(saved.scaled.pool)
