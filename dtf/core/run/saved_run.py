"""A run in a snapshot: written column by column, and checked to hang together when it is read."""

from array import array
from itertools import pairwise
from typing import cast

from dtf.api.v1 import common_pb2, state_pb2
from dtf.core.run.columns import column_bytes
from dtf.core.run.saved_columns import demand, load_array, load_pairs, load_texts, save_pairs, save_texts
from dtf.core.run.state import VERDICTS, Batch, Run, Template
from dtf.core.run.task_queue import TaskQueue

_RUN_STATES = frozenset(common_pb2.RunState.values())
_TASK_STATES = bytes(common_pb2.TaskState.values())
_VERDICTS = bytes(range(VERDICTS))
_QUEUED = common_pb2.TASK_STATE_QUEUED
_LEASED = common_pb2.TASK_STATE_LEASED


def save_run(run: Run) -> state_pb2.SavedRun:
    """The run as its message."""
    saved = state_pb2.SavedRun(
        created=run.created,
        templates=[
            state_pb2.SavedTemplate(
                is_waiting=template.is_waiting,
                waiting_reason=template.waiting_reason,
                waiting_since_unix_nanos=template.waiting_since_ns,
                observed_seconds=template.observed_seconds,
                observed_count=template.observed_count,
            )
            for template in run.templates
        ],
        state=run.state,
        created_unix_nanos=run.created_at_ns,
        finished_unix_nanos=run.finished_at_ns,
        first_sequence=run.first_sequence,
        last_sequence=run.last_sequence,
        is_sealed=run.is_sealed,
        cancel_requested_by=run.cancel_requested_by,
        cancel_reason=run.cancel_reason,
        batch_first_tasks=column_bytes(array("I", [batch.first_task for batch in run.batches])),
        batch_task_counts=column_bytes(array("I", [batch.task_count for batch in run.batches])),
        batch_sequences=column_bytes(array("Q", [batch.sequence for batch in run.batches])),
        retry_pending=[
            state_pb2.SavedRetry(task=task, cases=sorted(cases))
            for task, cases in sorted(run.retry_pending.items())
        ],
        test_failures=save_pairs(run.test_failures),
        infrastructure_charges=save_pairs(run.infrastructure_charges),
        task_charges=save_pairs(run.task_charges),
        queued_count=run.queued_count,
        leased_count=run.leased_count,
        finished_count=run.finished_count,
        counts=run.counts,
        infrastructure_failures=run.infrastructure_failures,
    )
    _save_columns(run, saved)
    _save_queues(run, saved)
    return saved


def _save_columns(run: Run, saved: state_pb2.SavedRun) -> None:
    saved.names.CopyFrom(save_texts(run.names))
    saved.task_states = bytes(run.task_states)
    saved.attempts = column_bytes(run.attempts)
    saved.verdicts = bytes(run.verdicts)
    if run.task_templates is not None:
        saved.task_templates = column_bytes(run.task_templates)
    if run.payloads is not None:
        saved.payloads.CopyFrom(save_texts(run.payloads))
    if run.expected_seconds is not None:
        saved.expected_seconds = column_bytes(run.expected_seconds)
    if run.priorities is not None:
        saved.priorities = column_bytes(run.priorities)
    if run.case_offsets is not None:
        saved.case_offsets = column_bytes(run.case_offsets)
    if run.case_names is not None:
        saved.case_names.CopyFrom(save_texts(run.case_names))
    if run.case_positions is not None:
        saved.case_positions = column_bytes(run.case_positions)


def _save_queues(run: Run, saved: state_pb2.SavedRun) -> None:
    for priority, by_template in run.queues.items():
        for template, queue in by_template.items():
            ranges = list(queue.ranges())
            saved.queues.add(
                priority=priority,
                template=template,
                starts=column_bytes(array("I", [start for start, _ in ranges])),
                stops=column_bytes(array("I", [stop for _, stop in ranges])),
            )


def load_run(saved: state_pb2.SavedRun) -> Run:
    """The run that was saved. Raises StateUndecodable, ValueError."""
    created = saved.created
    demand(bool(created.run_id), "a run has no identity")
    demand(saved.state in _RUN_STATES, f"run {created.run_id!r} is in state {saved.state}")
    templates = [Template.of(index, template) for index, template in enumerate(created.templates)]
    run = Run(
        run_id=created.run_id,
        created=created,
        templates=templates or [Template(0)],
        state=cast("common_pb2.RunState.ValueType", saved.state),
        created_at_ns=saved.created_unix_nanos,
        finished_at_ns=saved.finished_unix_nanos,
        first_sequence=saved.first_sequence,
        last_sequence=saved.last_sequence,
        is_sealed=saved.is_sealed,
        cancel_requested_by=saved.cancel_requested_by,
        cancel_reason=saved.cancel_reason,
        batches=_batches(saved),
        queued_count=saved.queued_count,
        leased_count=saved.leased_count,
        finished_count=saved.finished_count,
        counts=list(saved.counts),
        infrastructure_failures=saved.infrastructure_failures,
    )
    demand(len(run.counts) == VERDICTS, f"run {run.run_id!r} counts {len(run.counts)} verdicts")
    _load_templates(run, saved)
    _load_task_columns(run, saved)
    _load_case_columns(run, saved)
    _load_charges(run, saved)
    _load_queues(run, saved)
    return run


