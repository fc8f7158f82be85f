"""`make bench NAME=takeover`: how long nobody leads when the leader is killed, stopped, or told to stop.

A real broker that fsyncs every append, a leader, a standby, two workers with attempts under way, a
client that submits one task after the other. Each fault strikes whichever leads; whoever ended is
started again as a standby. What is counted is read back from the log:

    gap       from the old leader's last commit to the new one's first that grants or accepts work
    submit    the longest that one submission waited, as the client saw it
    lost      attempts that ended otherwise than by reporting; repeated: tasks tried more than once

The old leader's last commit is before the fault, by as much as it was idle: the gap is an upper bound.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench.nats_cluster import NatsCluster
from bench.takeover_system import NAMESPACE, TakeoverSystem
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.core.chain import ChainReader
from dtf.settings.model import NatsSettings, WorkerSettings

FAULTS = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP, "SIGTERM": signal.SIGTERM}
WORK = ("leases_granted", "results_accepted", "tasks_submitted")
CALM_SECONDS = 1.0
"""Between two faults: attempts are under way again, and the standby has caught up."""
ATTEMPT_SECONDS = 0.4
AIM_SECONDS = 3.0


@dataclass
class Takeover:
    """One fault and what followed."""

    fault: str
    epoch: int
    """Of the reign that it ended."""
    leads_seconds: float = 0.0
    """From the fault until the next one said that it leads."""
    submit_seconds: float = 0.0
    gap_seconds: float = 0.0


@dataclass
class Books:
    """What the log says of all of it."""

    tasks: int = 0
    verdicts: int = 0
    lost: int = 0
    repeated: int = 0
    twice: int = 0
    workers_lost: int = 0
    strangers: int = 0
    last_ns: dict[int, int] = field(default_factory=dict)
    """Time of each reign's last commit, by epoch."""
    work_ns: dict[int, int] = field(default_factory=dict)
    """Time of each reign's first commit that grants or accepts work."""


class Submitter:
    """Submits one task after the other, and remembers how long each waited."""

    def __init__(self, run: RunHandle) -> None:
        self._run = run
        self._is_over = False
        self.waits: list[tuple[float, float]] = []
        """(begun, answered) of each."""

    async def work(self) -> None:
        """Submit until told to end."""
        payload = json.dumps(["sleep", str(ATTEMPT_SECONDS)])
        while not self._is_over:
            began = time.monotonic()
            await self._run.submit(common_pb2.TaskSpec(name=f"task-{len(self.waits)}", payload=payload))
            self.waits.append((began, time.monotonic()))
            await SystemClock().sleep(ATTEMPT_SECONDS / 4)
        await self._run.seal()

    def end(self) -> None:
        """Submit no more."""
        self._is_over = True

    def longest_since(self, moment: float) -> float:
        """The longest wait of a submission that was answered after `moment`."""
        return max((end - begin for begin, end in self.waits if end >= moment), default=0.0)


