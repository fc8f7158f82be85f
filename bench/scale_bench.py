"""`make bench NAME=scale`: what one coordinator bears, and what a second adds. PART=… measures one part.

    queue       a million queued tasks: memory, and dispatch latency against a thousand queued
    sessions    a thousand idle sessions over real connections: processor time of the coordinator
    simulated   up to 20,000 workers over streams in memory: idle, and at work
    watchers    10 and 100 watchers of a busy run, and 50 that do not read
    flood       clients that keep to no pace: memory of the coordinator
    namespaces  one coordinator and two on one broker

Rates depend on the machine and on what else it does; shares and ratios are of one run.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.scale_flood import measure_flood
from bench.scale_namespaces import measure_namespaces
from bench.scale_queue import measure_queue
from bench.scale_sessions import measure_idle_sessions
from bench.scale_simulated import measure_fleets
from bench.scale_watchers import measure_watchers

MANY = 1_000_000
MEBI = 2**20
AUDIENCES = ((0, 0), (10, 0), (100, 0), (1, 50))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), action="append", help="only this part")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.part or PARTS:
        print(f"{name}: measuring", file=sys.stderr, flush=True)
        lines, found[name] = _in_directory(PARTS[name])
        print(f"\n{name}")
        for line in lines:
            print(f"  {line}", flush=True)
    if options.json:
        print(json.dumps({"bench": "scale", **found}))
    return 0


def _in_directory(part: "Part") -> "Found":
    """Run a part in a directory that is gone afterwards; it is kept if something failed."""
    directory = Path(tempfile.mkdtemp(prefix="dtf-scale-"))
    try:
        found = part(directory)
    except BaseException:
        print(f"the logs of the parts are in {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)
    return found


Found = tuple[Sequence[str], Any]
Part = Callable[[Path], Found]


def queue(directory: Path) -> Found:
    """A million queued tasks."""
    few, many = asyncio.run(measure_queue(directory, MANY))
    return [
        f"{many.queued:,} tasks queued at {many.tasks_per_second:,.0f} tasks/s, each durable before it counts",
        f"coordinator: {many.bytes_a_task:.0f} bytes and {many.coordinator_seconds_a_task * 1e6:.1f} µs a task",
        f"a task of another run past them: p50 {many.p50_seconds * 1e3:.1f} ms, p99 {many.p99_seconds * 1e3:.1f} ms; "
        f"past {few.queued:,}: p50 {few.p50_seconds * 1e3:.1f} ms, p99 {few.p99_seconds * 1e3:.1f} ms; "
        f"ratio of the medians {many.p50_seconds / few.p50_seconds:.2f}",
    ], [asdict(few), asdict(many)]


def sessions(directory: Path) -> Found:
    """Idle sessions over real connections."""
    costs = []
    for count in (100, 1_000):
        place = directory / str(count)
        place.mkdir()
        costs.append(asyncio.run(measure_idle_sessions(place, count)))
    return [
        f"{cost.sessions:,} idle sessions: {cost.coordinator_share:.3f} of a core in the coordinator, "
        f"{cost.broker_share:.3f} in nats-server; {cost.coordinator_bytes_a_session / 1024:.0f} KiB a session; "
        f"all attached after {cost.open_seconds:.1f} s"
        for cost in costs
    ], [asdict(cost) for cost in costs]


def simulated(directory: Path) -> Found:
    """Workers in memory."""
    costs = asyncio.run(measure_fleets(directory, (10, 100, 1_000, 20_000), 20_000))
    return [
        f"{cost.workers:>6,} workers: a heartbeat every {cost.heartbeat_seconds:.1f} s, "
        f"{cost.messages_per_second:.0f} messages/s, {cost.idle_share:.3f} of a core idle; "
        f"{cost.bytes_a_worker / 1024:.0f} KiB a worker; {cost.task_seconds * 1e6:.0f} µs a no-op at work"
        for cost in costs
    ], [asdict(cost) for cost in costs]


def watchers(directory: Path) -> Found:
    """Watchers of a busy run."""
    costs = asyncio.run(measure_watchers(directory, AUDIENCES, 50_000))
    alone = costs[0]
    return [
        f"{cost.keen:>3} that read, {cost.stuck:>2} that do not: {cost.tasks_per_second:,.0f} tasks/s "
        f"({cost.tasks_per_second / alone.tasks_per_second:.2f} of unwatched), coordinator "
        f"{cost.coordinator_seconds:.2f} s ({cost.coordinator_seconds / alone.coordinator_seconds:.2f}), "
        f"{cost.messages:.0f} messages to each, memory {cost.memory_growth_bytes / MEBI:+.0f} MiB"
        for cost in costs
    ], [asdict(cost) for cost in costs]


def flood(directory: Path) -> Found:
    """Clients without manners."""
    cost = asyncio.run(measure_flood(directory, 200))
    return [
        f"{cost.streams} concurrent streams offered {cost.offered_bytes / MEBI:,.0f} MiB: "
        f"{cost.accepted} messages taken, {cost.refused} told to come back later, others {cost.other_ends or 'none'}",
        f"coordinator: {cost.memory_growth_bytes / MEBI:.0f} MiB more at its highest",
    ], asdict(cost)


def namespaces(directory: Path) -> Found:
    """One coordinator and two."""
    one, two = asyncio.run(measure_namespaces(directory, 20_000))
    return [
        f"{cost.coordinators} coordinator{'s' * (cost.coordinators > 1)}: {cost.tasks_per_second:,.0f} tasks/s, "
        f"coordinators {cost.coordinator_seconds_a_task * 1e6:.1f} µs and nats-server "
        f"{cost.broker_seconds_a_task * 1e6:.1f} µs of processor time a task"
        for cost in (one, two)
    ] + [f"ratio {two.tasks_per_second / one.tasks_per_second:.2f}, on the same two cores"], [
        asdict(one),
        asdict(two),
    ]


PARTS: dict[str, Part] = {
    "queue": queue,
    "sessions": sessions,
    "simulated": simulated,
    "watchers": watchers,
    "flood": flood,
    "namespaces": namespaces,
}


if __name__ == "__main__":
    sys.exit(main())