def _batches(saved: state_pb2.SavedRun) -> list[Batch]:
    count = len(saved.batch_first_tasks) // 4
    columns = (
        load_array("I", saved.batch_first_tasks, count, "batch_first_tasks"),
        load_array("I", saved.batch_task_counts, count, "batch_task_counts"),
        load_array("Q", saved.batch_sequences, count, "batch_sequences"),
    )
    return list(map(Batch, *columns))


def _load_templates(run: Run, saved: state_pb2.SavedRun) -> None:
    demand(len(saved.templates) == len(run.templates), "a run's templates are not those it was created with")
    for template, learned in zip(run.templates, saved.templates, strict=True):
        template.is_waiting = learned.is_waiting
        template.waiting_reason = learned.waiting_reason
        template.waiting_since_ns = learned.waiting_since_unix_nanos
        template.observed_seconds = learned.observed_seconds
        template.observed_count = learned.observed_count


def _load_task_columns(run: Run, saved: state_pb2.SavedRun) -> None:
    count = len(saved.task_states)
    demand(not saved.task_states.translate(None, _TASK_STATES), "a task is in no state there is")
    run.task_states = bytearray(saved.task_states)
    run.names = load_texts(saved.names, count, "names")
    run.attempts = load_array("H", saved.attempts, count, "attempts")
    if saved.HasField("task_templates"):
        run.task_templates = load_array("H", saved.task_templates, count, "task_templates")
        highest = max(run.task_templates, default=0)
        demand(highest < len(run.templates), f"a task has template {highest}")
    if saved.HasField("payloads"):
        run.payloads = load_texts(saved.payloads, count, "payloads")
    if saved.HasField("expected_seconds"):
        run.expected_seconds = load_array("f", saved.expected_seconds, count, "expected_seconds")
    if saved.HasField("priorities"):
        run.priorities = load_array("i", saved.priorities, count, "priorities")


def _load_case_columns(run: Run, saved: state_pb2.SavedRun) -> None:
    count = len(saved.verdicts)
    demand(not saved.verdicts.translate(None, _VERDICTS), "a case has a verdict that there is not")
    run.verdicts = bytearray(saved.verdicts)
    has_cases = saved.HasField("case_offsets")
    demand(has_cases == saved.HasField("case_names"), "cases have names or offsets, not both")
    demand(has_cases or count == run.task_count, f"there are {count} cases for {run.task_count} tasks")
    if has_cases:
        offsets = load_array("I", saved.case_offsets, run.task_count + 1, "case_offsets")
        demand(offsets[0] == 0 and offsets[-1] == count, "case_offsets does not span the cases")
        demand(all(start <= stop for start, stop in pairwise(offsets)), "case_offsets falls")
        run.case_offsets = offsets
        run.case_names = load_texts(saved.case_names, count, "case_names")
    if saved.HasField("case_positions"):
        run.case_positions = load_array("i", saved.case_positions, count, "case_positions")


def _load_charges(run: Run, saved: state_pb2.SavedRun) -> None:
    for retry in saved.retry_pending:
        demand(retry.task < run.task_count, f"a retry is pending of task {retry.task}")
        cases = set(retry.cases)
        demand(not cases or max(cases) < len(run.case_range(retry.task)), "a retry is pending of no case")
        run.retry_pending[retry.task] = cases
    run.test_failures = load_pairs(saved.test_failures, run.case_count, "test_failures")
    run.infrastructure_charges = load_pairs(
        saved.infrastructure_charges, run.case_count, "infrastructure_charges"
    )
    run.task_charges = load_pairs(saved.task_charges, run.task_count, "task_charges")


def _load_queues(run: Run, saved: state_pb2.SavedRun) -> None:
    for queue in saved.queues:
        by_template = run.queues.setdefault(queue.priority, {})
        demand(queue.template < len(run.templates), f"tasks are queued of template {queue.template}")
        demand(queue.template not in by_template, "a queue is there twice")
        by_template[queue.template] = _queue(queue, run.task_count)
    queued = sum(queue.size for queues in run.queues.values() for queue in queues.values())
    states = run.task_states
    demand(
        queued == run.queued_count == states.count(_QUEUED),
        f"{queued} tasks are queued, not {run.queued_count}",
    )
    demand(run.leased_count == states.count(_LEASED), f"{run.leased_count} tasks are not leased")


def _queue(saved: state_pb2.SavedQueue, task_count: int) -> TaskQueue:
    queue = TaskQueue()
    count = len(saved.starts) // 4
    starts = load_array("I", saved.starts, count, "a queue")
    stops = load_array("I", saved.stops, count, "a queue")
    for start, stop in zip(starts, stops, strict=True):
        demand(start < stop <= task_count, f"tasks {start} to {stop} are queued of {task_count}")
        queue.append(start, stop)
    demand(bool(queue), "a queue is empty")
    return queue
