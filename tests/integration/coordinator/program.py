"""`dtf coordinator` as a process of its own, on a real broker."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dtf.rpc.channel import Peer
from dtf.settings.model import NatsSettings

READY_SECONDS = 60.0
TOKEN = "the-token-of-a-process"


@dataclass(slots=True)
class CoordinatorProcess:
    """A process that leads and listens."""

    process: Process
    address: str

    @property
    def peer(self) -> Peer:
        """How to call it."""
        return Peer((self.address,), TOKEN)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(READY_SECONDS):
            return await self.process.wait()


@dataclass(frozen=True, slots=True)
class CoordinatorProgram:
    """How to start one, again and again, in one namespace."""

    nats: NatsSettings
    namespace: str
    directory: Path

    async def launch(self, *options: str) -> Process:
        """Start the process."""
        token_file = self.directory / "token"
        token_file.write_text(TOKEN)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(self.directory)),
            *("coordinator", "--token-file", str(token_file), "--namespace", self.namespace),
            *("--nats-url", self.nats.url, *options),
            env={
                **os.environ,
                "DTF_NATS_CREDENTIALS_FILE": self.nats.credentials_file,
                "DTF_NATS_MAX_LOG_BYTES": str(self.nats.max_log_bytes),
                "DTF_NATS_APPEND_TIMEOUT_SECONDS": str(self.nats.append_timeout_seconds),
                "DTF_NATS_CONNECT_TIMEOUT_SECONDS": str(self.nats.connect_timeout_seconds),
            },
            stdout=PIPE,
            stderr=PIPE,
        )

    async def start(self, *options: str) -> CoordinatorProcess:
        """Start it and wait until it says that it is ready."""
        process = await self.launch(*options)
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise AssertionError(f"the coordinator did not start: {await said(process)}")
        return CoordinatorProcess(process, json.loads(line)["address"])

    @asynccontextmanager
    async def running(self, *options: str) -> AsyncIterator[CoordinatorProcess]:
        """One that is killed at the end, if it still runs."""
        coordinator = await self.start(*options)
        try:
            yield coordinator
        finally:
            if coordinator.process.returncode is None:
                await coordinator.kill()

    async def fails(self, *options: str) -> tuple[int, Sequence[str]]:
        """Its exit code and what it says, where it must not start."""
        process = await self.launch(*options)
        async with asyncio.timeout(READY_SECONDS):
            text = await said(process)
        assert process.returncode is not None
        return process.returncode, text.splitlines()


async def said(process: Process) -> str:
    """What a process that ends writes to standard error."""
    _output, errors = await process.communicate()
    return errors.decode()
