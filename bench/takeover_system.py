"""Coordinators that stand by for each other, and workers, each a process, on a broker that is given.

The addresses stay the same for the life of the system; a coordinator that ended is started again as
a standby, as whoever runs dtf in production would have it done.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.cli.reserved_port import ReservedPort
from dtf.rpc.channel import Peer
from dtf.settings.loader import dump_settings
from dtf.settings.model import CoordinatorSettings, NatsSettings, Settings, WorkerSettings

READY_SECONDS = 60.0
NAMESPACE = "takeover"


@dataclass
class Program:
    """One process and what it said of itself on standard output."""

    process: asyncio.subprocess.Process
    log_file: Path
    said: list[dict[str, Any]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    @property
    def roles(self) -> list[str]:
        """What it has been: "standby", "leader"."""
        return [str(line["role"]) for line in self.said if "role" in line]

    @property
    def is_leader(self) -> bool:
        """Whether it leads, as far as it said."""
        return self.is_running and "leader" in self.roles

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def until_said(self, count: int = 1) -> None:
        """Return when it has said `count` lines. Raises AssertionError if it ended before."""
        async with asyncio.timeout(READY_SECONDS):
            while len(self.said) < count:
                if not self.is_running:
                    raise AssertionError(f"it ended: {self.log()}")
                await self.news.wait()

    async def until_role(self, role: str) -> None:
        """Return when it is a standby, or the leader."""
        async with asyncio.timeout(READY_SECONDS):
            while role not in self.roles:
                if not self.is_running:
                    raise AssertionError(f"it ended: {self.log()}")
                await self.news.wait()

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(READY_SECONDS):
            return await self.process.wait()

    def log(self) -> str:
        """The end of what it wrote to standard error."""
        return self.log_file.read_text(errors="replace")[-3000:]

    async def listen(self) -> None:
        """Take in what it says until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append({**json.loads(line), "at": time.monotonic()})
            self._tell()
        await self.process.wait()
        self._tell()

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class TakeoverSystem:
    """Coordinators and workers. Use it as an async context manager; nothing outlives it."""

    def __init__(
        self,
        directory: Path,
        nats: NatsSettings,
        *,
        coordinator_count: int = 2,
        worker_count: int = 2,
        coordinator: CoordinatorSettings | None = None,
        worker: WorkerSettings | None = None,
    ) -> None:
        self._directory = directory
        self._ports = [ReservedPort("127.0.0.1:0") for _ in range(coordinator_count)]
        self._worker_count = worker_count
        token_file = directory / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_urlsafe(32))
        base = Settings()
        self.settings = replace(
            base,
            nats=nats,
            coordinator=replace(
                coordinator or base.coordinator,
                namespace=NAMESPACE,
                token_file=str(token_file),
                state_dir=str(directory / "state"),
                blob_dir=str(directory / "blobs"),
            ),
            worker=replace(worker or base.worker, server=self.addresses, token_file=str(token_file)),
        )
        self.coordinators: list[Program | None] = [None] * coordinator_count
        self.workers: list[Program] = []
        self._programs: list[Program] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._lifeline = Lifeline()

    @property
    def addresses(self) -> str:
        """host:port of each coordinator."""
        return ",".join(port.address for port in self._ports)

    @property
    def peer(self) -> Peer:
        """How to call whichever leads."""
        token = Path(self.settings.coordinator.token_file).read_text()
        return Peer(tuple(port.address for port in self._ports), token)

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        try:
            await (await self.start_coordinator(0, standby=False)).until_role("leader")
            for index in range(1, len(self.coordinators)):
                await (await self.start_coordinator(index)).until_role("standby")
            for index in range(self._worker_count):
                self.workers.append(await self._start(f"worker-{index}", "worker", self.settings))
            for worker in self.workers:
                await worker.until_said()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            for program in self.workers:
                if program.is_running:
                    program.signal(number)
                    program.signal(number)
        for program in self._programs:
            if program not in self.workers and program.is_running:
                program.process.kill()
        for program in self.workers:
            try:
                async with asyncio.timeout(10):
                    await program.process.wait()
            except TimeoutError:
                program.process.kill()
        if self._tasks is not None:
            await self._tasks.__aexit__(None, None, None)
        await self._lifeline.end(10)
        for port in self._ports:
            port.release()

    @property
    def leader(self) -> Program:
        """The coordinator that leads."""
        (leader,) = [item for item in self.coordinators if item is not None and item.is_leader]
        return leader

    def index_of(self, program: Program) -> int:
        """Which coordinator it is."""
        return self.coordinators.index(program)

    async def start_coordinator(self, index: int, *, standby: bool = True) -> Program:
        """Start a coordinator at its address."""
        settings = replace(
            self.settings, coordinator=replace(self.settings.coordinator, listen=self._ports[index].address)
        )
        options = ("--standby",) if standby else ()
        program = await self._start(f"coordinator-{index}", "coordinator", settings, *options)
        self.coordinators[index] = program
        return program

    async def _start(self, name: str, command: str, settings: Settings, *options: str) -> Program:
        settings_file = self._directory / f"{name}.json"
        settings_file.touch(mode=0o600)
        settings_file.write_text(dump_settings(settings))
        log_file = self._directory / f"{name}.log"
        with log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(self._directory)),
                *("--settings", str(settings_file), command, *options),
                cwd=self._directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(Path(__file__).parent.parent),
                    VARIABLE: str(self._lifeline.descriptor),
                },
                pass_fds=[self._lifeline.descriptor],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        program = Program(process, log_file)
        self._programs.append(program)
        assert self._tasks is not None
        self._tasks.create_task(program.listen())
        return program
