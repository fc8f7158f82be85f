"""What holds of every state that events have led to, by name. Checked in the teardown of tests.

`dtf bisect` finds the first commit after which one of them no longer holds. WISHES are for it alone:
they hold of a good day, not of every log.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from dtf.api.v1 import common_pb2
from dtf.core.run.state import VERDICTS, Run, State

_QUEUED = common_pb2.TASK_STATE_QUEUED
_LEASED = common_pb2.TASK_STATE_LEASED
_FINISHED = common_pb2.TASK_STATE_FINISHED
_CANCELLED = common_pb2.TASK_STATE_CANCELLED


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that holds of every state, or is wished to."""

    name: str
    description: str
    find: Callable[[State], Iterable[str]]
    """What does not hold of a state, in words; nothing: it holds."""


def check(state: State) -> list[str]:
    """What does not hold, in words; empty: everything does."""
    return [fault for invariant in INVARIANTS.values() for fault in invariant.find(state)]


def _leases(state: State) -> dict[str, list[int]]:
    """Run → task of every lease held."""
    leases: dict[str, list[int]] = {}
    for worker in state.workers.values():
        for run_id, held in worker.leases.items():
            leases.setdefault(run_id, []).extend(held.values())
    return leases


def _check_fences(state: State) -> Iterator[str]:
    fences = [fence for worker in state.workers.values() for held in worker.leases.values() for fence in held]
    if len(fences) != len(set(fences)):
        yield "a fence is held twice"
    if fences and max(fences) >= state.next_fence:
        yield f"fence {max(fences)} is held, but the next is {state.next_fence}"


def _check_workers(state: State) -> Iterator[str]:
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


def _check_totals(state: State) -> Iterator[str]:
    for name in ("queued_count", "leased_count"):
        total = sum(getattr(run, name) for run in state.runs.values())
        if getattr(state, name) != total:
            yield f"{name} is {getattr(state, name)}, but the runs have {total}"
    active = {run.run_id for run in state.runs.values() if not run.is_terminal}
    if set(state.active_runs) != active:
        yield f"active_runs holds {sorted(state.active_runs)}, not {sorted(active)}"


def _check_leases(state: State) -> Iterator[str]:
    leases = _leases(state)
    unknown = set(leases) - set(state.runs)
    if unknown:
        yield f"leases of unknown runs {sorted(unknown)}"
    for run in state.runs.values():
        leased = leases.get(run.run_id, [])
        if len(leased) != len(set(leased)):
            yield f"run {run.run_id}: a task has two leases"
        if set(leased) != _in_state(run, _LEASED):
            yield f"run {run.run_id}: the leases and the tasks in state LEASED differ"


def _check_queues(run: Run) -> Iterator[str]:
    queued = [task for queues in run.queues.values() for queue in queues.values() for task in queue.tasks()]
    if len(queued) != len(set(queued)):
        yield "a task is queued twice"
    if set(queued) != _in_state(run, _QUEUED):
        yield "the queues and the tasks in state QUEUED differ"


def _check_counts(run: Run) -> Iterator[str]:
    counts = Counter(run.task_states)
    for name, expected in (
        ("queued_count", counts[_QUEUED]),
        ("leased_count", counts[_LEASED]),
        ("finished_count", counts[_FINISHED] + counts[_CANCELLED]),
    ):
        if getattr(run, name) != expected:
            yield f"{name} is {getattr(run, name)}, but {expected} tasks are"


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


def _check_state(run: Run) -> Iterator[str]:
    counts = Counter(run.task_states)
    if run.is_terminal and (counts[_QUEUED] or counts[_LEASED]):
        yield "it has ended, and tasks still wait or run"
    if run.state == common_pb2.RUN_STATE_FINISHED and counts[_CANCELLED]:
        yield "it is finished, and tasks are cancelled"
    is_over = run.is_sealed and run.finished_count == run.task_count
    if run.state == common_pb2.RUN_STATE_ACTIVE and is_over:
        yield "it is sealed and every task has ended, and it has not"
    if run.is_cancelling and (counts[_QUEUED] or not counts[_LEASED]):
        yield "it is being cancelled, and tasks wait or none runs"


def _of_each_run(find: Callable[[Run], Iterator[str]], state: State) -> Iterator[str]:
    for run in state.runs.values():
        yield from (f"run {run.run_id}: {fault}" for fault in find(run))


def _failed_cases(state: State) -> Iterator[str]:
    for run in state.runs.values():
        failed = run.counts[common_pb2.VERDICT_FAILED] + run.counts[common_pb2.VERDICT_ERROR]
        if failed:
            yield f"run {run.run_id}: {failed} cases failed or could not be judged"


def _infrastructure_failures(state: State) -> Iterator[str]:
    for run in state.runs.values():
        if run.infrastructure_failures:
            yield f"run {run.run_id}: {run.infrastructure_failures} attempts were lost or crashed"


def _waiting_templates(state: State) -> Iterator[str]:
    for run in state.active_runs.values():
        for template in run.templates:
            if template.is_waiting:
                yield f"run {run.run_id}: template {template.index} {template.waiting_reason}"


def _workers_in(wrong: int, word: str, state: State) -> Iterator[str]:
    for worker in state.workers.values():
        if worker.state == wrong:
            yield f"worker {worker.worker_id} is {word}: {worker.reason or 'no reason given'}"


def _named(*invariants: Invariant) -> dict[str, Invariant]:
    return {invariant.name: invariant for invariant in invariants}


INVARIANTS = _named(
    Invariant("fences", "no fence is held twice, and each is below the next to be given", _check_fences),
    Invariant(
        "worker-leases", "workers count their leases right; only working ones hold any", _check_workers
    ),
    Invariant(
        "totals", "the state's totals are the sums over its runs; active runs are listed", _check_totals
    ),
    Invariant("leases", "a task in state LEASED has one lease, and no other task has any", _check_leases),
    Invariant(
        "queues",
        "a task in state QUEUED is in one queue once, and no other is",
        partial(_of_each_run, _check_queues),
    ),
    Invariant("counts", "each run counts its tasks by state right", partial(_of_each_run, _check_counts)),
    Invariant(
        "columns", "columns have an entry for each task or case", partial(_of_each_run, _check_columns)
    ),
    Invariant(
        "verdicts",
        "verdicts are counted right; finished tasks have them all",
        partial(_of_each_run, _check_cases),
    ),
    Invariant(
        "run-states",
        "a run ends when it is sealed and every task has, and not before",
        partial(_of_each_run, _check_state),
    ),
)
WISHES = _named(
    Invariant("no-failed-case", "no case failed or could not be judged", _failed_cases),
    Invariant("no-lost-attempt", "no attempt was lost or crashed", _infrastructure_failures),
    Invariant("no-waiting-task", "some worker can run every queued task", _waiting_templates),
    Invariant(
        "no-lost-worker",
        "no worker is lost",
        partial(_workers_in, common_pb2.WORKER_STATE_LOST, "lost"),
    ),
    Invariant(
        "no-quarantined-worker",
        "no worker is quarantined",
        partial(_workers_in, common_pb2.WORKER_STATE_QUARANTINED, "quarantined"),
    ),
)
