"""`make bench NAME=throughput`: 20,000 no-op tasks, ours and the peers', in one run on this machine.

Ours is the whole line with every commit fsynced; the peers keep tasks in memory. The ratio is our
rate in batches over the peer's (above 1: we are faster). What we count is read back from the log:
each no-op has a lease, a fence and a verdict of its own, or the benchmark fails.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.throughput_load import Load
from bench.throughput_ours import Ours, measure, median, quantile

COUNT = 20_000
ROUNDS = 3
PEER_TIMEOUT_SECONDS = 600
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


@dataclass(frozen=True, slots=True)
class Peer:
    """Something a user would pick instead."""

    name: str
    script_name: str
    requirement: str
    rounds: int
    """Those that take minutes for what we take a second for are measured once."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a peer did."""

    version: str
    settings: str
    rate: float
    """Tasks a second."""
    latencies: list[float]
    """Seconds, of one task at a time."""
    cpu_seconds_a_task: float
    queued_bytes_a_task: float


PEERS = (
    Peer("ProcessPoolExecutor", "pool", "", 3),
    Peer("Ray", "ray", "ray>=2.40", 1),
    Peer("Dask distributed", "dask", "dask[distributed]>=2025.1", 1),
    Peer("Celery + Redis", "celery", "celery[redis]>=5.4", 1),
)


def main() -> int:
    """Measure and print; 1 if the log does not bear our figures out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--count", type=int, default=COUNT, help="tasks a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of ours; the median counts")
    parser.add_argument("--without-peers", action="store_true", help="ours only")
    options = parser.parse_args()
    peers = {} if options.without_peers else measure_peers(options.count)
    say(f"ours: {options.rounds} rounds of {options.count:,} tasks in batches, then one by one")
    try:
        ours = measure_ours(options.count, options.rounds)
    except RuntimeError as error:
        say(f"error: {error}")
        return 1
    print_table(ours, peers, options.count)
    if options.json:
        print(json.dumps(as_json(ours, peers)))
    return 0


def say(words: str) -> None:
    """Progress, apart from the figures."""
    print(words, file=sys.stderr, flush=True)


def measure_ours(count: int, rounds: int) -> Ours:
    """Our figures, in a directory that is gone afterwards; it is kept if something failed."""
    directory = Path(tempfile.mkdtemp(prefix="dtf-bench-"))
    try:
        ours = asyncio.run(measure(directory, count, rounds))
    except BaseException:
        say(f"the logs of the parts are in {directory}")
        raise
    shutil.rmtree(directory)
    return ours


def measure_peers(count: int) -> dict[str, Measured]:
    """What each peer did; a peer that cannot be had here is named and left out."""
    environment = make_environment()
    found: dict[str, Measured] = {}
    for peer in PEERS:
        if not has_peer(environment, peer):
            continue
        say(f"{peer.name}: {count:,} tasks, {peer.rounds} round{'s' * (peer.rounds > 1)}")
        result = run_peer(environment, peer, count)
        if result is not None:
            result["rate"] = median(result.pop("rates"))
            found[peer.name] = Measured(**result)
    return found


def make_environment() -> Path:
    """The interpreter of the peers' environment, outside of the tree; made the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtf" / "bench-peers"
    python = cache / "bin" / "python"
    if not python.exists():
        say(f"making an environment for the peers in {cache}")
        subprocess.run([sys.executable, "-m", "venv", cache], check=True)
    return python


