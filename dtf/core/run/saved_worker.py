"""A worker in a snapshot: its registration, where it stands, and the leases it holds."""

from array import array
from collections.abc import Mapping
from typing import cast

from dtf.api.v1 import common_pb2, events_pb2, state_pb2
from dtf.core.fleet.worker import CompletedFences, Worker
from dtf.core.run.columns import column_bytes, column_of
from dtf.core.run.saved_columns import demand, load_array
from dtf.core.run.state import Run

_WORKER_STATES = frozenset(common_pb2.WorkerState.values())


def save_worker(worker: Worker) -> state_pb2.SavedWorker:
    """The worker as its message."""
    registered = events_pb2.WorkerRegistered(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        pool=worker.pool,
        labels=worker.labels,
        resources=common_pb2.Resources(cpus=worker.cpus, memory_bytes=worker.memory_bytes, gpus=worker.gpus),
        slots=worker.slots,
        host=worker.host,
        process_id=worker.process_id,
        version=worker.version,
        launch_id=worker.launch_id,
        request_id=worker.request_id,
        join_token_id=worker.join_token_id,
    )
    return state_pb2.SavedWorker(
        registered=registered,
        state=worker.state,
        reason=worker.reason,
        registered_unix_nanos=worker.registered_at_ns,
        gone_unix_nanos=worker.gone_at_ns,
        completed_count=worker.completed_count,
        leases=[
            state_pb2.SavedLeases(
                run_id=run_id,
                fences=column_bytes(array("Q", held.keys())),
                tasks=column_bytes(array("I", held.values())),
            )
            for run_id, held in worker.leases.items()
        ],
        recent_fences=column_bytes(worker.completed.recent),
        older_fences=column_bytes(worker.completed.older),
        fence_generation=worker.completed.generation,
        quarantine=worker.quarantine,
    )


def load_worker(saved: state_pb2.SavedWorker, runs: Mapping[str, Run]) -> Worker:
    """The worker that was saved. Raises StateUndecodable, ValueError."""
    said = saved.registered
    demand(saved.state in _WORKER_STATES, f"worker {said.worker_id!r} is in state {saved.state}")
    leases = _leases(saved, runs)
    return Worker(
        said.worker_id,
        incarnation=said.incarnation,
        state=cast("common_pb2.WorkerState.ValueType", saved.state),
        pool=said.pool,
        labels=dict(sorted(said.labels.items())),
        cpus=said.resources.cpus,
        memory_bytes=said.resources.memory_bytes,
        gpus=said.resources.gpus,
        slots=said.slots,
        host=said.host,
        process_id=said.process_id,
        version=said.version,
        launch_id=said.launch_id,
        request_id=said.request_id,
        join_token_id=said.join_token_id,
        reason=saved.reason,
        quarantine=saved.quarantine,
        registered_at_ns=saved.registered_unix_nanos,
        gone_at_ns=saved.gone_unix_nanos,
        leases=leases,
        lease_count=sum(map(len, leases.values())),
        completed=CompletedFences.of(
            column_of("Q", saved.recent_fences), column_of("Q", saved.older_fences), saved.fence_generation
        ),
        completed_count=saved.completed_count,
    )


def _leases(saved: state_pb2.SavedWorker, runs: Mapping[str, Run]) -> dict[str, dict[int, int]]:
    leases: dict[str, dict[int, int]] = {}
    for entry in saved.leases:
        fences = column_of("Q", entry.fences)
        tasks = load_array("I", entry.tasks, len(fences), "leases")
        run = runs.get(entry.run_id)
        task_count = run.task_count if run is not None else 0
        highest = max(tasks, default=task_count)
        demand(highest < task_count, f"task {highest} of run {entry.run_id!r} is leased")
        held = leases[entry.run_id] = dict(zip(fences, tasks, strict=True))
        demand(len(held) == len(fences), "a fence is held twice")
    return leases
