"""Folds of the events about leases and results: the hot path, so columns are walked once.

A column is read with `[:]`: it is a list then, at a third of what `list` of it costs.
"""

from array import array
from collections import Counter, deque
from collections.abc import Sequence
from itertools import repeat

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.evolve_tasks import dequeue, judge_rest, known_tasks, requeue
from dtf.core.run.prepared import Accepted, Granted
from dtf.core.run.state import Run, State, Template
from dtf.core.run.task_queue import as_ranges

_LEASED = common_pb2.TASK_STATE_LEASED
_FINISHED = common_pb2.TASK_STATE_FINISHED
_CANCELLED = common_pb2.TASK_STATE_CANCELLED
_PASSED = common_pb2.VERDICT_PASSED
_MOST_ATTEMPTS = 65_535
_OBSERVATIONS = 4096
_FEW = 8
"""Up to so many, a loop is quicker than what is built to spare it."""
_INFRASTRUCTURE = (common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_LOST)
_CHARGED = (*_INFRASTRUCTURE, common_pb2.OUTCOME_TIMED_OUT)


def granted(state: State, said: events_pb2.LeasesGranted | Granted, _now_ns: int, _sequence: int) -> None:
    """Queued tasks are leased to a worker, under rising fences."""
    run, worker = state.runs.get(said.run_id), state.workers.get(said.worker_id)
    if run is None or worker is None:
        return
    granted_tasks, first_fence = said.tasks[:], said.first_fence
    tasks = known_tasks(run, granted_tasks)
    ranges = as_ranges(tasks)
    count = dequeue(state, run, tasks, ranges)
    if state.hash_cache.is_in_use:
        state.hash_cache.touch(run.run_id, tasks)
    held = worker.leases.get(run.run_id)
    if held is None:
        held = worker.leases[run.run_id] = {}
    if len(tasks) == 1:
        held[first_fence] = tasks[0]
    else:
        held.update(zip(range(first_fence, first_fence + len(tasks)), tasks, strict=True))
    worker.lease_count += len(tasks)
    _begin_attempts(run, tasks, ranges, is_first=not said.attempts)
    run.leased_count += count
    state.leased_count += count
    next_fence = first_fence + len(granted_tasks)
    if next_fence > state.next_fence:
        state.next_fence = next_fence


def _begin_attempts(
    run: Run, tasks: Sequence[int], ranges: Sequence[tuple[int, int]], *, is_first: bool
) -> None:
    states, attempts = run.task_states, run.attempts
    if not is_first or len(ranges) != 1:
        for task in tasks:
            states[task] = _LEASED
            attempts[task] = min(attempts[task] + 1, _MOST_ATTEMPTS)
        return
    ((start, stop),) = ranges
    if stop - start <= _FEW:
        for task in range(start, stop):
            states[task] = _LEASED
            attempts[task] = 1
    else:
        states[start:stop] = bytes((_LEASED,)) * (stop - start)
        attempts[start:stop] = array("H", (1,)) * (stop - start)


def _end_leases(state: State, run: Run, worker: Worker | None, fences: Sequence[int]) -> None:
    """The leases are no longer held."""
    held = worker.leases.get(run.run_id) if worker is not None else None
    if worker is None or held is None:
        return
    before = len(held)
    if len(fences) > _FEW:
        deque(map(held.pop, fences, repeat(None)), maxlen=0)
    else:
        for fence in fences:
            held.pop(fence, None)
    ended = before - len(held)
    if not held:
        del worker.leases[run.run_id]
    worker.lease_count -= ended
    run.leased_count -= ended
    state.leased_count -= ended


def accepted(state: State, said: events_pb2.ResultsAccepted | Accepted, _now_ns: int, _sequence: int) -> None:
    """Cases get their verdicts; attempts that reported their last case complete."""
    run, worker = state.runs.get(said.run_id), state.workers.get(said.worker_id)
    if run is None:
        return
    tasks, fences = said.tasks[:], said.fences[:]
    if known_tasks(run, tasks) is not tasks:
        return
    if state.hash_cache.is_in_use:
        state.hash_cache.touch(run.run_id, tasks)
    _observe(run, tasks, said.durations_seconds[:])
    if run.case_offsets is None and not said.retried:
        _judge_single(run, tasks, said.verdicts)
    else:
        _judge_cases(run, tasks, said)
    if said.all_completed:
        completed, done = fences, tasks
    else:
        completed = said.completed[:]
        done = _completed_tasks(tasks, fences, completed)
    _complete(state, run, done, said.requeued)
    _end_leases(state, run, worker, completed)
    if worker is not None:
        worker.completed.update(completed)
        worker.completed_count += len(tasks)


def _observe(run: Run, tasks: Sequence[int], durations: Sequence[float]) -> None:
    """Learn how long cases of each template take."""
    if run.task_templates is None:
        _learn(run.templates[0], durations[0] if len(durations) == 1 else sum(durations), len(durations))
        return
    for task, duration in zip(tasks, durations, strict=False):
        _learn(run.template_of(task), duration, 1)


def _learn(template: Template, seconds: float, count: int) -> None:
    template.observed_seconds += seconds
    template.observed_count += count
    if template.observed_count >= _OBSERVATIONS:
        template.observed_seconds /= 2
        template.observed_count //= 2


