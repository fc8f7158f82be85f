"""`evolve` folds one event into the state. It holds no rules and never raises.

An event that names a run, task or worker that is not there changes nothing: what is not known
cannot be folded, and a reader must get past every event ever stored.
"""

from collections.abc import Callable, Iterable
from typing import Any, assert_never

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet import evolve as fleet
from dtf.core.run import evolve_attempts as attempts
from dtf.core.run import evolve_tasks as tasks
from dtf.core.run.outline import outline_of
from dtf.core.run.prepared import Accepted, Encoded, Granted, PreparedCommit, PreparedEvent, Submitted
from dtf.core.run.state import HashCache, Run, State

_Fold = Callable[[State, Any, int, int], None]
"""Of the state, what the event says, the time and the sequence of its commit."""


def evolve(state: State, event: events_pb2.Event, now_ns: int = 0, sequence: int = 0) -> None:
    """Fold `event`, part of the commit `sequence` made at `now_ns`, into `state`."""
    evolve_all(state, (event,), now_ns, sequence)


def evolve_all(state: State, events: Iterable[events_pb2.Event], now_ns: int, sequence: int) -> None:
    """Fold the events of the commit `sequence`, made at `now_ns`, into `state`."""
    if now_ns > state.now_ns:
        state.now_ns = now_ns
    if sequence > state.last_sequence:
        state.last_sequence = sequence
    cache = state.hash_cache
    for event in events:
        kind = event.WhichOneof("event")
        fold = _FOLDS.get(kind)  # type: ignore[arg-type]  # None, of an event not known, is in no dict
        if fold is None:
            continue
        said = getattr(event, kind)  # type: ignore[arg-type]  # a kind that has a fold is a name
        fold(state, said, now_ns, sequence)
        if cache.is_in_use:
            if kind in _ABOUT_RUNS:
                cache.changed_runs.add(said.run_id)
            if kind in _ABOUT_WORKERS:
                cache.changed_workers.add(said.worker_id)


def evolve_prepared(state: State, commits: Iterable[PreparedCommit], first_sequence: int) -> None:
    """Fold commits that were read beforehand, of consecutive sequences: evolve_all of each, and as exact."""
    cache, sequence = state.hash_cache, first_sequence - 1
    for commit in commits:
        sequence += 1
        now_ns = commit.now_ns
        if now_ns > state.now_ns:
            state.now_ns = now_ns
        if sequence > state.last_sequence:
            state.last_sequence = sequence
        for said in commit.events:
            fold = _PREPARED_FOLDS.get(type(said))
            if fold is None:
                evolve_all(state, (events_pb2.Event.FromString(said.data),), now_ns, sequence)  # type: ignore[union-attr]  # the one kind without a fold
                continue
            fold(state, said, now_ns, sequence)
            if cache.is_in_use:
                _note_prepared(cache, said)


def _note_prepared(cache: HashCache, said: PreparedEvent) -> None:
    match said:
        case Granted() | Accepted():
            cache.changed_runs.add(said.run_id)
            cache.changed_workers.add(said.worker_id)
        case Submitted():
            cache.changed_runs.add(said.run_id)
        case Encoded():
            pass  # evolve_all notes it
        case _:
            assert_never(said)


def _leader_elected(state: State, said: events_pb2.LeaderElected, _now_ns: int, _sequence: int) -> None:
    state.epoch = said.epoch
    state.leader = said.leader
    state.lease_seconds = said.lease_seconds
    if said.HasField("accepted_loss"):
        # A worker may hold a lease that the log lost: its fence must never be given out again.
        state.next_fence = max(state.next_fence, said.accepted_loss.next_fence)


def _run_created(state: State, said: events_pb2.RunCreated, now_ns: int, sequence: int) -> None:
    created = events_pb2.RunCreated()
    created.CopyFrom(said)
    run = Run.begun(created, now_ns, sequence)
    state.runs[run.run_id] = run
    state.active_runs[run.run_id] = run
    if created.request_id:
        state.run_requests[created.request_id] = run.run_id


def _submission_sealed(state: State, said: events_pb2.SubmissionSealed, _now_ns: int, _sequence: int) -> None:
    run = state.runs.get(said.run_id)
    if run is not None:
        run.is_sealed = True


