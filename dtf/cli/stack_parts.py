"""The parts of a stack, each a process that is started, watched and stopped.

A part says on standard output, in one JSON line, that it is ready and where it listens; everything
else it says goes to its log. Its end before that line is a PartFailed that quotes its last error.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dtf.adapters.nats_errors import NatsServerError
from dtf.adapters.nats_server import NatsServer

DTF_PROGRAM = (sys.executable, "-P", "-m", "dtf.cli.main")
"""-P: the files of the project, where the stack runs, must not stand in for modules of ours."""
READY_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 15.0
_LINE_LIMIT_BYTES = 1 << 20


class PartFailed(Exception):
    """A part did not become ready. `is_final`: it said so itself, and trying again is of no use."""

    def __init__(self, what: str, *advice: str, is_final: bool, exit_code: int | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice
        self.is_final = is_final
        self.exit_code = exit_code


class Part(Protocol):
    """One process of the stack."""

    @property
    def name(self) -> str:
        """As people know it: "coordinator"."""
        ...

    @property
    def process_id(self) -> int:
        """Of the process itself (not of a guard); 0 while it does not run."""
        ...

    async def start(self) -> None:
        """Start it and return when it is ready. Raises PartFailed."""
        ...

    async def wait(self) -> str:
        """Return when it has ended, and say how."""
        ...

    async def stop(self) -> None:
        """Let it end in good order; kill it if it does not."""
        ...


class RestartPolicy:
    """How soon a part that died is started again: at once, then slower, and at last not at all."""

    MOST_DEATHS = 6
    WINDOW_SECONDS = 60.0
    FIRST_DELAY_SECONDS = 0.2

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    def delay_after_death(self, now: float) -> float | None:
        """Seconds to wait before the next start; None: it keeps dying, give it up."""
        self._deaths.append(now)
        while now - self._deaths[0] > self.WINDOW_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) >= self.MOST_DEATHS:
            return None
        if len(self._deaths) == 1:
            return 0.0
        return self.FIRST_DELAY_SECONDS * float(2 ** (len(self._deaths) - 2))


class NatsPart:
    """The broker, on the port of its first start."""

    name = "nats-server"

    def __init__(self, server: NatsServer, on_ready: Callable[[NatsServer], None]) -> None:
        self._server = server
        self._on_ready = on_ready

    @property
    def process_id(self) -> int:
        """Of nats-server itself; 0 while it does not run."""
        if self._server.guard_pid is None:
            return 0
        try:
            return self._server.server_pid
        except (OSError, ValueError):
            return 0

    async def start(self) -> None:
        """Start it and return when it takes connections. Raises PartFailed."""
        try:
            await self._server.start()
        except NatsServerError as error:
            raise PartFailed(str(error), is_final=True) from error
        self._on_ready(self._server)

    async def wait(self) -> str:
        """Return when it has ended, and say how."""
        code = await self._server.wait()
        return describe_exit(code if code < 128 else 128 - code)

    async def stop(self) -> None:
        """Let it close its store."""
        await self._server.stop(STOP_TIMEOUT_SECONDS)


class CommandPart:
    """A part that is a `dtf` command."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        *,
        log_file: Path,
        working_dir: Path,
        inherited: Sequence[int],
    ) -> None:
        self._name = name
        self._command = command
        self._log_file = log_file
        self._working_dir = working_dir
        self._inherited = tuple(inherited)
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def name(self) -> str:
        """As people know it."""
        return self._name

    @property
    def process_id(self) -> int:
        """Of the process; 0 while it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else 0

    async def start(self) -> None:
        """Start it and return when it is ready. Raises PartFailed."""
        log = os.open(self._log_file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = await asyncio.create_subprocess_exec(
                *self._command(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._working_dir,
                pass_fds=self._inherited,
                limit=_LINE_LIMIT_BYTES,
            )
        finally:
            os.close(log)
        await self._await_ready(self._process)

    async def _await_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(READY_TIMEOUT_SECONDS):
                while line := await process.stdout.readline():
                    if _says_ready(line):
                        return
                code = await process.wait()
        except TimeoutError:
            await self.stop()
            raise PartFailed(
                f"{self._name} was not ready within {READY_TIMEOUT_SECONDS:.0f} s",
                f"its log is {self._log_file}",
                is_final=False,
            ) from None
        except BaseException:
            await self.stop()
            raise
        raise self._failure(code)

    def _failure(self, code: int) -> PartFailed:
        what, *advice = self._last_error() or [f"it ended before it was ready ({describe_exit(code)})"]
        return PartFailed(
            f"{self._name}: {what}",
            *advice,
            f"its log is {self._log_file}",
            is_final=code > 0,
            exit_code=code,
        )

    def _last_error(self) -> list[str]:
        """The last `error:` of its log since this start, with the indented lines that follow it."""
        try:
            with self._log_file.open(errors="replace") as log:
                log.seek(self._log_start)
                lines = log.read().splitlines()
        except OSError:
            return []
        starts = [index for index, line in enumerate(lines) if line.startswith("error: ")]
        if not starts:
            return []
        found = [lines[starts[-1]].removeprefix("error: ")]
        for line in lines[starts[-1] + 1 :]:
            if not line.startswith("  "):
                break
            found.append(line.strip())
        return found

    async def wait(self) -> str:
        """Return when it has ended, and say how."""
        assert self._process is not None and self._process.stdout is not None
        while await self._process.stdout.read(1 << 16):
            pass
        return describe_exit(await self._process.wait())

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it does not end in time."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _says_ready(line: bytes) -> bool:
    try:
        document = json.loads(line)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("ready") is True


def describe_exit(code: int) -> str:
    """ "exit code 3", or "killed by signal 9 (SIGKILL)" for a negative code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"
