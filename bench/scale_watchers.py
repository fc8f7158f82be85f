"""Watchers of one busy run: what each costs the coordinator, and what those that do not read cost it."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bench_stack import READY_TIMEOUT_SECONDS, BenchStack, cpu_seconds
from bench.throughput_ours import in_batches, specs, start
from dtf.client.client import Client
from dtf.rpc.channel import Peer, parse_addresses

WARM_UP = 2_000
END_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class WatchCost:
    """A run of no-ops under the eyes of watchers."""

    keen: int
    stuck: int
    """Those that read one message and then nothing."""
    tasks_per_second: float
    coordinator_seconds: float
    """Processor time of the coordinator for the run."""
    messages: float
    """That each keen watcher got, on average."""
    memory_growth_bytes: int
    """Of the coordinator, from before the run to its end."""


async def measure_watchers(
    directory: Path, audiences: Sequence[tuple[int, int]], count: int
) -> list[WatchCost]:
    """One run of `count` no-ops for each audience (keen, stuck), on one stack of two workers."""
    async with BenchStack(directory) as stack:
        peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
        async with Client(peer) as client:
            for _ in range(2):
                await stack.add_worker()
            await in_batches(client, WARM_UP)
            return [
                await _watched_run(stack, client, directory, keen, stuck, count) for keen, stuck in audiences
            ]


async def _watched_run(
    stack: BenchStack, client: Client, directory: Path, keen: int, stuck: int, count: int
) -> WatchCost:
    assert stack.coordinator is not None
    await stack.rest()
    run = await start(client)
    audience = await _seat(stack, directory, run.run_id, keen, stuck) if keen + stuck else None
    tasks = specs(count)
    memory, cpu, begun = (
        stack.coordinator.memory_info().rss,
        cpu_seconds(stack.coordinator),
        time.perf_counter(),
    )
    await run.submit_many(tasks)
    await run.seal()
    await run.result()
    elapsed = time.perf_counter() - begun
    heard: list[tuple[int, int]] = []
    if audience is not None:
        assert audience.stdout is not None
        async with asyncio.timeout(END_SECONDS):
            heard = json.loads(await audience.stdout.readline())
            await audience.wait()
    used = cpu_seconds(stack.coordinator) - cpu
    grown = stack.coordinator.memory_info().rss - memory
    messages = sum(messages for _size, messages in heard) / keen if keen else 0.0
    return WatchCost(keen, stuck, count / elapsed, used, messages, grown)


async def _seat(
    stack: BenchStack, directory: Path, run_id: str, keen: int, stuck: int
) -> asyncio.subprocess.Process:
    """A process with all the watchers, attached."""
    known = stack.settings.worker.server, str(directory / "token")
    process = await stack.start_beside("bench.watchers", *known, run_id, str(keen + stuck), str(keen))
    assert process.stdout is not None
    async with asyncio.timeout(READY_TIMEOUT_SECONDS):
        if not await process.stdout.readline():
            raise RuntimeError("the watchers could not attach")
    return process
