"""No-op tasks through the real parts: client, coordinator, fsynced log, two workers."""

import asyncio
import gc
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from bench.bench_stack import NAMESPACE, BenchStack, cpu_seconds, tree_cpu_seconds
from bench.log_count import count_runs
from bench.throughput_load import BATCH, Load, under_load
from bench.wakeups import Wakeups
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.rpc.channel import Peer, parse_addresses

FUNCTION = "bench.noop:nothing"
WARM_UP = 2_000
CALLERS = 512
LATENCY_SAMPLES = 200
QUEUED = 100_000
ROOT = str(Path(__file__).parent.parent)


@dataclass(slots=True)
class Ours:
    """What was measured; rates in tasks a second, latencies in seconds."""

    batch_rates: list[float] = field(default_factory=list)
    single_rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    coordinator_seconds_a_task: float = 0.0
    worker_seconds_a_task: float = 0.0
    client_seconds_a_task: float = 0.0
    broker_seconds_a_task: float = 0.0
    queued_bytes_a_task: float = 0.0
    """Growth of the coordinator."""
    queued_bytes_a_task_in_all: float = 0.0
    """Growth of all processes, the client and the broker's page of the log included."""
    loads: list[Load] = field(default_factory=list)
    """At half of the median rate of singles, and of batches."""
    fsync_seconds: list[float] = field(default_factory=list)
    """What the disk takes to make 4 KiB durable, between the rounds of load."""
    verified_tasks: int = 0
    verified_commits: int = 0

    @property
    def cpu_seconds_a_task(self) -> float:
        """Processor time of all processes."""
        return (
            self.coordinator_seconds_a_task
            + self.worker_seconds_a_task
            + self.client_seconds_a_task
            + self.broker_seconds_a_task
        )


def specs(count: int) -> list[common_pb2.TaskSpec]:
    """No-ops, each with a name of its own."""
    return [common_pb2.TaskSpec(name=f"nothing[{index}]") for index in range(count)]


async def start(client: Client, requirements: common_pb2.Requirements | None = None) -> RunHandle:
    """An empty run of no-ops."""
    template = common_pb2.TaskTemplate(
        callable=common_pb2.CallableSpec(function=FUNCTION, import_path=[ROOT]),
        requirements=requirements,
        retry=common_pb2.RetryPolicy(infrastructure_retries=1),
    )
    return await client.create_run(run_service_pb2.CreateRunRequest(suite="throughput", templates=[template]))


async def in_batches(client: Client, count: int) -> tuple[str, float]:
    """Submit many at once, wait for all; the run and the tasks a second."""
    tasks = specs(count)
    run = await start(client)
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(run.result())
        await run.submit_many(tasks)
        await run.seal()
    elapsed = time.perf_counter() - begun
    _must_have_passed(ended.result(), count)
    return run.run_id, count / elapsed


async def one_by_one(client: Client, count: int) -> tuple[str, float]:
    """Each task submitted by itself, by concurrent callers that wait for its acknowledgement."""
    run = await start(client)
    waiting = iter(specs(count))

    async def caller() -> None:
        for task in waiting:
            await run.submit(task)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        ended = group.create_task(run.result())
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(caller())
        await run.seal()
    elapsed = time.perf_counter() - begun
    _must_have_passed(ended.result(), count)
    return run.run_id, count / elapsed


async def alone(client: Client, count: int) -> tuple[str, list[float]]:
    """One task at a time: seconds from its submission to its verdict."""
    run = await start(client)
    latencies: list[float] = []
    watch = run.watch(event_types=["results_accepted"])
    for task in specs(count):
        begun = time.perf_counter()
        await run.submit(task)
        async for watched in watch:
            if watched.event is not None and watched.event.HasField("results_accepted"):
                break
        latencies.append(time.perf_counter() - begun)
    await run.seal()
    async for _ in watch:
        pass
    return run.run_id, latencies


def _must_have_passed(run: run_service_pb2.Run, count: int) -> None:
    if run.counts.passed != count:
        raise RuntimeError(f"{run.counts.passed} of {count} no-ops passed: {run}")


