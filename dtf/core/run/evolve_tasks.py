"""Folds of the events that bring tasks, and of the one that ends them without an attempt."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from typing import TypeVar

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.prepared import Submitted
from dtf.core.run.state import Batch, Run, State
from dtf.core.run.task_queue import TaskQueue, as_ranges

T = TypeVar("T")

_QUEUED = common_pb2.TASK_STATE_QUEUED
_FINISHED = common_pb2.TASK_STATE_FINISHED
_ERROR = common_pb2.VERDICT_ERROR


def submitted(state: State, said: events_pb2.TasksSubmitted | Submitted, _now_ns: int, sequence: int) -> None:
    """The columns grow by the event's, and its tasks are queued."""
    run = state.runs.get(said.run_id)
    if run is None or run.is_terminal or not _is_whole(run, said):
        return
    names = said.names[:]
    first, count = run.task_count, len(names)
    run.names += names
    run.task_states += bytes((_QUEUED,)) * count
    run.attempts.frombytes(bytes(count * run.attempts.itemsize))
    _extend_task_columns(run, said, first, count)
    _extend_case_columns(run, said, first, count)
    _remember_batch(run, said.batch, count, first, sequence)
    _enqueue(run, said, first, count)
    run.queued_count += count
    state.queued_count += count


def _is_whole(run: Run, said: events_pb2.TasksSubmitted | Submitted) -> bool:
    """Whether the columns fit each other and the run."""
    has_templates = not said.templates or max(said.templates) < len(run.templates)
    has_cases = not said.case_counts or sum(said.case_counts) == len(said.case_names)
    return has_templates and has_cases


def _remember_batch(run: Run, number: int, count: int, first: int, sequence: int) -> None:
    """A batch too large for one event comes as several with one number."""
    if number and number == len(run.batches):
        run.batches[-1].task_count += count
    elif number == len(run.batches) + 1:
        run.batches.append(Batch(first, count, sequence))


def _extend_task_columns(
    run: Run, said: events_pb2.TasksSubmitted | Submitted, first: int, count: int
) -> None:
    if said.templates and run.task_templates is None:
        run.task_templates = array("H", bytes(2 * first))
    if run.task_templates is not None:
        run.task_templates.extend(_filled(said.templates, count, 0))
    if said.payloads and run.payloads is None:
        run.payloads = [""] * first
    if run.payloads is not None:
        run.payloads.extend(_filled(said.payloads, count, ""))
    if said.expected_seconds and run.expected_seconds is None:
        run.expected_seconds = array("f", bytes(4 * first))
    if run.expected_seconds is not None:
        run.expected_seconds.extend(_filled(said.expected_seconds, count, 0.0))
    if said.priorities and run.priorities is None:
        run.priorities = array("i", [run.created.priority]) * first
    if run.priorities is not None:
        run.priorities.extend(_filled(said.priorities, count, run.created.priority))


def _filled(column: Sequence[T], count: int, default: T) -> Iterable[T]:
    """A column of exactly `count` entries, whatever the event holds."""
    if len(column) == count:
        return column
    return [*column[:count], *repeat(default, count - len(column[:count]))]


def _extend_case_columns(
    run: Run, said: events_pb2.TasksSubmitted | Submitted, first: int, count: int
) -> None:
    first_case = run.case_count
    if said.case_counts and run.case_offsets is None:
        run.case_offsets = array("I", range(first + 1))
        run.case_names = list(run.names[:first])
    if run.case_offsets is None or run.case_names is None:
        run.verdicts += bytes(count)
        return
    counts = list(_filled(said.case_counts, count, 1))
    case_count = sum(counts)
    run.verdicts += bytes(case_count)
    run.case_offsets.extend(accumulate(counts[1:], initial=first_case + counts[0]) if counts else ())
    names = said.case_names if said.case_counts else said.names
    run.case_names.extend(_filled(names, case_count, ""))
    if said.case_positions and run.case_positions is None:
        run.case_positions = array("i", [-1]) * first_case
    if run.case_positions is not None:
        run.case_positions.extend(_filled(said.case_positions, case_count, -1))


