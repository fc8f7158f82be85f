"""Warm processes: started ahead of need, handed to slots, sent home, ended by force."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

from dtf.api.v1 import common_pb2
from dtf.ports.clock import Clock
from dtf.worker.launcher_client import LauncherClient, LaunchRefused
from dtf.worker.warm_process import Death, Listener, State, StopReason, WarmProcess

RUNNER_ARGV = (sys.executable, "-P", "-m", "dtf.runner.main")
SPARE_DELAY_SECONDS = 2.0
"""A spare is started this long after one was taken: by then the run it was taken for has begun."""
TEAR_DOWN_SECONDS = 20.0
"""How long a process may take to tear down its session before it is killed."""
STACK_DUMP_SECONDS = 1.0
"""How long an overdue process may take to print its stacks before it is killed."""
MAX_FAILED_STARTS = 3


class RunnersBroken(Exception):
    """Warm processes do not start on this machine; the message holds what they printed."""


def user_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What user code sees of the worker's environment: nothing of dtf's own, no secret's path."""
    return {name: value for name, value in environment.items() if not name.startswith("DTF_")}


class RunnerPool:
    """Every warm process of the worker."""

    def __init__(
        self, launcher: LauncherClient, tasks: asyncio.TaskGroup, clock: Clock, spare_count: int
    ) -> None:
        self._launcher = launcher
        self._tasks = tasks
        self._clock = clock
        self._spare_count = spare_count
        self._spares: list[WarmProcess] = []
        self._all: set[WarmProcess] = set()
        self._retiring: dict[WarmProcess, float] = {}
        self._spares_wanted_at = 0.0
        self._failed_starts = 0
        self._is_closing = False
        self.nobody_left = asyncio.Event()
        self.nobody_left.set()

    def take(self, listener: Listener) -> WarmProcess:
        """A process for a slot, warm or about to be."""
        self._spares_wanted_at = self._clock.monotonic() + SPARE_DELAY_SECONDS
        self._spares.sort(key=lambda process: process.state is not State.WARM)
        return self._spares.pop(0) if self._spares else self._start(listener)

    def tick(self, now: float, listener: Listener) -> None:
        """Start spares that are due; kill those that do not go home."""
        if now >= self._spares_wanted_at and not self._is_closing:
            for _ in range(self._spare_count - len(self._spares)):
                self._spares.append(self._start(listener))
        for process in [process for process, until in self._retiring.items() if until <= now]:
            del self._retiring[process]
            self.stop(process, StopReason(common_pb2.OUTCOME_UNSPECIFIED, "it did not tear down in time"))

    def _start(self, listener: Listener) -> WarmProcess:
        process = WarmProcess(listener)
        self._all.add(process)
        self.nobody_left.clear()
        self._tasks.create_task(self._live(process))
        return process

    async def _live(self, process: WarmProcess) -> None:
        """Launch a process and follow it to its end."""
        try:
            launched = await self._launcher.launch(
                RUNNER_ARGV, environment=user_environment(), descriptors=process.descriptors
            )
        except LaunchRefused as error:
            raise RunnersBroken(str(error)) from None
        finally:
            process.launched()
        if process.stop_reason is not None:
            self._launcher.kill(launched)  # it was stopped while there was nothing to kill yet
        try:
            await process.watch(launched)
        finally:
            self._all.discard(process)
            if not self._all:
                self.nobody_left.set()

    def retire(self, process: WarmProcess) -> None:
        """Let a process tear down and exit."""
        process.finish()
        self._retiring[process] = self._clock.monotonic() + TEAR_DOWN_SECONDS

    def stop(self, process: WarmProcess, reason: StopReason, *, with_stacks: bool = False) -> None:
        """End a process and its tree; the first reason stays."""
        if process.stop_reason is not None:
            return
        process.stop_reason = reason
        if process.process is None:
            return
        if with_stacks:
            self._launcher.kill(
                process.process, first_signal=signal.SIGABRT, grace_seconds=STACK_DUMP_SECONDS
            )
        else:
            self._launcher.kill(process.process)

    def forget(self, process: WarmProcess, death: Death) -> None:
        """A process died. Raises RunnersBroken if they never start."""
        self._retiring.pop(process, None)
        if process in self._spares:
            self._spares.remove(process)
        if process.was_ready:
            self._failed_starts = 0
        elif process.stop_reason is None and not self._is_closing:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise RunnersBroken(f"{death.reason} before it was ready: {death.output.strip()[-2000:]}")

    async def close(self, patience_seconds: float = TEAR_DOWN_SECONDS) -> None:
        """Send everybody home; whoever is left after `patience_seconds` is killed."""
        self._is_closing = True
        for process in list(self._all):
            if process.key is None:
                self.stop(process, StopReason(common_pb2.OUTCOME_UNSPECIFIED, "it was never needed"))
            else:
                process.finish()
        try:
            async with asyncio.timeout(patience_seconds):
                await self.nobody_left.wait()
        except TimeoutError:
            for process in list(self._all):
                self.stop(process, StopReason(common_pb2.OUTCOME_UNSPECIFIED, "the worker leaves"))
