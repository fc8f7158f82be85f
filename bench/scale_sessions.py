"""Idle sessions over real connections: what a fleet that waits for work costs the coordinator and the broker."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.bench_stack import READY_TIMEOUT_SECONDS, BenchStack, cpu_seconds

SESSIONS_A_PROCESS = 500
SETTLE_SECONDS = 10.0
"""Until attached workers have been told how often to be heard from, and follow it."""
MEASURED_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What idle sessions cost; shares are of one core."""

    sessions: int
    open_seconds: float
    """Until the last was attached."""
    coordinator_share: float
    broker_share: float
    coordinator_bytes_a_session: float


async def measure_idle_sessions(directory: Path, count: int) -> IdleCost:
    """Attach `count` idle workers to a real coordinator and watch its processor time."""
    async with BenchStack(directory) as stack:
        assert stack.coordinator is not None
        memory = stack.coordinator.memory_info().rss
        begun = time.perf_counter()
        crowds = await _attach(stack, directory, count)
        opened = time.perf_counter() - begun
        try:
            await asyncio.sleep(SETTLE_SECONDS)  # noqa: TID251  # a benchmark's pause
            coordinator, broker = await _shares(stack)
            grown = stack.coordinator.memory_info().rss - memory
        finally:
            for crowd in crowds:
                crowd.terminate()
            await asyncio.gather(*(crowd.wait() for crowd in crowds))
    return IdleCost(count, opened, coordinator, broker, grown / count)


async def _attach(stack: BenchStack, directory: Path, count: int) -> list[asyncio.subprocess.Process]:
    """Processes that hold `count` sessions between them, all attached."""
    crowds = []
    for first in range(0, count, SESSIONS_A_PROCESS):
        size = min(SESSIONS_A_PROCESS, count - first)
        known = stack.settings.worker.server, str(directory / "token")
        process = await stack.start_beside("bench.idle_workers", *known, str(size), str(first))
        crowds.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(READY_TIMEOUT_SECONDS + size):
            line = await process.stdout.readline()
        if not line or not json.loads(line)["ready"]:
            raise RuntimeError("idle workers could not attach")
    return crowds


async def _shares(stack: BenchStack) -> tuple[float, float]:
    """Processor time of coordinator and broker a second of wall time."""
    before = _used(stack.coordinator), _used(stack.nats_process), time.perf_counter()
    await asyncio.sleep(MEASURED_SECONDS)  # noqa: TID251  # what is measured is a time of rest
    after = _used(stack.coordinator), _used(stack.nats_process), time.perf_counter()
    wall = after[2] - before[2]
    return (after[0] - before[0]) / wall, (after[1] - before[1]) / wall


def _used(process: psutil.Process | None) -> float:
    return cpu_seconds(process)