def _enqueue(run: Run, said: events_pb2.TasksSubmitted | Submitted, first: int, count: int) -> None:
    if not said.templates and not said.priorities:
        queue_of(run, run.created.priority, 0).append(first, first + count)
        return
    priorities = list(_filled(said.priorities, count, run.created.priority))
    templates = list(_filled(said.templates, count, 0))
    start = 0
    for index in range(1, count + 1):
        if index == count or priorities[index] != priorities[start] or templates[index] != templates[start]:
            queue_of(run, priorities[start], templates[start]).append(first + start, first + index)
            start = index


def queue_of(run: Run, priority: int, template: int) -> TaskQueue:
    """The queue of a priority and a template, made if it is not there."""
    by_template = run.queues.setdefault(priority, {})
    queue = by_template.get(template)
    if queue is None:
        queue = by_template[template] = TaskQueue()
    return queue


def requeue(state: State, run: Run, tasks: Sequence[int]) -> None:
    """Tasks that were leased go to the front of their queues."""
    state.hash_cache.touch(run.run_id, tasks)
    grouped: dict[tuple[int, int], list[int]] = {}
    for task in tasks:
        run.task_states[task] = _QUEUED
        grouped.setdefault((run.priority_of(task), run.template_of(task).index), []).append(task)
    for (priority, template), members in grouped.items():
        queue_of(run, priority, template).push_front(members)
    run.queued_count += len(tasks)
    state.queued_count += len(tasks)


def dequeue(
    state: State, run: Run, tasks: Sequence[int], ranges: Sequence[tuple[int, int]] | None = None
) -> int:
    """Tasks leave their queues; returns how many were in one. `ranges` are `tasks`, where they are known."""
    if run.task_templates is None and run.priorities is None:
        removed = _remove(run, run.created.priority, 0, as_ranges(tasks) if ranges is None else ranges)
    else:
        grouped: dict[tuple[int, int], list[int]] = {}
        for task in tasks:
            grouped.setdefault((run.priority_of(task), run.template_of(task).index), []).append(task)
        removed = sum(_remove(run, *key, as_ranges(members)) for key, members in grouped.items())
    run.queued_count -= removed
    state.queued_count -= removed
    return removed


def _remove(run: Run, priority: int, template: int, ranges: Sequence[tuple[int, int]]) -> int:
    by_template = run.queues.get(priority)
    queue = by_template.get(template) if by_template is not None else None
    if by_template is None or queue is None:
        return 0
    removed = queue.remove_ranges(ranges)
    if not queue.size:
        del by_template[template]
        if not by_template:
            del run.queues[priority]
    return removed


def known_tasks(run: Run, tasks: Sequence[int]) -> Sequence[int]:
    """`tasks` without those the run does not have."""
    count = len(run.task_states)
    if not tasks or (tasks[0] if len(tasks) == 1 else max(tasks)) < count:
        return tasks
    return [task for task in tasks if task < count]


def judge_rest(run: Run, task: int, verdict: int) -> int:
    """Every case of the task without a verdict gets `verdict`; returns how many there were."""
    cases = run.case_range(task)
    judged = 0
    for case in cases:
        if not run.verdicts[case]:
            run.verdicts[case] = verdict
            judged += 1
    if verdict < len(run.counts):
        run.counts[verdict] += judged
    return judged


def abandoned(state: State, said: events_pb2.TasksAbandoned, _now_ns: int, _sequence: int) -> None:
    """Queued tasks are finished, and their cases get ERROR."""
    run = state.runs.get(said.run_id)
    if run is None:
        return
    tasks = [task for task in known_tasks(run, said.tasks) if run.task_states[task] == _QUEUED]
    dequeue(state, run, tasks)
    state.hash_cache.touch(run.run_id, tasks)
    for task in tasks:
        run.task_states[task] = _FINISHED
        judge_rest(run, task, _ERROR)
    run.finished_count += len(tasks)
