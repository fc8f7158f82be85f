"""What can be asked of the state: the messages that clients and workers see, and what to tell whom."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dtf.api.v1 import common_pb2, fleet_service_pb2, run_service_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.outlook import verdict_counts
from dtf.core.run.placement import fits, queued_by_template
from dtf.core.run.state import Run, State
from dtf.core.run.window import desk_of, expected_task_seconds

_SECOND = 1e9


@dataclass(frozen=True, slots=True)
class Lease:
    """An exclusive right to one attempt."""

    run_id: str
    task: int
    worker_id: str
    fence: int


def find_lease(state: State, fence: int) -> Lease | None:
    """The lease with this fence, if it is held; costs a look at each worker."""
    for worker in state.workers.values():
        for run_id, held in worker.leases.items():
            if fence in held:
                return Lease(run_id, held[fence], worker.worker_id, fence)
    return None


def leases_of_run(state: State, run_id: str) -> dict[int, Lease]:
    """Task → lease, for every leased task of a run."""
    return {
        task: Lease(run_id, task, worker.worker_id, fence)
        for worker in state.workers.values()
        for fence, task in worker.leases.get(run_id, {}).items()
    }


def waiting_reason(run: Run) -> str:
    """Why queued tasks of the run wait though workers are there, in words; empty: they do not."""
    depths = queued_by_template(run) if any(t.is_waiting for t in run.templates) else {}
    reasons = [
        run.templates[index].waiting_reason for index in sorted(depths) if run.templates[index].is_waiting
    ]
    return "; ".join(dict.fromkeys(reasons))


def run_message(run: Run) -> run_service_pb2.Run:
    """A run as clients see it."""
    return run_service_pb2.Run(
        run_id=run.run_id,
        suite=run.created.suite,
        revision=run.created.revision,
        owner=run.created.owner,
        state=run.state,
        priority=run.created.priority,
        created_at=run.created_at_ns / _SECOND,
        finished_at=run.finished_at_ns / _SECOND,
        task_count=run.task_count,
        case_count=run.case_count,
        queued_count=run.queued_count,
        leased_count=run.leased_count,
        finished_count=run.finished_count,
        counts=verdict_counts(run.counts),
        is_sealed=run.is_sealed,
        waiting_reason=waiting_reason(run),
        first_sequence=run.first_sequence,
        last_sequence=run.last_sequence,
        labels=run.created.labels,
        confirmation=run.created.confirmation if run.created.HasField("confirmation") else None,
    )


def task_messages(state: State, run: Run, tasks: Sequence[int]) -> list[run_service_pb2.Task]:
    """Tasks of a run as clients see them."""
    leases = leases_of_run(state, run.run_id)
    return [_task_message(run, task, leases.get(task)) for task in tasks]


def _task_message(run: Run, task: int, lease: Lease | None) -> run_service_pb2.Task:
    verdicts = [cast("common_pb2.Verdict.ValueType", run.verdicts[case]) for case in run.case_range(task)]
    message = run_service_pb2.Task(
        task=task,
        name=run.names[task],
        template=run.template_of(task).index,
        state=cast("common_pb2.TaskState.ValueType", run.task_states[task]),
        attempts=run.attempts[task],
        cases=[
            run_service_pb2.Case(name=name, verdict=verdict)
            for name, verdict in zip(run.cases_named(task), verdicts, strict=True)
        ],
    )
    if lease is not None:
        message.worker_id, message.fence = lease.worker_id, lease.fence
    return message


def worker_message(worker: Worker, silent_seconds: float = 0.0) -> fleet_service_pb2.Worker:
    """A worker as operators see it. How long it was silent is not in the state."""
    return fleet_service_pb2.Worker(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        pool=worker.pool,
        state=worker.state,
        labels=worker.labels,
        resources=common_pb2.Resources(cpus=worker.cpus, memory_bytes=worker.memory_bytes, gpus=worker.gpus),
        slots=worker.slots,
        lease_count=worker.lease_count,
        host=worker.host,
        process_id=worker.process_id,
        silent_seconds=silent_seconds,
        completed_count=worker.completed_count,
        reason=worker.reason,
        launch_id=worker.launch_id,
        version=worker.version,
        registered_at=worker.registered_at_ns / _SECOND,
    )


def worker_counts(state: State) -> dict[str, int]:
    """Workers by the name of their state in lower case."""
    counts: dict[str, int] = {}
    for worker in state.workers.values():
        name = common_pb2.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_").lower()
        counts[name] = counts.get(name, 0) + 1
    return counts


def exhausted_runs(state: State, worker: Worker, credits: int) -> list[str]:
    """Runs the worker holds leases of and can be given no more of now.

    A case held back for its successor need not wait for one of these runs: nothing is queued, or
    what is queued does not fit the worker, its free resources, its window or its `credits`.
    """
    if not worker.leases:
        return []
    if not worker.takes_work:
        return list(worker.leases)
    return [run_id for run_id in worker.leases if not _can_give_more(state, worker, run_id, credits)]


def _can_give_more(state: State, worker: Worker, run_id: str, credits: int) -> bool:
    run = state.runs[run_id]
    if not run.queued_count or credits <= 0:
        return False
    desk = desk_of(state, worker, credits)
    for by_template in run.queues.values():
        for index, queue in by_template.items():
            template = run.templates[index]
            seconds = expected_task_seconds(run, template, queue.head)
            if fits(worker, template) and desk.room(template, seconds):
                return True
    return False
