"""`python -m bench.commit_costs`: what a commit costs each part, by thread, at fixed rates of single tasks.

Tasks arrive one by one (Poisson, an open loop). Processor time, time spent waiting for a processor
and sleeps are those of Linux's own count for every thread (/proc/<pid>/task/*/schedstat), so that
two versions can be compared on a machine that others use as well: run them in turn, and compare
processor time a commit. Latencies printed beside it are the machine's as much as ours.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich import box
from rich.console import Console
from rich.table import Table

from bench.bench_stack import NAMESPACE, BenchStack
from bench.throughput_load import Load, under_load
from bench.throughput_ours import in_batches, quantile, start, tune_collector
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.system_clock import SystemClock
from dtf.client.client import Client
from dtf.rpc.channel import Peer, parse_addresses

WARM_UP = 2_000
SETTLE_SECONDS = 4.0
"""From the first arrival: each worker takes a warm process for the run and starts the next spare one."""
SHARE_SHOWN = 0.005
"""Threads that use less of a processor are left out."""


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """What Linux counted for a thread since it began."""

    name: str
    on_processor: float
    """Seconds it ran."""
    in_line: float
    """Seconds it could have run and waited for a processor."""
    sleeps: int
    """Times it gave its processor up to wait for something."""

    def since(self, before: "ThreadTimes | None") -> "ThreadTimes":
        """The difference."""
        if before is None:
            return self
        return ThreadTimes(
            self.name,
            self.on_processor - before.on_processor,
            self.in_line - before.in_line,
            self.sleeps - before.sleeps,
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """Everything that was counted up to a moment."""

    at: float
    """Seconds of a clock that never falls."""
    commits: int
    threads: Mapping[tuple[str, int], ThreadTimes]
    """By part and thread id."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="1000,10000", help="tasks a second, one after the other")
    parser.add_argument("--seconds", type=float, default=8.0, help="time measured at each rate")
    options = parser.parse_args()
    rates = [float(rate) for rate in options.rates.split(",")]
    with tempfile.TemporaryDirectory(prefix="dtf-bench-") as directory:
        asyncio.run(measure(Path(directory), rates, options.seconds))


async def measure(directory: Path, rates: list[float], seconds: float) -> None:
    """Start the parts; print a table for each rate."""
    async with BenchStack(directory) as stack:
        peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
        async with Client(peer) as client:
            for _ in range(2):
                await stack.add_worker()
            await in_batches(client, WARM_UP)
            tune_collector()
            for rate in rates:
                await stack.rest()
                run = await start(client)
                async with asyncio.TaskGroup() as group:
                    loading = group.create_task(under_load(run, rate, 1, seconds))
                    moments = await observe(stack, seconds)
                print_table(loading.result(), *moments)


async def observe(stack: BenchStack, seconds: float) -> tuple[Moment, Moment]:
    """What was counted when the load had settled, and `seconds` later."""
    log = await JetStreamLog.attach(stack.settings.nats, NAMESPACE, SystemClock())
    try:
        await asyncio.sleep(SETTLE_SECONDS)  # noqa: TID251  # the time that is left out
        first = await moment(stack, log)
        await asyncio.sleep(seconds)  # noqa: TID251  # the time that is measured
        return first, await moment(stack, log)
    finally:
        await log.close()


async def moment(stack: BenchStack, log: JetStreamLog) -> Moment:
    """Everything counted up to now."""
    assert stack.coordinator is not None
    parts = {"client": [psutil.Process()], "coordinator": [stack.coordinator]}
    parts |= {"nats-server": [stack.nats_process], "workers": list(stack.workers)}
    parts["their processes"] = [
        child for worker in stack.workers for child in worker.children(recursive=True)
    ]
    threads: dict[tuple[str, int], ThreadTimes] = {}
    for part, processes in parts.items():
        for process in processes:
            threads.update({(part, thread): times for thread, times in thread_times(process.pid).items()})
    commits = (await log.head()).last_sequence
    return Moment(time.perf_counter(), commits, threads)


def thread_times(pid: int) -> dict[int, ThreadTimes]:
    """Of every thread of a process; of one that is gone, none."""
    found: dict[int, ThreadTimes] = {}
    directory = Path(f"/proc/{pid}/task")
    for task in directory.iterdir() if directory.is_dir() else ():
        try:
            ran, waited, _slices = map(int, (task / "schedstat").read_text().split())
            status = (task / "status").read_text()
            name = (task / "comm").read_text().strip()
        except OSError:
            continue
        sleeps = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        label = f"{name}, main" if int(task.name) == pid else name
        found[int(task.name)] = ThreadTimes(label, ran / 1e9, waited / 1e9, sleeps)
    return found


def print_table(load: Load, first: Moment, last: Moment) -> None:
    """A row for each part, and below it one for each of its threads that did anything."""
    wall, commits = last.at - first.at, max(1, last.commits - first.commits)
    tasks = load.rate * wall
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading in ("µs a commit", "µs a task", "of a processor", "in line for one", "sleeps a commit"):
        table.add_column(heading, justify="right")
    for part in dict.fromkeys(part for part, _ in last.threads):
        rows = [times.since(first.threads.get(key)) for key, times in last.threads.items() if key[0] == part]
        whole = ThreadTimes(
            part,
            sum(row.on_processor for row in rows),
            sum(row.in_line for row in rows),
            sum(row.sleeps for row in rows),
        )
        shown = [row for row in rows if row.on_processor > SHARE_SHOWN * wall]
        shown.sort(key=lambda row: row.on_processor, reverse=True)
        for row in (whole, *shown):
            table.add_row(
                row.name if row is whole else f"  {row.name}",
                f"{row.on_processor / commits * 1e6:,.0f}",
                f"{row.on_processor / tasks * 1e6:,.1f}",
                f"{row.on_processor / wall:.1%}",
                f"{row.in_line / wall:.1%}",
                f"{row.sleeps / commits:.1f}",
            )
    console = Console(width=120)
    console.print(table)
    console.print(
        f"  {load.rate:,.0f} tasks/s, {commits / wall:,.0f} commits/s of {tasks / commits:.1f} tasks; p50 / p99: "
        f"dispatch {_milliseconds(load.dispatch)}, verdict {_milliseconds(load.verdict)}",
        soft_wrap=True,
        highlight=False,
    )


def _milliseconds(values: list[float]) -> str:
    return f"{quantile(values, 0.5) * 1e3:.1f} / {quantile(values, 0.99) * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