def _placement_changed(state: State, said: events_pb2.PlacementChanged, now_ns: int, _sequence: int) -> None:
    run = state.runs.get(said.run_id)
    if run is None or said.template >= len(run.templates):
        return
    template = run.templates[said.template]
    if said.waiting and not template.is_waiting:
        template.waiting_since_ns = now_ns
    template.is_waiting = said.waiting
    template.waiting_reason = said.reason if said.waiting else ""


def _run_cancel_requested(
    state: State, said: events_pb2.RunCancelRequested, _now_ns: int, _sequence: int
) -> None:
    run = state.runs.get(said.run_id)
    if run is None or run.is_terminal:
        return
    run.state = common_pb2.RUN_STATE_CANCELLING
    run.cancel_requested_by = said.requested_by
    run.cancel_reason = said.reason
    run.task_states = run.task_states.translate(_QUEUED_TO_CANCELLED)
    run.finished_count += run.queued_count
    state.queued_count -= run.queued_count
    run.queued_count = 0
    run.queues.clear()
    state.hash_cache.touch_all(run.run_id)


_QUEUED_TO_CANCELLED = bytes(
    common_pb2.TASK_STATE_CANCELLED if value == common_pb2.TASK_STATE_QUEUED else value
    for value in range(256)
)


def _run_finished(state: State, said: events_pb2.RunFinished, now_ns: int, sequence: int) -> None:
    run = state.runs.get(said.run_id)
    if run is None:
        return
    run.state = said.state
    run.finished_at_ns = now_ns
    run.last_sequence = sequence
    state.active_runs.pop(said.run_id, None)


def _runs_retired(state: State, said: events_pb2.RunsRetired, _now_ns: int, _sequence: int) -> None:
    """Outlines take the place of runs, and the oldest outlines go."""
    for run_id in said.run_ids:
        run = state.runs.get(run_id)
        if run is None or not run.is_terminal:
            continue
        del state.runs[run_id]
        state.retired_runs[run_id] = outline_of(run)
        state.hash_cache.note_retired(run_id)
    for run_id in said.forgotten_run_ids:
        retired = state.retired_runs.pop(run_id, None)
        if retired is None:
            continue
        state.run_requests.pop(retired.request_id, None)
        state.hash_cache.note_retired(run_id)


_FOLDS: dict[str, _Fold] = {
    "leader_elected": _leader_elected,
    "run_created": _run_created,
    "tasks_submitted": tasks.submitted,
    "submission_sealed": _submission_sealed,
    "placement_changed": _placement_changed,
    "tasks_abandoned": tasks.abandoned,
    "leases_granted": attempts.granted,
    "results_accepted": attempts.accepted,
    "attempts_ended": attempts.ended,
    "leases_released": attempts.released,
    "run_cancel_requested": _run_cancel_requested,
    "run_finished": _run_finished,
    "worker_registered": fleet.registered,
    "token_issued": fleet.token_issued,
    "token_revoked": fleet.token_revoked,
    "worker_drain_requested": fleet.drain_requested,
    "worker_quarantined": fleet.quarantined,
    "worker_released": fleet.released,
    "worker_lost": fleet.lost,
    "worker_left": fleet.left,
    "runs_retired": _runs_retired,
    "workers_forgotten": fleet.forgotten,
    "pool_scaled": fleet.pool_wished,
    "pool_paused": fleet.pool_wished,
    "pool_resumed": fleet.pool_wished,
}
"""ResultsRefused is absent: it changes nothing."""

_PREPARED_FOLDS: dict[type, _Fold] = {
    Granted: attempts.granted,
    Accepted: attempts.accepted,
    Submitted: tasks.submitted,
}


def _kinds_with(field: str) -> frozenset[str]:
    """The folded events whose message has a field of this name."""
    messages = {entry.name: entry.message_type for entry in events_pb2.Event.DESCRIPTOR.fields}
    return frozenset(
        name
        for name, message in messages.items()
        if name in _FOLDS and message is not None and field in message.fields_by_name
    )


_ABOUT_RUNS = _kinds_with("run_id")
_ABOUT_WORKERS = _kinds_with("worker_id")