async def measure(directory: Path, count: int, rounds: int) -> Ours:
    """Start the parts, measure, read the log."""
    ours = Ours()
    verify: dict[str, int] = {}
    async with BenchStack(directory) as stack:
        peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
        async with Client(peer) as client:
            for _ in range(2):
                await stack.add_worker()
            await in_batches(client, WARM_UP)
            tune_collector()
            for _ in range(rounds):
                await stack.rest()
                before = _Times(stack)
                run_id, rate = await in_batches(client, count)
                before.add_to(ours, count * rounds)
                verify[run_id] = count
                ours.batch_rates.append(rate)
            for _ in range(rounds):
                await stack.rest()
                run_id, rate = await one_by_one(client, count)
                verify[run_id] = count
                ours.single_rates.append(rate)
            await stack.rest()
            run_id, ours.latencies = await alone(client, LATENCY_SAMPLES)
            verify[run_id] = LATENCY_SAMPLES
            for rate, batch in ((median(ours.single_rates) / 2, 1), (median(ours.batch_rates) / 2, BATCH)):
                await stack.rest()
                ours.fsync_seconds += fsync_times(directory)
                run = await start(client)
                with _Machine(stack) as machine, Wakeups() as wakeups:
                    load = await under_load(run, rate, batch)
                load.wakeups = wakeups.late_seconds
                load.own_processors, load.other_processors = machine.own, machine.other
                ours.loads.append(load)
                verify[run.run_id] = ours.loads[-1].task_count
            await _queued_bytes(stack, client, ours)
        await _verify(stack, ours, verify)
    return ours


class _Times:
    """Processor time of the parts between two moments."""

    def __init__(self, stack: BenchStack) -> None:
        self._stack = stack
        self._client = time.process_time()
        self._coordinator = cpu_seconds(stack.coordinator)
        self._broker = cpu_seconds(stack.nats_process)
        self._workers = sum(map(tree_cpu_seconds, stack.workers))

    def add_to(self, ours: Ours, count: int) -> None:
        """Add the time since then, a task of `count`."""
        now = _Times(self._stack)
        ours.client_seconds_a_task += (now._client - self._client) / count
        ours.coordinator_seconds_a_task += (now._coordinator - self._coordinator) / count
        ours.broker_seconds_a_task += (now._broker - self._broker) / count
        ours.worker_seconds_a_task += (now._workers - self._workers) / count


class _Machine:
    """Processors used during a `with` block, by the parts and by everything else."""

    def __init__(self, stack: BenchStack) -> None:
        self._stack = stack
        self.own = self.other = 0.0

    def __enter__(self) -> Self:
        self._begun = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        wall, own, busy = (now - then for now, then in zip(self._read(), self._begun, strict=True))
        self.own, self.other = own / wall, max(0.0, busy - own) / wall

    def _read(self) -> tuple[float, float, float]:
        stack, machine = self._stack, psutil.cpu_times()
        own = time.process_time() + cpu_seconds(stack.coordinator) + cpu_seconds(stack.nats_process)
        own += sum(map(tree_cpu_seconds, stack.workers))
        return time.perf_counter(), own, sum(machine) - machine.idle - machine.iowait


async def _queued_bytes(stack: BenchStack, client: Client, ours: Ours) -> None:
    """Growth by a queue of tasks that no worker can take."""
    assert stack.coordinator is not None
    run = await start(client, common_pb2.Requirements(labels={"bench": "nobody"}))
    tasks = specs(QUEUED)
    await run.submit_many(tasks[: QUEUED // 10])
    before, before_in_all = _own_bytes([stack.coordinator]), _own_bytes(_everything(stack))
    await run.submit_many(tasks)
    ours.queued_bytes_a_task = (_own_bytes([stack.coordinator]) - before) / QUEUED
    ours.queued_bytes_a_task_in_all = (_own_bytes(_everything(stack)) - before_in_all) / QUEUED
    await run.cancel("measured")


def _everything(stack: BenchStack) -> list[psutil.Process]:
    """Every process that takes part, this one too."""
    assert stack.coordinator is not None
    below = [child for worker in stack.workers for child in worker.children(recursive=True)]
    return [psutil.Process(), stack.coordinator, stack.nats_process, *stack.workers, *below]


def _own_bytes(processes: list[psutil.Process]) -> int:
    """Memory that no other process shares."""
    total = 0
    for process in processes:
        try:
            total += int(process.memory_full_info().uss)
        except psutil.NoSuchProcess:
            continue
    return total


def tune_collector() -> None:
    """As the coordinator does: a client that holds 20,000 tasks is otherwise searched again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def fsync_times(directory: Path, count: int = 100) -> list[float]:
    """How long 4 KiB take to be durable on this disk, now."""
    times = []
    with (directory / "fsync").open("wb") as file:
        for _ in range(count):
            file.write(bytes(4096))
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return times


async def _verify(stack: BenchStack, ours: Ours, expected: dict[str, int]) -> None:
    log = await JetStreamLog.open(stack.settings.nats, NAMESPACE, SystemClock())
    try:
        runs = await count_runs(log)
    finally:
        await log.close()
    for run_id, count in expected.items():
        faults = runs[run_id].faults(count)
        if faults:
            raise RuntimeError(f"the log does not bear run {run_id} out: {'; '.join(faults)}")
        ours.verified_tasks += count
        ours.verified_commits += runs[run_id].commit_count


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
