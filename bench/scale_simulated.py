"""Simulated workers in the coordinator's own process: what a fleet far beyond this machine costs it.

The figures are of the whole process, simulated workers included: an upper bound for the coordinator.
"""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.simulated_fleet import SimulatedFleet
from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.coordinator.process import Coordinator
from dtf.core.run.commands import CreateRun, SubmitTasks
from dtf.settings.model import CoordinatorSettings

MEASURED_SECONDS = 20.0
BATCH = 256


@dataclass(frozen=True, slots=True)
class FleetCost:
    """What a simulated fleet costs."""

    workers: int
    heartbeat_seconds: float
    messages_per_second: float
    idle_share: float
    """Of one core, all of the process."""
    bytes_a_worker: float
    task_seconds: float
    """Processor time of all of the process for one no-op task through this fleet."""


async def measure_fleets(directory: Path, sizes: Sequence[int], task_count: int) -> list[FleetCost]:
    """Grow one fleet through `sizes`; at each measure it idle, then at work."""
    clock = SystemClock()
    coordinator = Coordinator(
        CoordinatorSettings(namespace="simulated"),
        log=MemoryLog(),
        telemetry=MemoryRecords(),
        scaling=MemoryRecords(),
        blobs=FileBlobStore(directory / "blobs"),
        clock=clock,
        token="simulated",
    )
    await coordinator.start()
    process = psutil.Process()
    costs = []
    gc.collect()
    empty = process.memory_info().rss
    try:
        async with SimulatedFleet(coordinator.desk, clock) as fleet:
            for size in sizes:
                await fleet.grow(size - len(fleet.workers))
                grown = process.memory_info().rss - empty
                share, rate = await _idle(fleet)
                seconds = await _work(coordinator, task_count, f"run-{size}")
                interval = coordinator.desk.sessions.heartbeat_seconds
                costs.append(FleetCost(size, interval, rate, share, grown / size, seconds))
    finally:
        await coordinator.stop()
    return costs


async def _idle(fleet: SimulatedFleet) -> tuple[float, float]:
    """Share of a core and messages a second, once the pulses follow the interval."""
    longest = max(worker.pulse.heartbeat_seconds for worker in fleet.workers)
    await asyncio.sleep(longest + 1.0)  # noqa: TID251  # a benchmark's pause: each has then been told
    cpu, said, begun = time.process_time(), fleet.message_count, time.perf_counter()
    await asyncio.sleep(MEASURED_SECONDS)  # noqa: TID251
    wall = time.perf_counter() - begun
    return (time.process_time() - cpu) / wall, (fleet.message_count - said) / wall


async def _work(coordinator: Coordinator, count: int, name: str) -> float:
    """Processor time a task of a run of no-ops."""
    desk = coordinator.desk
    template = common_pb2.TaskTemplate(
        callable=common_pb2.CallableSpec(function="bench.noop:nothing"),
        retry=common_pb2.RetryPolicy(infrastructure_retries=1),
    )
    request = run_service_pb2.CreateRunRequest(request_id=name, suite="simulated", templates=[template])
    await desk.writer.submit(CreateRun(name, request))
    cpu = time.process_time()
    for batch, first in enumerate(range(0, count, BATCH), start=1):
        specs = [common_pb2.TaskSpec(name=f"t{n}") for n in range(first, min(count, first + BATCH))]
        submit = run_service_pb2.SubmitTasksRequest(run_id=name, batch=batch, tasks=specs)
        submit.seal = first + BATCH >= count
        await desk.writer.submit(SubmitTasks(submit), weight=submit.ByteSize())
    run = desk.state.runs[name]
    while not run.is_terminal:
        await desk.bell.wait(desk.bell.next())
    return (time.process_time() - cpu) / count
