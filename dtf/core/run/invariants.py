"""What holds of every state that events have led to. Checked in the teardown of tests."""

from collections import Counter
from collections.abc import Iterator

from dtf.api.v1 import common_pb2
from dtf.core.run.state import VERDICTS, Run, State

_QUEUED = common_pb2.TASK_STATE_QUEUED
_LEASED = common_pb2.TASK_STATE_LEASED
_FINISHED = common_pb2.TASK_STATE_FINISHED
_CANCELLED = common_pb2.TASK_STATE_CANCELLED


def check(state: State) -> list[str]:
    """What does not hold, in words; empty: everything does."""
    leases = _leases(state)
    faults = list(_check_fleet(state))
    for run in state.runs.values():
        faults.extend(f"run {run.run_id}: {fault}" for fault in _check_run(run, leases.get(run.run_id, [])))
    unknown = set(leases) - set(state.runs)
    if unknown:
        faults.append(f"leases of unknown runs {sorted(unknown)}")
    active = {run.run_id for run in state.runs.values() if not run.is_terminal}
    if set(state.active_runs) != active:
        faults.append(f"active_runs holds {sorted(state.active_runs)}, not {sorted(active)}")
    return faults


def _leases(state: State) -> dict[str, list[int]]:
    """Run → task of every lease held."""
    leases: dict[str, list[int]] = {}
    for worker in state.workers.values():
        for run_id, held in worker.leases.items():
            leases.setdefault(run_id, []).extend(held.values())
    return leases


def _check_fleet(state: State) -> Iterator[str]:
    fences = [fence for worker in state.workers.values() for held in worker.leases.values() for fence in held]
    if len(fences) != len(set(fences)):
        yield "a fence is held twice"
    if fences and max(fences) >= state.next_fence:
        yield f"fence {max(fences)} is held, but the next is {state.next_fence}"
    for worker in state.workers.values():
        held = sum(map(len, worker.leases.values()))
        if held != worker.lease_count:
            yield f"worker {worker.worker_id} holds {held} leases and counts {worker.lease_count}"
        if held and worker.state not in (
            common_pb2.WORKER_STATE_ACTIVE,
            common_pb2.WORKER_STATE_DRAINING,
        ):
            yield f"worker {worker.worker_id} holds {held} leases in state {worker.state}"
        if any(not leases for leases in worker.leases.values()):
            yield f"worker {worker.worker_id} keeps an empty entry for a run"
    for name in ("queued_count", "leased_count"):
        total = sum(getattr(run, name) for run in state.runs.values())
        if getattr(state, name) != total:
            yield f"{name} is {getattr(state, name)}, but the runs have {total}"


def _check_run(run: Run, leased: list[int]) -> Iterator[str]:
    queued = [task for queues in run.queues.values() for queue in queues.values() for task in queue.tasks()]
    if len(leased) != len(set(leased)):
        yield "a task has two leases"
    if len(queued) != len(set(queued)):
        yield "a task is queued twice"
    if set(queued) != _in_state(run, _QUEUED):
        yield "the queues and the tasks in state QUEUED differ"
    if set(leased) != _in_state(run, _LEASED):
        yield "the leases and the tasks in state LEASED differ"
    counts = Counter(run.task_states)
    for name, expected in (
        ("queued_count", counts[_QUEUED]),
        ("leased_count", counts[_LEASED]),
        ("finished_count", counts[_FINISHED] + counts[_CANCELLED]),
    ):
        if getattr(run, name) != expected:
            yield f"{name} is {getattr(run, name)}, but {expected} tasks are"
    yield from _check_columns(run)
    yield from _check_cases(run)
    yield from _check_state(run, counts)


def _in_state(run: Run, state: int) -> set[int]:
    return {task for task, value in enumerate(run.task_states) if value == state}


def _check_columns(run: Run) -> Iterator[str]:
    for name in ("names", "attempts", "task_templates", "payloads", "expected_seconds", "priorities"):
        column = getattr(run, name)
        if column is not None and len(column) != run.task_count:
            yield f"{name} has {len(column)} entries for {run.task_count} tasks"
    for name in ("case_names", "case_positions"):
        column = getattr(run, name)
        if column is not None and len(column) != run.case_count:
            yield f"{name} has {len(column)} entries for {run.case_count} cases"
    offsets = run.case_offsets
    if offsets is not None and (len(offsets) != run.task_count + 1 or offsets[-1] != run.case_count):
        yield "case_offsets does not span the cases"


def _check_cases(run: Run) -> Iterator[str]:
    verdicts = Counter(run.verdicts)
    for verdict in range(1, VERDICTS):
        if run.counts[verdict] != verdicts[verdict]:
            yield f"counts[{verdict}] is {run.counts[verdict]}, but {verdicts[verdict]} cases have it"
    for task in range(run.task_count):
        unjudged = len(run.unjudged_cases(task))
        if run.task_states[task] == _FINISHED and unjudged:
            yield f"task {task} is finished with {unjudged} cases unjudged"
        if run.task_states[task] in (_QUEUED, _LEASED) and not unjudged:
            yield f"task {task} waits or runs with every case judged"
    if any(run.task_states[task] != _LEASED for task in run.retry_pending):
        yield "a task that is not leased has reports of its present attempt"


def _check_state(run: Run, counts: "Counter[int]") -> Iterator[str]:
    if run.is_terminal and (counts[_QUEUED] or counts[_LEASED]):
        yield "it has ended, and tasks still wait or run"
    if run.state == common_pb2.RUN_STATE_FINISHED and counts[_CANCELLED]:
        yield "it is finished, and tasks are cancelled"
    is_over = run.is_sealed and run.finished_count == run.task_count
    if run.state == common_pb2.RUN_STATE_ACTIVE and is_over:
        yield "it is sealed and every task has ended, and it has not"
    if run.is_cancelling and (counts[_QUEUED] or not counts[_LEASED]):
        yield "it is being cancelled, and tasks wait or none runs"