def _judge_single(run: Run, tasks: Sequence[int], given: Sequence[int]) -> None:
    """Every task has one case, and every verdict is final."""
    verdicts, counts = run.verdicts, run.counts
    if not given:
        for task in tasks:
            verdicts[task] = _PASSED
        counts[_PASSED] += len(tasks)
        return
    given = given[:]
    for task, verdict in zip(tasks, given, strict=False):
        verdicts[task] = verdict & 0xFF
    for verdict, count in Counter(given).items():
        if verdict < len(counts):
            counts[verdict] += count


def _judge_cases(run: Run, tasks: Sequence[int], said: events_pb2.ResultsAccepted | Accepted) -> None:
    retried = set(said.retried)
    cases: Sequence[int] = said.cases[:] or [0] * len(tasks)
    verdicts: Sequence[int] = said.verdicts[:] or [_PASSED] * len(tasks)
    for index, (task, case, verdict) in enumerate(zip(tasks, cases, verdicts, strict=False)):
        of_task = run.case_range(task)
        if case >= len(of_task):
            continue
        in_run = of_task[case]
        if index in retried:
            run.retry_pending.setdefault(task, set()).add(case)
            run.test_failures[in_run] = run.test_failures.get(in_run, 0) + 1
        else:
            _judge(run, in_run, verdict)


def _judge(run: Run, case_in_run: int, verdict: int) -> None:
    run.verdicts[case_in_run] = verdict & 0xFF
    if verdict < len(run.counts):
        run.counts[verdict] += 1
    if run.test_failures or run.infrastructure_charges:
        run.test_failures.pop(case_in_run, None)
        run.infrastructure_charges.pop(case_in_run, None)


def _completed_tasks(tasks: Sequence[int], fences: Sequence[int], completed: Sequence[int]) -> list[int]:
    by_fence = dict(zip(fences, tasks, strict=False))
    return [by_fence[fence] for fence in completed if fence in by_fence]


def _complete(state: State, run: Run, done: Sequence[int], requeued: Sequence[int]) -> None:
    states = run.task_states
    for task in done:
        states[task] = _FINISHED
    if run.retry_pending or run.task_charges:
        for task in done:
            if run.retry_pending.pop(task, None):
                states[task] = _CANCELLED
            run.task_charges.pop(task, None)
    run.finished_count += len(done)
    if requeued:
        back = known_tasks(run, requeued)
        requeue(state, run, list(back))
        run.finished_count -= len(back)


def ended(state: State, said: events_pb2.AttemptsEnded, _now_ns: int, _sequence: int) -> None:
    """Attempts end before their time; what they did not report is requeued, judged or left."""
    run, worker = state.runs.get(said.run_id), state.workers.get(said.worker_id)
    if run is None:
        return
    state.hash_cache.touch(run.run_id, known_tasks(run, said.tasks))
    back: list[int] = []
    for index, task in enumerate(said.tasks):
        if task >= run.task_count or run.task_states[task] != _LEASED:
            continue
        outcome = _entry(said.outcomes, index)
        _charge(run, task, outcome, _entry(said.running_cases, index), _entry(said.verdicts, index))
        run.retry_pending.pop(task, None)
        if _entry(said.requeued, index):
            back.append(task)
        else:
            _end_task(run, task, _entry(said.remaining_verdicts, index))
    requeue(state, run, back)
    _end_leases(state, run, worker, said.fences[:])


def _entry(column: Sequence[int], index: int) -> int:
    return column[index] if index < len(column) else 0


def _charge(run: Run, task: int, outcome: int, running_case: int, verdict: int) -> None:
    """Count the end against the case that ran, or against the task when none is known to have."""
    is_infrastructure = outcome in _INFRASTRUCTURE
    run.infrastructure_failures += is_infrastructure
    if outcome not in _CHARGED:
        return
    cases = run.case_range(task)
    if 0 < running_case <= len(cases):
        in_run = cases[running_case - 1]
        if verdict:
            _judge(run, in_run, verdict)
        else:
            charges = run.infrastructure_charges if is_infrastructure else run.test_failures
            charges[in_run] = charges.get(in_run, 0) + 1
    elif outcome != common_pb2.OUTCOME_LOST:
        run.task_charges[task] = run.task_charges.get(task, 0) + 1


def _end_task(run: Run, task: int, remaining_verdict: int) -> None:
    if remaining_verdict:
        judge_rest(run, task, remaining_verdict & 0xFF)
    cases = run.case_range(task)
    is_judged = 0 not in run.verdicts[cases.start : cases.stop]
    run.task_states[task] = _FINISHED if is_judged else _CANCELLED
    run.finished_count += 1
    run.task_charges.pop(task, None)


def released(state: State, said: events_pb2.LeasesReleased, _now_ns: int, _sequence: int) -> None:
    """Leases that had not started are undone, their attempts with them."""
    run, worker = state.runs.get(said.run_id), state.workers.get(said.worker_id)
    if run is None:
        return
    tasks = [task for task in known_tasks(run, said.tasks) if run.task_states[task] == _LEASED]
    for task in tasks:
        run.attempts[task] = max(run.attempts[task] - 1, 0)
        run.retry_pending.pop(task, None)
    requeue(state, run, tasks)
    _end_leases(state, run, worker, said.fences[:])
