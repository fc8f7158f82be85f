"""How long replies take while a snapshot of a million queued tasks is taken, and while none is."""

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bench_stack import BenchStack
from bench.throughput_ours import specs, start
from dtf.client.client import Client
from dtf.rpc.channel import Peer, parse_addresses

CALL_SECONDS = 0.01
"""Between calls, each of which waits for the one before."""
SUBMITTED_AT_ONCE = 10_000


@dataclass(slots=True)
class Replies:
    """Seconds a unary call took; the client and the coordinator share the machine with the snapshot's process."""

    tasks: int
    snapshot_seconds: float
    calls_without: int
    median_without: float
    worst_without: float
    calls_during: int
    median_during: float
    worst_during: float
    p99_without: float
    p99_during: float

    @property
    def added_delay(self) -> float:
        """How much longer the worst reply took while a snapshot was taken."""
        return self.worst_during - self.worst_without

    def report(self, aim_seconds: float) -> None:
        """For people."""
        print(f"\nreplies with {self.tasks:,} tasks queued")
        print(
            f"  no snapshot      worst {self.worst_without * 1e3:6.1f} ms, p99 {self.p99_without * 1e3:6.1f}, median {self.median_without * 1e3:5.2f} ms"
            f" of {self.calls_without} calls"
        )
        print(
            f"  during snapshots worst {self.worst_during * 1e3:6.1f} ms, p99 {self.p99_during * 1e3:6.1f}, median {self.median_during * 1e3:5.2f} ms"
            f" of {self.calls_during} calls (a snapshot took {self.snapshot_seconds:.2f} s)"
        )
        print(f"  added to the worst {self.added_delay * 1e3:6.1f} ms (aim < {aim_seconds * 1e3:.0f})")


def tell(line: str) -> None:
    """What is being done, for who waits."""
    print(line, file=sys.stderr, flush=True)


async def measure_replies(tasks: int, rounds: int = 3) -> Replies:
    """Queue tasks that nobody runs, then ask, with and without a snapshot being taken."""
    with tempfile.TemporaryDirectory(prefix="dtf-bench-") as name:
        directory = Path(name)
        async with BenchStack(directory) as stack:
            peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
            async with Client(peer) as client:
                run = await start(client)
                tell(f"replies: submitting {tasks:,} tasks")
                for first in range(0, tasks, SUBMITTED_AT_ONCE):
                    await run.submit_many(specs(min(SUBMITTED_AT_ONCE, tasks - first)))
                during: list[float] = []
                without: list[float] = []
                taking = 0.0
                for number in range(1, rounds + 1):
                    tell(f"  asking while a snapshot is taken, and while none is: {number} of {rounds}")
                    begun = time.perf_counter()
                    async with _asking(client, run.run_id, during):
                        await _take_snapshot(directory)
                    taking = time.perf_counter() - begun
                    async with _asking(client, run.run_id, without):
                        await asyncio.sleep(taking)  # noqa: TID251  # as long without one
                    # The next snapshot must have something to take.
                    await run.submit_many(specs(1))
    return Replies(
        tasks,
        taking,
        len(without),
        statistics.median(without),
        max(without),
        len(during),
        statistics.median(during),
        max(during),
        statistics.quantiles(without, n=100)[98],
        statistics.quantiles(during, n=100)[98],
    )


async def _take_snapshot(directory: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dtf.cli.main", "--project", str(directory)),
        *("--settings", str(directory / "coordinator.json"), "log", "snapshot"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait():
        raise RuntimeError("no snapshot was taken")


@asynccontextmanager
async def _asking(client: Client, run_id: str, into: list[float]) -> AsyncIterator[None]:
    """Ask for a run again and again while the block runs."""
    stop = asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            await client.get_run(run_id)
            into.append(time.perf_counter() - begun)
            await asyncio.sleep(CALL_SECONDS)  # noqa: TID251

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        try:
            yield
        finally:
            stop.set()
