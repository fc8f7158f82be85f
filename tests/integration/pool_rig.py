"""A broker, a coordinator, a resource manager and its workers, all real processes of one test."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil

from dtf.adapters.nats_server import NatsServer
from dtf.adapters.process_provider import RECORD_VARIABLE
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, fleet_service_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.ports.subjects import RecordKind
from dtf.rpc.channel import Peer
from dtf.settings.model import NatsSettings
from tests.integration.scripted_pool import WAIT_SECONDS, Decisions
from tests.processes import command_line

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-test"
QUICK = """
[pool]
min_workers = 1
max_workers = 3
backlog_aim_seconds = 0.5
scale_in_idle_seconds = 0.3
scale_out_cooldown_seconds = 0.1
scale_in_cooldown_seconds = 0.1
"""


class PoolRig:
    """What a test does with the processes."""

    def __init__(self, directory: Path, nats: NatsSettings, records: JetStreamRecords) -> None:
        self.directory = directory
        self.records = records
        self.address = ""
        self.client: Client
        self.decisions = Decisions(records)
        self.started: list[asyncio.subprocess.Process] = []
        self._environment = {
            **os.environ,
            "DTF_NATS_URL": nats.url,
            "DTF_NATS_CREDENTIALS_FILE": nats.credentials_file,
            "DTF_NATS_APPEND_TIMEOUT_SECONDS": str(nats.append_timeout_seconds),
            "DTF_COORDINATOR_TOKEN_FILE": str(directory / "token"),
            # Longer than any test waits: no test passes because a lease happened to expire.
            "DTF_COORDINATOR_LEASE_SECONDS": "300",
            "DTF_RUN_TOKEN_FILE": str(directory / "token"),
            "DTF_STORE_PATH": str(directory / "metrics.duckdb"),
        }

    async def start(self, *arguments: str) -> tuple[asyncio.subprocess.Process, dict[str, object]]:
        """A `dtf` process, and what it said when it was ready."""
        process = await self.spawn("dtf.cli.main", *arguments)
        assert process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = await process.stdout.readline()
        assert line, (self.directory / f"{arguments[0]}.log").read_text()
        return process, json.loads(line)

    async def spawn(
        self, module: str, *arguments: str, before: Sequence[str] = (), **environment: str
    ) -> asyncio.subprocess.Process:
        """A process of `module`, which takes the arguments of dtf after those `before`."""
        with (self.directory / f"{arguments[0]}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", module, *before, "--project", str(self.directory)),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.directory,
                env={**self._environment, **environment},
            )
        self.started.append(process)
        return process

    async def start_analyzer(self) -> tuple[asyncio.subprocess.Process, Peer]:
        """A trend analyzer, ready, and how to call it."""
        process, ready = await self.start("trend-analyzer")
        return process, Peer((str(ready["address"]),), TOKEN)

    async def command(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """A `dtf` command, to its end: exit code and standard output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(self.directory)),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=self.directory,
            env={**self._environment, "DTF_SERVER": self.address, **environment},
        )
        async with asyncio.timeout(WAIT_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def start_mortal_manager(self, step: str, *options: str) -> asyncio.subprocess.Process:
        """A resource manager that dies at a step (`mortal_manager`)."""
        options = ("--server", self.address, "--token-file", str(self.directory / "token"), *options)
        return await self.spawn(
            "tests.integration.mortal_manager",
            "resource-manager",
            *options,
            before=[step],
            PYTHONPATH=str(ROOT),
        )

    async def start_manager(self, *options: str) -> asyncio.subprocess.Process:
        """A resource manager, ready."""
        token = str(self.directory / "token")
        process, _ = await self.start(
            "resource-manager", "--server", self.address, "--token-file", token, *options
        )
        return process

    def worker_processes(self) -> dict[str, psutil.Process]:
        """The workers that run, by launch id: leaders of the sessions that name a launch record."""
        found = {}
        for process in psutil.process_iter():
            try:
                record = process.environ().get(RECORD_VARIABLE, "")
                is_leader = os.getsid(process.pid) == process.pid
            except (psutil.Error, OSError):
                continue
            is_worker = (
                record.startswith(str(self.directory)) and is_leader and "worker" in command_line(process)
            )
            if is_worker:
                found[Path(record).stem] = process
        return found

    async def start_gated_run(self, count: int) -> RunHandle:
        """A run of commands that wait for `open_gate`: however long that takes, they are not done before."""
        wait = f"until [ -e {self._gate} ]; do sleep 0.05; done"
        return await self.client.start_run("gated", commands=[["sh", "-c", wait]] * count)

    def open_gate(self) -> None:
        """Let the commands of the gated run end."""
        self._gate.touch()

    @property
    def _gate(self) -> Path:
        return self.directory / "gate"

    async def workers_until(self, count: int) -> list[fleet_service_pb2.Worker]:
        """The active workers, once there are `count`; asked again at each commit of the fleet."""
        async with asyncio.timeout(WAIT_SECONDS):
            fleet = await self.client.get_fleet()
            if len(found := await self.active_workers()) == count:
                return found
            watch = run_service_pb2.WatchRunRequest(after_sequence=fleet.log_sequence)
            async for _ in self.client.watch(watch):
                if len(found := await self.active_workers()) == count:
                    return found
        raise AssertionError("a watch of the fleet has no end")

    async def active_workers(self) -> list[fleet_service_pb2.Worker]:
        """Those that take work."""
        workers = await self.client.list_workers()
        return [worker for worker in workers if worker.state == common_pb2.WORKER_STATE_ACTIVE]


@asynccontextmanager
async def pool_rig(server: NatsServer, directory: Path, settings: str = QUICK) -> AsyncIterator[PoolRig]:
    """Broker and coordinator up; no resource manager yet. Nothing is left afterwards."""
    clock = SystemClock()
    nats = NatsSettings(
        url=server.url,
        credentials_file=str(server.credentials_file),
        max_log_bytes=64 * 2**20,
        append_timeout_seconds=60.0,
    )
    (directory / "dtf.toml").write_text(settings)
    (directory / "token").write_text(TOKEN)
    (directory / "token").chmod(0o600)
    async with AsyncExitStack() as stack:
        records = await JetStreamRecords.open(nats, RecordKind.SCALING, "default", clock)
        stack.push_async_callback(records.close)
        rig = PoolRig(directory, nats, records)
        stack.push_async_callback(_leave_nothing, rig)
        _, ready = await rig.start("coordinator")
        rig.address = str(ready["address"])
        rig.client = await stack.enter_async_context(Client(Peer((rig.address,), TOKEN)))
        yield rig


async def kill(process: asyncio.subprocess.Process) -> None:
    """End a process of the rig, if it lives."""
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()


async def _leave_nothing(rig: PoolRig) -> None:
    """End what a test that failed has not: managers first, so that they replace nobody."""
    for process in reversed(rig.started):
        await kill(process)
    for worker in rig.worker_processes().values():
        worker.kill()
