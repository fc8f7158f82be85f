"""Runs the command that readies an unpacked workspace, as any command of a user: below the launcher."""

import asyncio
import os
import sys
from pathlib import Path

from dtf.ports.clock import Clock
from dtf.runner.launch_messages import Exited
from dtf.worker.launcher_client import LauncherClient, LauncherLost, LaunchRefused
from dtf.worker.runner_pool import user_environment

DEFAULT_TIMEOUT_SECONDS = 3600.0
TERM_SECONDS = 5.0
TAIL_BYTES = 8 * 1024


class SetupFailed(Exception):
    """The set-up did not end well."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


class Setup:
    """Runs set-up commands."""

    def __init__(self, launcher: LauncherClient, clock: Clock) -> None:
        self._launcher = launcher
        self._clock = clock

    async def run(self, command: str, tree: Path, log: Path, timeout_seconds: float) -> float:
        """Run `command` in `tree`, its output to `log`; how long it took. Raises SetupFailed."""
        started = self._clock.monotonic()
        limit = timeout_seconds or DEFAULT_TIMEOUT_SECONDS
        exited = await self._execute(command, tree, log, limit)
        took = self._clock.monotonic() - started
        if exited is None:
            raise SetupFailed(f"the set-up command took longer than {limit:g} s: {command}", tail_of(log))
        if exited.signal or exited.exit_code:
            how = (
                f"was killed by signal {exited.signal}"
                if exited.signal
                else f"exited with code {exited.exit_code}"
            )
            raise SetupFailed(f"the set-up command {how}: {command}", tail_of(log))
        return took

    async def _execute(self, command: str, tree: Path, log: Path, limit: float) -> Exited | None:
        """How it ended; None: it was stopped after its time."""
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await self._launcher.launch(
                ["/bin/sh", "-c", command],
                environment=setup_environment(),
                working_dir=str(tree),
                descriptors=(null, output, output),
            )
        except LaunchRefused as error:
            raise SetupFailed(str(error), "") from None
        finally:
            os.close(null)
            os.close(output)
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(process.exited)
        except TimeoutError:
            self._launcher.kill(process, first_signal=15, grace_seconds=TERM_SECONDS)
            await process.exited
            return None
        except asyncio.CancelledError:
            # Its run is over: the next who needs the tree must not meet this process in it.
            try:
                self._launcher.kill(process)
                await process.exited
            except LauncherLost:
                pass
            raise


def setup_environment() -> dict[str, str]:
    """The worker's own environment, less what is dtf's; `python` is the worker's."""
    environment = user_environment()
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    return environment


def tail_of(log: Path) -> str:
    """The end of what was printed."""
    try:
        return log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
