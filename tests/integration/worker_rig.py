"""A real coordinator over a log in memory, in the test's own loop, and real `dtf worker` processes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.coordinator.process import Coordinator
from dtf.rpc.channel import Peer
from dtf.settings.model import CoordinatorSettings
from tests.ports import kept_address

TOKEN = "secret-of-the-test"
PATIENCE_SECONDS = 90.0
"""Far above what anything takes on a machine that does something else too."""
LEASE_SECONDS = 60.0
"""Unless a test says otherwise: a worker that is only slow is not lost."""


class Rig:
    """One coordinator and what works for it."""

    def __init__(self, directory: Path, settings: CoordinatorSettings, address: str) -> None:
        self.directory = directory
        self.settings = settings
        self.clock = SystemClock()
        self.log = MemoryLog()
        self.telemetry = MemoryRecords()
        self.blobs = FileBlobStore(directory / "blobs")
        self.coordinator: Coordinator | None = None
        self.address = address
        self.workers: list[WorkerProcess] = []
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)

    async def start_coordinator(self) -> None:
        """Start it, or start it anew at the same address."""
        self.coordinator = Coordinator(
            replace(self.settings, listen=self.address),
            log=self.log,
            telemetry=self.telemetry,
            scaling=MemoryRecords(),
            blobs=self.blobs,
            clock=self.clock,
            token=TOKEN,
        )
        await self.coordinator.start()

    async def stop_coordinator(self) -> None:
        """Stop it; the log stays."""
        assert self.coordinator is not None
        await self.coordinator.stop()
        self.coordinator = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the coordinator."""
        async with Client(Peer((self.address,), TOKEN)) as client:
            yield client

    async def worker(self, *options: str, lifeline: int | None = None) -> "WorkerProcess":
        """Start a worker and wait until its session is open."""
        worker = WorkerProcess(self, options, lifeline)
        self.workers.append(worker)
        await worker.ready()
        return worker

    # What the log says.

    def events(self, kind: str) -> Iterator[events_pb2.Event]:
        """Events of one kind, in the order of the log."""
        for stored in self.log.commits:
            for event in events_pb2.Commit.FromString(stored.payload).events:
                if event.WhichOneof("event") == kind:
                    yield event

    def leased(self) -> int:
        """How many leases were granted."""
        return sum(len(event.leases_granted.tasks) for event in self.events("leases_granted"))

    def details(self, task: int) -> list[events_pb2.CaseDetail]:
        """What the cases of a task said, in the order accepted."""
        return [
            events_pb2.CaseDetail.FromString(accepted.details[n])
            for event in self.events("results_accepted")
            for accepted in (event.results_accepted,)
            for n, index in enumerate(accepted.tasks)
            if index == task and accepted.details
        ]

    def accepted(self) -> dict[tuple[int, int], list["common_pb2.Verdict.ValueType"]]:
        """Every verdict accepted, by task and case."""
        found: dict[tuple[int, int], list[common_pb2.Verdict.ValueType]] = {}
        for event in self.events("results_accepted"):
            said = event.results_accepted
            for n, task in enumerate(said.tasks):
                case = said.cases[n] if said.cases else 0
                verdict = said.verdicts[n] if said.verdicts else common_pb2.VERDICT_PASSED
                found.setdefault((task, case), []).append(verdict)
        return found

    def ended(self) -> list[tuple[int, "common_pb2.Outcome.ValueType", int, str]]:
        """(task, outcome, running case + 1, reason) of every attempt that ended otherwise."""
        return [
            (said.tasks[n], said.outcomes[n], said.running_cases[n], said.reasons[n])
            for event in self.events("attempts_ended")
            for said in (event.attempts_ended,)
            for n in range(len(said.tasks))
        ]


class WorkerProcess:
    """A `dtf worker` process."""

    def __init__(self, rig: Rig, options: Sequence[str], lifeline: int | None) -> None:
        argv = [sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(rig.directory)]
        argv += ["worker", "--server", rig.address, "--token-file", str(rig.token_file), *options]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DTF_")}
        if lifeline is not None:
            environment["DTF_LIFELINE_FD"] = str(lifeline)
        self.log_path = rig.directory / f"worker-{len(rig.workers)}.log"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                pass_fds=() if lifeline is None else (lifeline,),
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Return when its session is open."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), PATIENCE_SECONDS)
        assert line, f"the worker ended: {self.log}"
        said = json.loads(line)
        assert said["ready"] is True
        self.worker_id = said["worker_id"]

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return self.log_path.read_text()

    def tree(self) -> list[psutil.Process]:
        """Its living descendants."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def running(self, name: str) -> list[psutil.Process]:
        """Those of its living descendants that run a program of this name; others come and go meanwhile."""
        return [process for process in self.tree() if name_of(process) == name]

    async def exit_code(self) -> int:
        """Wait for its end."""
        return await asyncio.wait_for(asyncio.to_thread(self.process.wait), PATIENCE_SECONDS)


@asynccontextmanager
async def running(directory: Path, **settings: float | str) -> AsyncIterator[Rig]:
    """A rig with its coordinator running; nothing is left of it afterwards."""
    patient = CoordinatorSettings(state_dir=str(directory), lease_seconds=LEASE_SECONDS)
    with kept_address() as address:
        rig = Rig(directory, replace(patient, **settings), address)  # type: ignore[arg-type]
        await rig.start_coordinator()
        try:
            yield rig
        finally:
            await _leave_nothing(rig)


async def _leave_nothing(rig: Rig) -> None:
    """End the workers, which take their processes along, and the coordinator."""
    trees = []
    for worker in rig.workers:
        if worker.process.poll() is None:
            trees += worker.tree()
            worker.process.kill()
        worker.process.wait()
        assert worker.process.stdout is not None
        worker.process.stdout.close()
    await asyncio.to_thread(psutil.wait_procs, trees, timeout=PATIENCE_SECONDS)
    assert [process for process in trees if is_running(process)] == [], "processes were left behind"
    if rig.coordinator is not None:
        await rig.stop_coordinator()


def is_running(process: psutil.Process) -> bool:
    """Whether it exists and is no zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def name_of(process: psutil.Process) -> str:
    """What it runs; empty: it is gone, or a zombie."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else str(process.name())
    except psutil.Error:
        return ""


def is_told_alive(file: Path) -> bool:
    """Whether the process whose number a file says lives."""
    try:
        return is_running(psutil.Process(int(file.read_text())))
    except psutil.NoSuchProcess:
        return False


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return when `condition` holds; the loop runs on meanwhile."""
    clock = SystemClock()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await clock.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it did not happen that {what}") from None


async def finish(run: RunHandle) -> run_service_pb2.Run:
    """The run's end."""
    return await asyncio.wait_for(run.result(), PATIENCE_SECONDS)
