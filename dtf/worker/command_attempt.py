"""Runs one command for one attempt: its output streams to the coordinator, its tree ends with it.

The verdict is the exit code's, unless a JUnit file is named: then it is that of the cases in it. A
command that cannot be started is an error, with the reason. A result file that was there before
and was not written anew counts as missing.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from dtf.api.v1 import common_pb2, events_pb2
from dtf.ports.clock import Clock
from dtf.runner.channel import ResultItem
from dtf.runner.launch_messages import Exited
from dtf.worker.launcher_client import LauncherClient, LaunchRefused, Process
from dtf.worker.leases import Lease
from dtf.worker.reporter import Reporter, tail
from dtf.worker.result_files import ResultFileError, read_benchmarks, read_junit, verdict_of
from dtf.worker.runner_pool import user_environment
from dtf.worker.warm_process import StopReason

PIECE_BYTES = 256 * 1024
LINGER_SECONDS = 0.2
"""Output is sent when there is a piece of it or after this time."""
MAX_OUTPUT_BYTES = 64 * 2**20
TAIL_BYTES = 8 * 1024
END_OF_OUTPUT_SECONDS = 5.0
"""Time for the output to end after the last process of the tree did."""
TERM_SECONDS = 2.0
"""Time between SIGTERM and SIGKILL for an overdue command."""
CUT = f"\n[dtf: output beyond {MAX_OUTPUT_BYTES >> 20} MiB is not kept]\n".encode()


class Commands:
    """Starts command attempts."""

    def __init__(
        self, launcher: LauncherClient, reporter: Reporter, tasks: asyncio.TaskGroup, clock: Clock
    ) -> None:
        self._launcher = launcher
        self._reporter = reporter
        self._tasks = tasks
        self._clock = clock

    def start(
        self, lease: Lease, template: common_pb2.TaskTemplate, timeout_seconds: float
    ) -> "CommandAttempt":
        """Begin an attempt; its `on_end` is called when it was reported."""
        attempt = CommandAttempt(
            lease, template.command, timeout_seconds, self._launcher, self._reporter, self._clock
        )
        self._tasks.create_task(attempt.run())
        return attempt


@dataclass(slots=True)
class _Output:
    """What a command printed so far."""

    kept: bytearray = field(default_factory=bytearray)
    total_bytes: int = 0

    def add(self, data: bytes) -> bytes:
        """Note `data`; return what of it is to be uploaded."""
        self.kept += data
        del self.kept[:-TAIL_BYTES]
        before, self.total_bytes = self.total_bytes, self.total_bytes + len(data)
        room = MAX_OUTPUT_BYTES - before
        if room <= 0:
            return b""
        return data if len(data) <= room else data[:room] + CUT

    @property
    def tail(self) -> str:
        """The end of it."""
        return bytes(self.kept).decode(errors="replace")


class CommandAttempt:
    """One command that runs."""

    def __init__(
        self,
        lease: Lease,
        spec: common_pb2.CommandSpec,
        timeout_seconds: float,
        launcher: LauncherClient,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self.lease = lease
        self.on_end: Callable[[], None] = lambda: None
        self._spec = spec
        self._timeout_seconds = timeout_seconds
        self._launcher = launcher
        self._reporter = reporter
        self._clock = clock
        self._process: Process | None = None
        self._stop_reason: StopReason | None = None
        self._output = _Output()
        self._started = clock.monotonic()
        self._started_at = clock.now_ns() / 1e9

    def cancel(self) -> None:
        """End it at once, because its run was cancelled or the worker stops."""
        self._stop(StopReason(common_pb2.OUTCOME_CANCELLED, "cancelled while it ran"), 0.0)

    def tick(self, now: float) -> None:
        """End it if it has run too long."""
        if now > self._started + self._timeout_seconds:
            words = f"stopped after its timeout of {self._timeout_seconds:g} s"
            self._stop(StopReason(common_pb2.OUTCOME_TIMED_OUT, words), TERM_SECONDS)

    def _stop(self, reason: StopReason, grace_seconds: float) -> None:
        if self._stop_reason is None:
            self._stop_reason = reason
            if self._process is not None:
                self._launcher.kill(self._process, first_signal=signal.SIGTERM, grace_seconds=grace_seconds)

    async def run(self) -> None:
        """Run it to its end and report it.

        One that is cancelled ends with its session: its slot is not to be filled again.
        """
        await self._run()
        self.on_end()

    async def _run(self) -> None:
        before = [modified_at(path) for path in self._result_paths()]
        try:
            argv = [*self._spec.argv, *payload_arguments(self.lease.payload)]
            exited = await self._execute(argv)
        except (LaunchRefused, ValueError) as error:
            self._reporter.error(self.lease, str(error))
            return
        if self._stop_reason is not None:
            self._report_stopped(self._stop_reason, exited)
        else:
            self._report(exited, before)

    async def _execute(self, argv: Sequence[str]) -> Exited:
        """Launch, stream the output, wait for the end. Raises LaunchRefused."""
        reader_fd, writer_fd = os.pipe()
        stdin_fd = open_stdin(self._spec.stdin)
        try:
            process = await self._launcher.launch(
                argv,
                environment=user_environment() | dict(self._spec.environment),
                working_dir=self._spec.working_dir,
                descriptors=(stdin_fd, writer_fd, writer_fd),
            )
        except BaseException:
            os.close(reader_fd)
            raise
        finally:
            os.close(stdin_fd)
            os.close(writer_fd)
        self._process = process
        if self._stop_reason is not None:
            self._launcher.kill(process)
        async with asyncio.TaskGroup() as tasks:
            streaming = tasks.create_task(self._stream(reader_fd))
            exited = await process.exited
            _, late = await asyncio.wait([streaming], timeout=END_OF_OUTPUT_SECONDS)
            for task in late:
                task.cancel()
        return exited

    async def _stream(self, descriptor: int) -> None:
        """Upload the output as it comes; the command waits when the coordinator cannot take more."""
        reader = asyncio.StreamReader(PIECE_BYTES)
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), pipe
            )
            try:
                while piece := await read_piece(reader):
                    if kept := self._output.add(piece):
                        await self._reporter.upload_output(self.lease, kept)
            finally:
                transport.close()

    def _result_paths(self) -> list[Path]:
        names = (self._spec.junit_xml, self._spec.benchmark_json)
        return [Path(self._spec.working_dir or ".") / name for name in names if name]

    def _report_stopped(self, reason: StopReason, exited: Exited) -> None:
        self._reporter.end(
            self.lease,
            reason.outcome,
            reason.words,
            running_case=0,
            output=self._output.tail,
            exit_code=exited.exit_code,
            duration_seconds=self._clock.monotonic() - self._started,
        )

    def _report(self, exited: Exited, before: list[int]) -> None:
        detail = events_pb2.CaseDetail(exit_code=exited.exit_code, output_tail=tail(self._output.tail))
        verdict = common_pb2.VERDICT_PASSED
        if exited.exit_code or exited.signal:
            verdict = common_pb2.VERDICT_FAILED
            detail.message = ending(exited)
        try:
            verdict = self._read_result_files(detail, verdict, exited, before)
        except ResultFileError as error:
            detail.message = "; ".join(filter(None, (detail.message, str(error))))
            if verdict == common_pb2.VERDICT_PASSED:
                verdict = common_pb2.VERDICT_ERROR
        item = ResultItem(
            self.lease.fence,
            0,
            verdict,
            self._clock.monotonic() - self._started,
            exited.cpu_seconds,
            exited.peak_memory_bytes,
            self._started_at,
            True,
        )
        self._reporter.found(self.lease, item, detail)

    def _read_result_files(
        self,
        detail: events_pb2.CaseDetail,
        verdict: "common_pb2.Verdict.ValueType",
        exited: Exited,
        before: list[int],
    ) -> "common_pb2.Verdict.ValueType":
        """Add what result files say to the detail; the verdict with them. Raises ResultFileError."""
        paths = self._result_paths()
        for path, old in zip(paths, before, strict=True):
            if modified_at(path) in (0, old):
                raise ResultFileError(f"it did not write {path}")
        if self._spec.benchmark_json:
            detail.measurements.extend(read_benchmarks(paths[-1], self._spec.benchmark_format))
        if self._spec.junit_xml:
            cases = read_junit(paths[0])
            detail.found.extend(cases.listed)
            if cases.message:
                detail.message = "; ".join(filter(None, (cases.message, detail.message)))
            if cases.count and not exited.signal:
                return verdict_of(cases)
        return verdict


def payload_arguments(payload: str) -> list[str]:
    """The arguments that a task's payload adds. Raises ValueError."""
    if not payload:
        return []
    try:
        return msgspec.json.decode(payload, type=list[str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ValueError(f"the payload is {payload[:80]!r}; expected a JSON array of strings") from None


def open_stdin(content: bytes) -> int:
    """A descriptor from which `content` can be read."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY)
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return os.dup(file.fileno())


def modified_at(path: Path) -> int:
    """When a file was last written, in nanoseconds; 0: it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def ending(exited: Exited) -> str:
    """How a command ended, in words."""
    return f"killed by signal {exited.signal}" if exited.signal else f"exited with code {exited.exit_code}"


async def read_piece(reader: asyncio.StreamReader) -> bytes:
    """The next output, gathered for a while; empty at its end."""
    data = await reader.read(PIECE_BYTES)
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while data and len(data) < PIECE_BYTES:
                more = await reader.read(PIECE_BYTES - len(data))
                if not more:
                    break
                data += more
    except TimeoutError:
        pass
    return data
