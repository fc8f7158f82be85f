"""`dtf demo`: examples/skewed on an elastic pool, with what the pool does shown as it happens."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

import dtf
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2
from dtf.cli.connection import client_of
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.progress_display import ProgressDisplay, duration_text, standard_stream
from dtf.cli.run_follow import show_run
from dtf.cli.run_progress import RunProgress
from dtf.cli.run_pytest import INVOCATION_LABEL
from dtf.cli.run_result import report_of, result_lines
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.client.stack import StackAddresses, join_stack
from dtf.settings.loader import load_settings
from dtf.settings.project import make_private_dir, state_dir

SETTLE_SECONDS = 60.0
"""How long the demo waits at its end for the pool to shrink, which is part of the show."""
_LOOK_SECONDS = 0.1


@click.command()
def command() -> int:
    """Run the example suite of the source tree on a pool that grows and shrinks.

    \b
    Example:
        dtf demo        # or: make demo
    """
    suite = Path(dtf.__file__).resolve().parents[1] / "examples" / "skewed"
    if not suite.is_dir():
        raise CommandError(
            f"the demo's suite is not there: {suite}",
            "it is part of the source tree; run the demo from a clone, or `dtf run` in your own project",
        )
    return Demo(suite).run()


class Demo:
    """One showing."""

    def __init__(self, suite: Path) -> None:
        self._suite = suite
        self._settings = load_settings(suite).settings
        self._clock = SystemClock()
        self._label = secrets.token_hex(8)
        self._output = make_private_dir(make_private_dir(state_dir(suite)) / "logs") / "demo-pytest.txt"

    def run(self) -> int:
        """Start the stack, run the suite, show the end."""
        settings = self._settings
        _say(
            "[2/3] embedded stack: nats-server, coordinator, trend analyzer, resource manager (loopback only)"
        )
        _say(f"      data in {_short(state_dir(self._suite))}/")
        with join_stack(self._suite, settings, on_progress=lambda text: _say(f"      {text}")) as membership:
            _say(
                f"[3/3] {settings.run.suite}, a pytest suite, on {settings.pool.min_workers} to {settings.pool.max_workers} workers"
            )
            with self._pytest() as process:
                asyncio.run(self._follow(membership.addresses, process))
        if process.returncode:
            _say(self._output.read_text(errors="replace"))
        return ExitCode.OK if process.returncode == 0 else ExitCode.FAILED

    @contextmanager
    def _pytest(self) -> "Iterator[subprocess.Popen[bytes]]":
        environment = {**os.environ, "DTF_RUN_LABELS": f"{INVOCATION_LABEL}={self._label}"}
        with (
            self._output.open("wb") as output,
            subprocess.Popen(
                [sys.executable, "-m", "pytest", "--dtf", "-q"],
                cwd=self._suite,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()

    async def _follow(self, addresses: StackAddresses, process: "subprocess.Popen[bytes]") -> None:
        async with client_of(addresses) as client:
            run = await self._find(client, process)
            if run is None:
                return
            display = ProgressDisplay(run.run_id, run.run.suite, standard_stream(is_quiet=False), self._clock)
            await show_run(run, RunProgress(), display, self._clock)
            async with asyncio.TaskGroup() as tasks:
                shrinking = tasks.create_task(self._watch_shrinking(client))
                await asyncio.to_thread(process.wait)
                written = await report_of(client, run.run_id, self._suite)
            for line in result_lines(written) if written else []:
                _say(line)
            _say(shrinking.result())

    async def _find(self, client: Client, process: "subprocess.Popen[bytes]") -> RunHandle | None:
        """The run that pytest makes; None if pytest ends without one."""
        while process.poll() is None:
            for run in await client.list_runs(limit=10):
                if run.labels.get(INVOCATION_LABEL) == self._label:
                    return await client.attach(run.run_id)
            await self._clock.sleep(_LOOK_SECONDS)
        return None

    async def _watch_shrinking(self, client: Client) -> str:
        """Wait for the pool to be as small again as it was, which is part of the show."""
        began = self._clock.monotonic()
        sizes = [await _active(client)]
        while sizes[-1] > self._settings.pool.min_workers:
            if self._clock.monotonic() - began > SETTLE_SECONDS:
                break
            await self._clock.sleep(_LOOK_SECONDS)
            size = await _active(client)
            if size != sizes[-1]:
                sizes.append(size)
        path = " → ".join(map(str, sizes))
        return f"{'afterwards':<13}{path} workers, {duration_text(self._clock.monotonic() - began)} after the last case"


async def _active(client: Client) -> int:
    workers = await client.list_workers()
    return sum(worker.state == common_pb2.WORKER_STATE_ACTIVE for worker in workers)


def _say(text: str) -> None:
    click.echo(text)


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
