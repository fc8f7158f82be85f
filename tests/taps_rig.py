"""What the tests of taps need beyond dtf: a broker with a WebSocket, node with its packages, `nats`."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.stream_transfer import import_log
from dtf.adapters.system_clock import SystemClock
from dtf.settings.model import NatsSettings

ROOT = Path(__file__).parents[1]
TAPS = ROOT / "examples" / "taps"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dtf"
STREAMS = sorted((ROOT / "tests" / "streams").glob("*/events.dtfstream"))
WAIT_SECONDS = 60.0
NPM_SECONDS = 100.0


@dataclass(frozen=True, slots=True)
class Tapped:
    """A broker with a log to tap."""

    server: NatsServer
    settings: NatsSettings
    log: JetStreamLog
    namespace: str

    @property
    def tap_credentials(self) -> str:
        """File of the user that may only read."""
        return str(self.server.tap_credentials_file)


@asynccontextmanager
async def tapped(server: NatsServer, namespace: str, stream: Path | None = None) -> AsyncIterator[Tapped]:
    """The log of a namespace on `server`, filled from a recorded stream if one is given."""
    settings = NatsSettings(
        url=server.url,
        credentials_file=str(server.credentials_file),
        max_log_bytes=64 * 2**20,
        append_timeout_seconds=60.0,
    )
    log = await JetStreamLog.open(settings, namespace, SystemClock())
    try:
        if stream is not None:
            await import_log(log, stream)
        yield Tapped(server, settings, log, namespace)
    finally:
        await log.close()


def nats_command() -> str:
    """The `nats` command; skips the test, naming it, where there is none."""
    for found in (os.environ.get("DTF_NATS_CLI"), str(CACHE / "bin" / "nats"), shutil.which("nats")):
        if found and os.access(found, os.X_OK):
            return found
    pytest.skip("there is no `nats` command; `make natscli` builds it")


def node_program(name: str, directory: Path) -> list[str]:
    """Command line of a program of examples/taps/js, with its packages; skips the test without node."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node and npm to run taps in JavaScript with")
    source = TAPS / "js"
    target = directory / "js"
    if not target.exists():
        target.mkdir(parents=True)
        for file in source.glob("*.js*"):
            shutil.copy(file, target)
        (target / "node_modules").symlink_to(_packages(source, npm))
    return [node, str(target / name)]


def _packages(source: Path, npm: str) -> Path:
    """node_modules as the lock has them, installed once into the cache."""
    lock = (source / "package-lock.json").read_bytes()
    cache = CACHE / "taps-js" / hashlib.sha256(lock).hexdigest()[:16]
    if not (cache / "node_modules").exists():
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, fresh)
        command = [npm, "ci", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=NPM_SECONDS)
            fault = done.stderr[-200:] if done.returncode else ""
        except subprocess.TimeoutExpired:
            fault = f"it took longer than {NPM_SECONDS:.0f} s"
        if fault:
            shutil.rmtree(fresh)
            pytest.skip(f"npm cannot install the packages of taps in JavaScript: {fault}")
        try:
            fresh.rename(cache)
        except OSError:
            shutil.rmtree(fresh)  # another process was quicker
    return cache / "node_modules"


def descriptors(directory: Path) -> Path:
    """The schema as a FileDescriptorSet, as any compiler of protobuf writes it."""
    target = directory / "dtf.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", "--include_imports"]
    command += [f"--descriptor_set_out={target}", "proto/dtf/api/v1/events.proto"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return target


class Running:
    """A program whose output is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        """The next line of its standard output."""
        return await self._line(self.process.stdout)

    async def word(self) -> str:
        """The next line of its standard error."""
        return await self._line(self.process.stderr)

    async def _line(self, stream: asyncio.StreamReader | None) -> str:
        assert stream is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line = (await stream.readline()).decode()
        if not line and self.process.stderr is not None and stream is not self.process.stderr:
            raise AssertionError(f"it ended: {(await self.process.stderr.read()).decode()}")
        return line.rstrip("\n")

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running(command: list[str], **environment: str) -> AsyncIterator[Running]:
    """A program, killed if it still runs at the end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
