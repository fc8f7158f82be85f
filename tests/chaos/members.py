"""The processes of a system, each started again when it ends, as a service manager would."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtf.adapters.nats_errors import NatsServerError
from dtf.adapters.nats_server import NatsServer
from dtf.ports.clock import Clock

RESTART_SECONDS = 0.2
READY_SECONDS = 60.0


class Member:
    """A `dtf` command that serves. `run` keeps it up until cancelled."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_file: Path,
        inherited: Sequence[int],
        clock: Clock,
    ) -> None:
        self.name = name
        self.exit_codes: list[int] = []
        self.ready = asyncio.Event()
        """Its process runs and has said that it is ready."""
        self.down = asyncio.Event()
        """No process of it runs."""
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._command = command
        self._environment = environment
        self._log_file = log_file
        self._inherited = tuple(inherited)
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of its process; 0 while none runs."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    def send(self, number: signal.Signals) -> None:
        """A signal to its process, if one runs."""
        if self.pid:
            os.kill(self.pid, number)

    def hold(self) -> None:
        """Once it ends it is not started again until `release`."""
        self._allowed.clear()

    def release(self) -> None:
        """Start it again."""
        self._allowed.set()

    async def run(self) -> None:
        """Start it whenever it does not run, for ever."""
        while True:
            await self._allowed.wait()
            await self._run_once()
            await self._clock.sleep(RESTART_SECONDS)

    async def _run_once(self) -> None:
        log = os.open(self._log_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=dict(self._environment),
                pass_fds=self._inherited,
            )
            self.down.clear()
            os.write(log, f"--- started as process {process.pid}\n".encode())
            try:
                assert process.stdout is not None
                while line := await process.stdout.readline():
                    if _says_ready(line):
                        self.ready.set()
                self.exit_codes.append(await process.wait())
                os.write(log, f"--- ended with {process.returncode}\n".encode())
            finally:
                await self._end(process)
        finally:
            os.close(log)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.ready.clear()
        if process.returncode is None:
            process.kill()
            await process.wait()
        self.down.set()


class Broker:
    """The nats-server, started again when it ends."""

    name = "nats-server"

    def __init__(self, server: NatsServer, clock: Clock) -> None:
        self.server = server
        self.ready = asyncio.Event()
        self.down = asyncio.Event()
        self.exit_codes: list[int] = []
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._clock = clock

    @property
    def pid(self) -> int:
        """Of nats-server itself."""
        return self.server.server_pid

    def send(self, number: signal.Signals) -> None:
        """A signal to nats-server itself."""
        self.server.signal_server(number)

    def hold(self) -> None:
        """Once it ends it is not started again until `release`."""
        self._allowed.clear()

    def release(self) -> None:
        """Start it again."""
        self._allowed.set()

    async def run(self) -> None:
        """Start it whenever it does not run, for ever."""
        try:
            while True:
                await self._allowed.wait()
                await self._run_once()
                await self._clock.sleep(RESTART_SECONDS)
        finally:
            await self.server.kill()

    async def _run_once(self) -> None:
        try:
            await self.server.start()
        except NatsServerError:
            return  # a full disk: its log says so, and it is tried again
        self.down.clear()
        self.ready.set()
        try:
            self.exit_codes.append(await self.server.wait())
        finally:
            self.ready.clear()
            self.down.set()


AnyMember = Member | Broker


def _says_ready(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("ready") is True
