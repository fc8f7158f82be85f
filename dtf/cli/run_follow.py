"""Drives one run from its creation to its end, with progress, Ctrl-C and a stack that may end under it.

Ctrl-C once cancels the run and waits for its end, so that what finished is told; twice leaves at
once. A run that was created is attached to the membership until it has ended: should this process
die, the supervisor cancels it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import run_service_pb2
from dtf.cli.connection import client_of
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.progress_display import ProgressDisplay
from dtf.cli.run_progress import RunProgress
from dtf.cli.run_result import report_of
from dtf.cli.run_tasks import Work
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.client.stack import StackMembership
from dtf.client.submission import SubmissionFailed
from dtf.ports.clock import Clock
from dtf.report.write import WrittenReport

_TICK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended, as it was followed and as the coordinator has it."""

    run: run_service_pb2.Run
    progress: RunProgress
    report: WrittenReport | None


@dataclass(frozen=True, slots=True)
class Showing:
    """What is shown meanwhile."""

    make_display: Callable[[str, str], ProgressDisplay]
    """From the run's id and suite."""
    relays_output: bool = False
    """Whether the output of task 0 goes to standard output as it appears."""


async def show_run(run: RunHandle, progress: RunProgress, display: ProgressDisplay, clock: Clock) -> None:
    """Follow the run into `progress`, and show it, until it has ended; time passes on the display too."""

    async def tick() -> None:
        while True:
            await clock.sleep(_TICK_SECONDS)
            if progress.began_nanos:
                progress.now_nanos = max(progress.now_nanos, clock.now_ns())
            display.show(progress, [])

    display.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(tick())
            async for watched in run.watch(include_scaling=True):
                display.show(progress, progress.observe(watched))
            ticking.cancel()
    finally:
        display.stop()


class StackLost:
    """Carries the end of the stack from the membership's thread to the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._reason = ""

    def report(self, reason: str) -> None:
        """The stack ended; from any thread."""
        self._reason = reason
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    async def watch(self) -> None:
        """Raise CommandError when the stack ends."""
        self._loop = asyncio.get_running_loop()
        if not self._reason:
            await self._event.wait()
        raise CommandError(
            self._reason,
            "what was accepted is in the log; .dtf/logs/ has what each part said",
            exit_code=ExitCode.UNAVAILABLE,
        )


class RunDriver:
    """Follows one run."""

    def __init__(self, client: Client, membership: StackMembership, showing: Showing) -> None:
        self._client = client
        self._membership = membership
        self._showing = showing
        self._clock = SystemClock()
        self._interrupted = asyncio.Event()

    async def drive(
        self, request: run_service_pb2.CreateRunRequest, work: Work
    ) -> tuple[run_service_pb2.Run, RunProgress]:
        """Create, submit, follow to the end."""
        run = await self._client.create_run(request)
        self._membership.attach_run(run.run_id)
        display = self._showing.make_display(run.run_id, request.suite)
        progress = RunProgress()
        try:
            async with asyncio.TaskGroup() as tasks:
                self._on_interrupt(run.run_id, display)
                helpers = [
                    tasks.create_task(self._submit_and_relay(run, work)),
                    tasks.create_task(self._cancel_when_interrupted(run)),
                ]
                await show_run(run, progress, display, self._clock)
                for helper in helpers[1:]:
                    helper.cancel()
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
        self._membership.detach_run(run.run_id)
        return await run.refresh(), progress

    async def _submit_and_relay(self, run: RunHandle, work: Work) -> None:
        await self._submit(run, work)
        if self._showing.relays_output and not self._interrupted.is_set():
            await self._relay_output(run.run_id)

    async def _submit(self, run: RunHandle, work: Work) -> None:
        try:
            await run.submit_many(work.tasks)
            await run.seal()
        except SubmissionFailed as failure:
            if not self._interrupted.is_set():
                raise failure.__cause__ or failure from failure

    async def _relay_output(self, run_id: str) -> None:
        async for piece in self._client.tail_logs(run_id, task=0, follow=True):
            sys.stdout.buffer.write(piece.data)
            sys.stdout.buffer.flush()

    def _on_interrupt(self, run_id: str, display: ProgressDisplay) -> None:
        def interrupt() -> None:
            if self._interrupted.is_set():
                display.stop()
                leave_at_once(run_id)
            self._interrupted.set()
            display.say("cancelling the run; Ctrl-C again leaves at once")

        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)

    async def _cancel_when_interrupted(self, run: RunHandle) -> None:
        await self._interrupted.wait()
        await run.cancel("interrupted by Ctrl-C")


def leave_at_once(run_id: str) -> None:
    """Leave without waiting for anything, and say what may go on."""
    sys.stderr.write(
        f"left at once; attempts of run {run_id} may run until the coordinator has stopped them\n"
        f"  `dtf runs show {run_id}` says what finished\n"
    )
    sys.stderr.flush()
    os._exit(ExitCode.CANCELLED)


async def drive_run(
    request: run_service_pb2.CreateRunRequest,
    work: Work,
    membership: StackMembership,
    lost: StackLost,
    showing: Showing,
    project_dir: Path,
) -> EndedRun:
    """Run `work` on the stack of `membership`, and return when it has ended. Raises CommandError."""
    async with client_of(membership.addresses) as client, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(lost.watch())
        run, progress = await RunDriver(client, membership, showing).drive(request, work)
        report = await report_of(client, run.run_id, project_dir)
        watching.cancel()
    return EndedRun(run, progress, report)
