"""The real parts for a benchmark: nats-server, coordinator and workers, each a process, in a directory of their own.

Nothing is faster here than in production: the log's every commit is fsynced (`sync_interval: always`),
calls carry their token, workers run what they lease in warm processes. Every process has the benchmark's
lifeline: it ends when the benchmark does, by kill -9 too.
"""

import asyncio
import json
import os
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from dtf.adapters.nats_server import NatsServer
from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.settings.loader import dump_settings
from dtf.settings.model import Settings

READY_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 20.0
NAMESPACE = "bench"
SPARE_DELAY_SECONDS = 2.2
"""A worker starts a spare process this long after one was taken, and a little more."""
REST_SECONDS = 0.5
REST_CPU_SECONDS = 0.05


class BenchStack:
    """nats-server and a coordinator; workers are added. Use it as an async context manager."""

    def __init__(self, directory: Path, *, worker_credits: int = 1024) -> None:
        self._directory = directory
        self._credits = worker_credits
        self._server = NatsServer(directory / "nats", directory / "secrets" / "nats")
        self._lifeline = Lifeline()
        self._processes: list[asyncio.subprocess.Process] = []
        self._workers_started: list[asyncio.subprocess.Process] = []
        self._settings = Settings()
        self.coordinator: psutil.Process | None = None
        self.workers: list[psutil.Process] = []

    @property
    def settings(self) -> Settings:
        """What every part was told."""
        return self._settings

    @property
    def token(self) -> str:
        """The bearer token."""
        return (self._directory / "token").read_text().strip()

    @property
    def nats_process(self) -> psutil.Process:
        """nats-server itself."""
        return psutil.Process(self._server.server_pid)

    async def __aenter__(self) -> Self:
        token_file = self._directory / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_urlsafe(32))
        await self._server.start()
        base = Settings()
        self._settings = replace(
            base,
            nats=replace(
                base.nats, url=self._server.url, credentials_file=str(self._server.credentials_file)
            ),
            coordinator=replace(
                base.coordinator,
                namespace=NAMESPACE,
                token_file=str(token_file),
                state_dir=str(self._directory / "state"),
                blob_dir=str(self._directory / "blobs"),
            ),
        )
        process, ready = await self._start("coordinator", "coordinator")
        self.coordinator = psutil.Process(process.pid)
        worker = replace(
            base.worker, server=ready["address"], token_file=str(token_file), credits=self._credits
        )
        self._settings = replace(self._settings, worker=worker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):
            await _stop(process)
        await self._lifeline.end(STOP_TIMEOUT_SECONDS)
        await self._server.stop()

    async def add_worker(self) -> None:
        """Start a worker of one slot and return when its session is open."""
        name = f"worker-{len(self.workers) + 1}"
        self._settings = replace(self._settings, worker=replace(self._settings.worker, name=name))
        process, _ = await self._start(name, "worker")
        self.workers.append(psutil.Process(process.pid))
        self._workers_started.append(process)

    async def add_coordinator(self, namespace: str) -> tuple[psutil.Process, str]:
        """Start a second coordinator on the same broker; its process and its address."""
        first = self._settings
        self._settings = replace(
            first,
            coordinator=replace(
                first.coordinator,
                namespace=namespace,
                state_dir=str(self._directory / f"state-{namespace}"),
                blob_dir=str(self._directory / f"blobs-{namespace}"),
            ),
        )
        process, ready = await self._start(f"coordinator-{namespace}", "coordinator")
        self._settings = first
        return psutil.Process(process.pid), ready["address"]

    async def move_last_worker(self, address: str) -> None:
        """Stop the worker started last and start one for another coordinator in its place."""
        await _stop(self._workers_started.pop())
        self.workers.pop()
        first = self._settings
        self._settings = replace(first, worker=replace(first.worker, server=address))
        await self.add_worker()
        self._settings = first

    async def rest(self) -> None:
        """Return when the workers have their next processes warm, as a pool of any peer is warm between runs."""
        await asyncio.sleep(SPARE_DELAY_SECONDS)  # noqa: TID251  # a benchmark's pause, outside of what is measured
        used = -1.0
        while (now := sum(map(tree_cpu_seconds, self.workers))) - used > REST_CPU_SECONDS:
            used = now
            await asyncio.sleep(REST_SECONDS)  # noqa: TID251

    async def start_beside(self, module: str, *arguments: str) -> asyncio.subprocess.Process:
        """Start a Python module that measures, with standard output for us; it ends with the benchmark."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments), stdout=asyncio.subprocess.PIPE, **self._lifeline_of()
        )

    def _lifeline_of(self) -> dict[str, Any]:
        """What gives a process the lifeline."""
        descriptor = self._lifeline.descriptor
        return {"env": {**os.environ, VARIABLE: str(descriptor)}, "pass_fds": [descriptor]}

    async def _start(self, name: str, command: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        settings_file = self._directory / f"{name}.json"
        settings_file.write_text(dump_settings(self._settings))
        log = (self._directory / f"{name}.log").open("wb")
        with log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_profiler(name),
                *("-m", "dtf.cli.main"),
                *("--project", str(self._directory), "--settings", str(settings_file), command),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                **self._lifeline_of(),
            )
        self._processes.append(process)
        assert process.stdout is not None
        async with asyncio.timeout(READY_TIMEOUT_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} did not start; see {log.name}: {_last_line(Path(log.name))}")
        ready: dict[str, Any] = json.loads(line)
        return process, ready


def _profiler(name: str) -> list[str]:
    """DTF_BENCH_PROFILE names a directory: each part writes a profile there when it ends."""
    directory = os.environ.get("DTF_BENCH_PROFILE", "")
    return ["-m", "cProfile", "-o", str(Path(directory) / f"{name}.prof")] if directory else []


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "(it said nothing)"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def cpu_seconds(process: psutil.Process | None) -> float:
    """Processor time a process has used, and those it has waited for."""
    if process is None:
        return 0.0
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0  # it is accounted for by whoever waited for it
    return float(times.user + times.system + times.children_user + times.children_system)


def tree_cpu_seconds(process: psutil.Process) -> float:
    """The same for a process and its living descendants."""
    return cpu_seconds(process) + sum(map(cpu_seconds, process.children(recursive=True)))