def main() -> int:
    """Measure and print; 1 if anything was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--faults", type=int, default=10, help="of each kind")
    parser.add_argument("--without-cluster", action="store_true", help="one broker node only")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(prefix="dtf-takeover-") as directory:
        for nodes in (1,) if options.without_cluster else (1, 3):
            say(f"{nodes} broker node{'s' if nodes > 1 else ''}: {options.faults} faults of each kind")
            path = Path(directory) / f"nodes-{nodes}"
            path.mkdir()
            found[nodes] = asyncio.run(measure(path, nodes, options.faults))
            print_table(nodes, *found[nodes])
    if options.json:
        print(json.dumps({str(nodes): as_json(*result) for nodes, result in found.items()}))
    return 1 if any(faults_in(books) for _, books in found.values()) else 0


async def measure(directory: Path, nodes: int, count: int) -> tuple[list[Takeover], Books]:
    """Strike `count` times with each kind of fault, in turn."""
    async with broker(directory, nodes) as nats:
        worker = WorkerSettings(slots=2, credits=2)
        async with TakeoverSystem(directory, nats, worker=worker) as system, Client(system.peer) as client:
            request = run_service_pb2.CreateRunRequest(
                suite="takeover",
                templates=[
                    common_pb2.TaskTemplate(
                        command=common_pb2.CommandSpec(),
                        retry=common_pb2.RetryPolicy(infrastructure_retries=10),
                    )
                ],
            )
            run = await client.create_run(request)
            submitter = Submitter(run)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(submitter.work())
                takeovers = await strike(system, client, submitter, count)
                submitter.end()
            await run.result()
        books = await read_books(nats)
    for takeover in takeovers:
        begun, worked = books.last_ns[takeover.epoch], books.work_ns[takeover.epoch + 1]
        takeover.gap_seconds = (worked - begun) / 1e9
    return takeovers, books


async def strike(system: TakeoverSystem, client: Client, submitter: Submitter, count: int) -> list[Takeover]:
    """Faults of each kind in turn, with work under way each time."""
    takeovers = []
    for _ in range(count):
        for name, number in FAULTS.items():
            await SystemClock().sleep(CALM_SECONDS)
            takeover = Takeover(name, (await client.get_fleet()).epoch)
            await strike_once(system, submitter, takeover, number)
            takeovers.append(takeover)
    return takeovers


async def strike_once(
    system: TakeoverSystem, submitter: Submitter, takeover: Takeover, number: signal.Signals
) -> None:
    leader = system.leader
    (standby,) = [item for item in system.coordinators if item is not None and item is not leader]
    struck = time.monotonic()
    leader.signal(number)
    await standby.until_role("leader")
    takeover.leads_seconds = time.monotonic() - struck
    await until_answered(submitter, struck)
    takeover.submit_seconds = submitter.longest_since(struck)
    if number == signal.SIGSTOP:
        leader.signal(signal.SIGCONT)
    await leader.ended()
    again = await system.start_coordinator(system.index_of(leader))
    await again.until_role("standby")


async def until_answered(submitter: Submitter, struck: float) -> None:
    """Return when a submission begun after the fault is durable."""
    async with asyncio.timeout(60):
        while not (submitter.waits and submitter.waits[-1][0] > struck):
            await SystemClock().sleep(0.02)


@asynccontextmanager
async def broker(directory: Path, nodes: int) -> AsyncIterator[NatsSettings]:
    """A broker of one node, or of three with three copies of the log."""
    if nodes > 1:
        async with NatsCluster(directory / "cluster", nodes) as cluster:
            yield cluster.settings
        return
    server = NatsServer(directory / "nats", directory / "secrets" / "nats")
    await server.start()
    try:
        yield NatsSettings(url=server.url, credentials_file=str(server.credentials_file))
    finally:
        await server.stop()


async def read_books(nats: NatsSettings) -> Books:
    """What the whole log says."""
    log = await JetStreamLog.attach(nats, NAMESPACE, SystemClock())
    books, chain = Books(), ChainReader()
    attempts: dict[int, int] = {}
    judged: dict[int, int] = {}
    try:
        async for batch in log.read(0):
            for stored in batch:
                commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
                if commit is not None:
                    enter(books, commit, attempts, judged)
    finally:
        await log.close()
    books.strangers = len(chain.stranger_sequences)
    books.repeated = sum(count > 1 for count in attempts.values())
    books.verdicts, books.twice = len(judged), sum(count > 1 for count in judged.values())
    return books


def enter(books: Books, commit: events_pb2.Commit, attempts: dict[int, int], judged: dict[int, int]) -> None:
    """One commit."""
    books.last_ns[commit.epoch] = commit.now_unix_nanos
    for event in commit.events:
        kind = event.WhichOneof("event")
        if kind in WORK:
            books.work_ns.setdefault(commit.epoch, commit.now_unix_nanos)
        match kind:
            case "tasks_submitted":
                books.tasks += len(event.tasks_submitted.names)
            case "leases_granted":
                count_each(attempts, event.leases_granted.tasks)
            case "leases_released":
                for task in event.leases_released.tasks:
                    attempts[task] -= 1  # it had not begun
            case "results_accepted":
                count_each(judged, event.results_accepted.tasks)
            case "attempts_ended":
                books.lost += len(event.attempts_ended.tasks)
            case "worker_lost":
                books.workers_lost += 1
            case _:
                pass


def count_each(counts: dict[int, int], keys: Sequence[int]) -> None:
    """One more of each."""
    for key in keys:
        counts[key] = counts.get(key, 0) + 1


def faults_in(books: Books) -> bool:
    """Whether anything was lost or done twice."""
    return bool(
        books.lost or books.repeated or books.twice or books.workers_lost or books.tasks != books.verdicts
    )


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def print_table(nodes: int, takeovers: Sequence[Takeover], books: Books) -> None:
    """For people."""
    table = Table(box=box.SIMPLE, title=f"{nodes} broker node{'s' if nodes > 1 else ''}, seconds")
    for column in ("fault", "times", "gap median", "worst", "leads after", "worst", "submit waited", "worst"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for name in FAULTS:
        found = [takeover for takeover in takeovers if takeover.fault == name]
        cells = []
        for key in ("gap_seconds", "leads_seconds", "submit_seconds"):
            values = [float(getattr(takeover, key)) for takeover in found]
            cells += [f"{median(values):.2f}", f"{max(values):.2f}"]
        table.add_row(name, str(len(found)), *cells)
    console = Console(width=110)
    console.print(table)
    worst = max(takeover.gap_seconds for takeover in takeovers)
    console.print(
        f"{books.tasks} tasks, {books.verdicts} verdicts: {books.lost} attempts lost, {books.repeated} repeated, "
        f"{books.twice} judged twice, {books.workers_lost} workers lost, {books.strangers} strange messages; "
        f"worst gap {worst:.2f} s (aim {AIM_SECONDS:g})"
    )


def as_json(takeovers: Sequence[Takeover], books: Books) -> dict[str, object]:
    """For machines."""
    counts = {
        name: getattr(books, name)
        for name in ("tasks", "verdicts", "lost", "repeated", "twice", "workers_lost", "strangers")
    }
    return {"takeovers": [asdict(takeover) for takeover in takeovers], **counts}


def say(text: str) -> None:
    """Progress, beside the result."""
    print(f"[takeover] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
