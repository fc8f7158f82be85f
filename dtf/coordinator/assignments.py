"""Leases as workers receive them: read from a run's columns."""

from collections.abc import Sequence

from dtf.api.v1 import worker_service_pb2
from dtf.core.run.state import Run


def assignments(run: Run, fences: Sequence[int], tasks: Sequence[int]) -> worker_service_pb2.Assignments:
    """Leases of one run, in columns."""
    message = worker_service_pb2.Assignments(
        run_id=run.run_id, tasks=tasks, fences=fences, names=[run.names[task] for task in tasks]
    )
    attempts = [run.attempts[task] for task in tasks]
    if any(attempt != 1 for attempt in attempts):
        message.attempts.extend(attempts)
    if run.task_templates is not None:
        message.templates.extend(run.task_templates[task] for task in tasks)
    if run.payloads is not None:
        message.payloads.extend(run.payloads[task] for task in tasks)
    if run.case_offsets is not None or run.case_names is not None:
        message.cases.extend(_cases(run, task) for task in tasks)
    return message


def context(run: Run) -> worker_service_pb2.RunContext:
    """What a worker must know of a run before its first task."""
    return worker_service_pb2.RunContext(
        run_id=run.run_id, templates=run.created.templates, suite=run.created.suite
    )


def _cases(run: Run, task: int) -> worker_service_pb2.CaseList:
    """The cases this attempt runs: without a final verdict, and not reported by it already."""
    reported = run.retry_pending.get(task, ())
    open_cases = [case for case in run.unjudged_cases(task) if case not in reported]
    names = run.cases_named(task)
    message = worker_service_pb2.CaseList(indexes=open_cases, names=[names[case] for case in open_cases])
    if run.case_positions is not None:
        first = run.case_range(task).start
        positions = [run.case_positions[first + case] for case in open_cases]
        if all(position >= 0 for position in positions):
            message.positions.extend(positions)
    return message