def has_peer(python: Path, peer: Peer) -> bool:
    """Whether the peer can be imported, installed now if need be."""
    if peer.script_name == "celery" and shutil.which("redis-server") is None:
        say("Celery + Redis is left out: there is no redis-server (Debian: apt install redis-server)")
        return False
    if _can_import(python, "psutil") and _can_import(python, peer.script_name):
        return True
    say(f"installing {peer.requirement or 'psutil'} into {python.parent.parent} (once; some hundred MB)")
    done = subprocess.run(
        [python, *PIP, "psutil", *filter(None, [peer.requirement])],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode or not _can_import(python, peer.script_name):
        say(f"{peer.name} is left out: it cannot be installed here ({_last_line(done.stderr)})")
        return False
    return True


def _can_import(python: Path, module: str) -> bool:
    if module == "pool":
        return True
    return not subprocess.run([python, "-c", f"import {module}"], check=False, capture_output=True).returncode


def run_peer(python: Path, peer: Peer, count: int) -> dict[str, Any] | None:
    """What the peer's script measured; None, and a word, if it failed."""
    script = Path(__file__).with_name("throughput_peers.py")
    begun = time.perf_counter()
    try:
        done = subprocess.run(
            [python, script, peer.script_name, str(count), str(peer.rounds)],
            check=False,
            capture_output=True,
            text=True,
            timeout=PEER_TIMEOUT_SECONDS,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        say(f"{peer.name} is left out: not done after {time.perf_counter() - begun:.0f} s")
        return None
    if not done.stdout.strip():
        say(f"{peer.name} is left out: {_last_line(done.stderr)}")
        return None
    result: dict[str, Any] = json.loads(_last_line(done.stdout))
    return result


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def print_table(ours: Ours, peers: dict[str, Measured], count: int) -> None:
    """Ours above, the peers below, what it cost beside it."""
    batches, singles = median(ours.batch_rates), median(ours.single_rates)
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{count:,} no-op tasks, 2 worker processes, {platform.machine()}"
    )
    table.add_column("")
    for heading in ("tasks/s", "ours is faster by", "one task p50 / p99", "CPU a task", "a queued task"):
        table.add_column(heading, justify="right")
    alone = _milliseconds(ours.latencies)
    ours_row = (alone, _microseconds(ours.cpu_seconds_a_task), _bytes(ours.queued_bytes_a_task_in_all))
    table.add_row("dtf, in batches, every commit fsynced", f"{batches:,.0f}", "", *ours_row)
    table.add_row("dtf, each submitted by itself", f"{singles:,.0f}", "", "", "", "")
    for name, peer in peers.items():
        table.add_row(
            f"{name} {peer.version}",
            f"{peer.rate:,.0f}",
            f"{batches / peer.rate:.1f}x",
            _milliseconds(peer.latencies),
            _microseconds(peer.cpu_seconds_a_task),
            _bytes(peer.queued_bytes_a_task),
        )
    console = Console(width=130)
    console.print(table)
    lines = {**_lines_of_ours(ours), **{f"{name} is told": peer.settings for name, peer in peers.items()}}
    for name, value in lines.items():
        console.print(f"  {name:<32}{value}", soft_wrap=True, highlight=False)


def _lines_of_ours(ours: Ours) -> dict[str, str]:
    """What a table has no room for."""
    lines = {
        "rounds in batches": ", ".join(f"{rate:,.0f}" for rate in ours.batch_rates),
        "rounds one by one": ", ".join(f"{rate:,.0f}" for rate in ours.single_rates),
        "processor time a task": (
            f"coordinator {ours.coordinator_seconds_a_task * 1e6:.1f} µs, "
            f"workers {ours.worker_seconds_a_task * 1e6:.1f} µs, "
            f"client {ours.client_seconds_a_task * 1e6:.1f} µs, "
            f"nats-server {ours.broker_seconds_a_task * 1e6:.1f} µs"
        ),
        "memory of a queued task": (
            f"{_bytes(ours.queued_bytes_a_task)} in the coordinator, "
            f"{_bytes(ours.queued_bytes_a_task_in_all)} in all processes, the client's own included"
        ),
    }
    for load in ours.loads:
        kind = "singles" if load.batch == 1 else f"batches of {load.batch}"
        lines[f"half load, {kind}"] = (
            f"{load.rate:,.0f} tasks/s due, {load.achieved:,.0f} done; p50 / p99: "
            f"dispatch {_milliseconds(load.dispatch)}, verdict {_milliseconds(load.verdict)}"
        )
        lines[f"meanwhile, {kind}"] = (
            f"{load.own_processors:.2f} processors for ours, {load.other_processors:.2f} for others "
            f"of {os.cpu_count()}; a sleeper is woken late by {_milliseconds(load.wakeups)}"
        )
    lines["the disk's own fsync"] = f"{_milliseconds(ours.fsync_seconds)} p50 / p99, of 4 KiB, just before"
    lines["read back from the log"] = (
        f"{ours.verified_tasks:,} tasks in {ours.verified_commits:,} commits, "
        "each with a lease, a fence and a verdict of its own; the hash chain is whole"
    )
    return lines


def _milliseconds(latencies: list[float]) -> str:
    return " / ".join(f"{quantile(latencies, share) * 1e3:.1f}" for share in (0.5, 0.99)) + " ms"


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs"


def _bytes(count: float) -> str:
    return f"{count:,.0f} B"


def as_json(ours: Ours, peers: dict[str, Measured]) -> dict[str, Any]:
    """The object that JSON=1 asks for."""
    batches = median(ours.batch_rates)
    return {
        "bench": "throughput",
        "ours": {
            "tasks_per_second": batches,
            "tasks_per_second_one_by_one": median(ours.single_rates),
            "latency_p50_seconds": quantile(ours.latencies, 0.5),
            "latency_p99_seconds": quantile(ours.latencies, 0.99),
            "coordinator_cpu_seconds_a_task": ours.coordinator_seconds_a_task,
            "workers_cpu_seconds_a_task": ours.worker_seconds_a_task,
            "client_cpu_seconds_a_task": ours.client_seconds_a_task,
            "broker_cpu_seconds_a_task": ours.broker_seconds_a_task,
            "cpu_seconds_a_task": ours.cpu_seconds_a_task,
            "memory_bytes_a_queued_task_in_all": ours.queued_bytes_a_task_in_all,
            "half_load": [_load_as_json(load) for load in ours.loads],
            "fsync_p99_seconds": quantile(ours.fsync_seconds, 0.99),
            "memory_bytes_a_queued_task": ours.queued_bytes_a_task,
            "verified_tasks": ours.verified_tasks,
        },
        "peers": {
            name: {
                "tasks_per_second": peer.rate,
                "version": peer.version,
                "latency_p50_seconds": quantile(peer.latencies, 0.5),
                "latency_p99_seconds": quantile(peer.latencies, 0.99),
                "cpu_seconds_a_task": peer.cpu_seconds_a_task,
                "memory_bytes_a_queued_task": peer.queued_bytes_a_task,
            }
            for name, peer in peers.items()
        },
        "ratio": {name: batches / peer.rate for name, peer in peers.items()},
    }


def _load_as_json(load: Load) -> dict[str, float]:
    return {
        "tasks_per_second": load.rate,
        "tasks_per_second_done": load.achieved,
        "batch": load.batch,
        "dispatch_p50_seconds": quantile(load.dispatch, 0.5),
        "dispatch_p99_seconds": quantile(load.dispatch, 0.99),
        "verdict_p50_seconds": quantile(load.verdict, 0.5),
        "verdict_p99_seconds": quantile(load.verdict, 0.99),
        "wakeup_p99_seconds": quantile(load.wakeups, 0.99),
        "own_processors": load.own_processors,
        "other_processors": load.other_processors,
    }


if __name__ == "__main__":
    sys.exit(main())
