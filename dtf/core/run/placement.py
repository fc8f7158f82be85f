"""Which worker can run which task, and what is said when none can.

A worker fits a template when it belongs to its pool, carries its labels with exactly its values
and has its resources *in all*; whether they are free now is a question of the moment (grants.py).
"""

from collections.abc import Iterable, Iterator

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run import limits
from dtf.core.run.commands import ReviewPlacement
from dtf.core.run.outlook import Outlooks
from dtf.core.run.state import Run, State, Template

_ERROR = common_pb2.VERDICT_ERROR
_NANOSECONDS = 1_000_000_000
_ABANDONED_PER_EVENT = 16_384
"""At most five bytes a task index: far below the limit of an event."""


def fits(worker: Worker, template: Template) -> bool:
    """Whether the worker could run tasks of the template if it were idle."""
    if template.pool and template.pool != worker.pool:
        return False
    if template.cpus > worker.cpus or template.memory_bytes > worker.memory_bytes:
        return False
    if template.gpus > worker.gpus:
        return False
    labels = worker.labels
    return all(labels.get(key) == value for key, value in template.labels.items())


def is_placeable(state: State, template: Template) -> bool:
    """Whether a worker that takes work could run the template's tasks."""
    return any(worker.takes_work and fits(worker, template) for worker in state.workers.values())


def queued_by_template(run: Run) -> dict[int, int]:
    """Template → how many of its tasks are queued."""
    depths: dict[int, int] = {}
    for by_template in run.queues.values():
        for template, queue in by_template.items():
            depths[template] = depths.get(template, 0) + len(queue)
    return depths


def missing_reason(state: State, template: Template) -> str:
    """Why no present worker can run the template's tasks, in words."""
    needs = describe_needs(template)
    workers = [worker for worker in state.workers.values() if worker.takes_work]
    if not workers:
        return f"waiting: no worker takes work now; needed: {needs}"
    return f"waiting: none of the {len(workers)} workers can run this; needed: {needs}"


def describe_needs(template: Template) -> str:
    """What the template asks of a worker, in words."""
    needs = [f"{key}={value}" for key, value in sorted(template.labels.items())]
    if template.pool:
        needs.append(f"pool {template.pool}")
    if template.cpus:
        needs.append(f"{template.cpus:g} cpus")
    if template.memory_bytes:
        needs.append(f"{template.memory_bytes / 2**20:,.0f} MiB of memory")
    if template.gpus:
        needs.append(f"{template.gpus} gpus")
    return ", ".join(needs)[: limits.MAX_REASON_LENGTH // 2] if needs else "any worker"


def newly_waiting(state: State, run: Run, templates: Iterable[int]) -> Iterator[events_pb2.Event]:
    """PlacementChanged for templates that workers are there for, but none that fits.

    With no worker at all nothing is said here: one may be starting (ReviewPlacement decides that).
    """
    workers = [worker for worker in state.workers.values() if worker.takes_work]
    if not workers:
        return
    for index in sorted(templates):
        template = run.templates[index]
        if not template.is_waiting and not any(fits(worker, template) for worker in workers):
            yield _changed(run, template, missing_reason(state, template))


def no_longer_waiting(state: State, worker: Worker) -> Iterator[events_pb2.Event]:
    """PlacementChanged for the waiting templates that `worker`, now taking work, can run."""
    for run in state.active_runs.values():
        for template in run.templates:
            if template.is_waiting and fits(worker, template):
                yield _changed(run, template, "")


def _changed(run: Run, template: Template, reason: str) -> events_pb2.Event:
    changed = events_pb2.PlacementChanged(
        run_id=run.run_id, template=template.index, waiting=bool(reason), reason=reason
    )
    return events_pb2.Event(placement_changed=changed)


def review_placement(state: State, command: ReviewPlacement, now_ns: int) -> list[events_pb2.Event]:
    """PlacementChanged where it did, and TasksAbandoned where the wait was too long."""
    events: list[events_pb2.Event] = []
    outlooks = Outlooks()
    is_anyone_there = any(worker.takes_work for worker in state.workers.values())
    for run in state.active_runs.values():
        for index in sorted(queued_by_template(run)):
            template = run.templates[index]
            if is_placeable(state, template):
                if template.is_waiting:
                    events.append(_changed(run, template, ""))
            elif not template.is_waiting:
                if is_anyone_there or not command.worker_expected:
                    events.append(_changed(run, template, missing_reason(state, template)))
            elif deadline_ns(run, template) <= now_ns:
                events.extend(_abandon(run, template, outlooks))
    return events + outlooks.finishing()


def deadline_ns(run: Run, template: Template) -> float:
    """When the waiting tasks of the template end in error."""
    timeout = run.created.placement_timeout_seconds
    if not template.is_waiting or timeout <= 0:
        return float("inf")
    return template.waiting_since_ns + int(timeout * _NANOSECONDS)


def next_deadline(state: State) -> int | None:
    """When time alone will matter next (nanoseconds since 1970), so that ReviewPlacement is due."""
    deadlines = [
        deadline_ns(run, run.templates[index])
        for run in state.active_runs.values()
        if run.created.placement_timeout_seconds > 0
        for index in queued_by_template(run)
    ]
    soonest = min(deadlines, default=float("inf"))
    return None if soonest == float("inf") else int(soonest)


def _abandon(run: Run, template: Template, outlooks: Outlooks) -> Iterator[events_pb2.Event]:
    tasks = [
        task
        for by_template in run.queues.values()
        if template.index in by_template
        for task in by_template[template.index].tasks()
    ]
    outlook = outlooks.of(run)
    outlook.finished_tasks += len(tasks)
    for task in tasks:
        cases = run.case_range(task)
        outlook.counts[_ERROR] += run.verdicts[cases.start : cases.stop].count(0)
    reason = (
        f"no worker could run it within {run.created.placement_timeout_seconds:g} s; "
        f"{template.waiting_reason or describe_needs(template)}"
    )
    for start in range(0, len(tasks), _ABANDONED_PER_EVENT):
        abandoned = events_pb2.TasksAbandoned(
            run_id=run.run_id, tasks=tasks[start : start + _ABANDONED_PER_EVENT], reason=reason
        )
        yield events_pb2.Event(tasks_abandoned=abandoned)
