"""A million queued tasks in one real coordinator: what they cost, and whether a grant is still quick."""

import time
from dataclasses import dataclass
from pathlib import Path

from bench.bench_stack import BenchStack, cpu_seconds
from bench.throughput_ours import alone, in_batches, median, quantile, specs, start
from dtf.api.v1 import common_pb2
from dtf.client.client import Client
from dtf.rpc.channel import Peer, parse_addresses

FEW = 1_000
SAMPLES = 200
WARM_UP = 2_000
PIECE = 50_000


@dataclass(frozen=True, slots=True)
class QueueCost:
    """One queue."""

    queued: int
    tasks_per_second: float
    """As they were submitted, each durable."""
    bytes_a_task: float
    coordinator_seconds_a_task: float
    p50_seconds: float
    """From the submission of one task of another run to its verdict, with these queued."""
    p99_seconds: float
    broker_bytes_a_task: float


async def measure_queue(directory: Path, many: int) -> list[QueueCost]:
    """Dispatch latency with a thousand tasks queued and with `many`, on one stack."""
    async with BenchStack(directory) as stack:
        peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
        async with Client(peer) as client:
            for _ in range(2):
                await stack.add_worker()
            await in_batches(client, WARM_UP)
            few = await _queue(stack, client, directory, FEW, FEW)
            rest = await _queue(stack, client, directory, many - FEW, many)
            return [few, rest]


async def _queue(stack: BenchStack, client: Client, directory: Path, count: int, queued: int) -> QueueCost:
    """Queue `count` more tasks that no worker can take, then run single ones past them."""
    assert stack.coordinator is not None
    run = await start(client, common_pb2.Requirements(labels={"bench": "nobody"}))
    memory, cpu = stack.coordinator.memory_info().rss, cpu_seconds(stack.coordinator)
    stored = _stored_bytes(directory)
    elapsed = 0.0
    for first in range(0, count, PIECE):
        tasks = specs(min(PIECE, count - first))
        begun = time.perf_counter()
        await run.submit_many(tasks)
        elapsed += time.perf_counter() - begun
    used = cpu_seconds(stack.coordinator) - cpu
    grown = stack.coordinator.memory_info().rss - memory
    await stack.rest()
    _run_id, latencies = await alone(client, SAMPLES)
    fleet = await client.get_fleet()
    if fleet.queued_count != queued:
        raise RuntimeError(f"{fleet.queued_count:,} tasks are queued, expected {queued:,}")
    return QueueCost(
        queued,
        count / elapsed,
        grown / count,
        used / count,
        median(latencies),
        quantile(latencies, 0.99),
        (_stored_bytes(directory) - stored) / count,
    )


def _stored_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "nats").rglob("*") if path.is_file())
