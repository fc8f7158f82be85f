"""Workers as processes of this machine.

Each launch has a record in a directory, written before the process is started and again once it
runs, so that a provider started after a kill -9 finds its processes again and starts none twice:

    asked ──▶ running (process id, start time) ──▶ exited (how)

A record that says "asked" when a provider starts may or may not have a process: it is looked for
by the environment variable that names its record. Process ids are trusted together with the start
time only. Exits are heard from the kernel (pidfd) where it tells, and polled for elsewhere.

The workers run in sessions of their own and outlive the provider; they end with the lifeline of
their stack, which they inherit.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from dtf.adapters.worker_command import worker_command
from dtf.adapters.worker_log import last_words
from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, ProviderError, WorkerCommand
from dtf.ports.clock import Clock

RECORD_VARIABLE = "DTF_LAUNCH_RECORD"
LAUNCH_VARIABLE = "DTF_WORKER_LAUNCH_ID"
LIFELINE_VARIABLE = "DTF_LIFELINE_FD"
POLL_SECONDS = 0.25
"""Where the kernel does not tell of exits."""
FAILURE_LOGS_KEPT = 50


class LaunchRecord(msgspec.Struct):
    """What is on disk of one launch."""

    launch_id: str
    launched_at_ns: int
    process_id: int = 0
    process_started: float = 0.0
    """As psutil gives it; tells a process from a later one with its id."""
    has_exited: bool = False
    reason: str = ""
    is_clean: bool = False


def dtf_worker_command(server: str, token_file: str, options: Sequence[str] = ()) -> WorkerCommand:
    """The command line of a worker of a coordinator. `options` are global ones of `dtf`."""
    program = [sys.executable, "-P", "-m", "dtf.cli.main", *options]
    return worker_command(program, ["--server", server, "--token-file", token_file])


class ProcessProvider:
    """A CapacityProvider whose instances are processes. Call `start` first."""

    def __init__(
        self,
        command: WorkerCommand,
        *,
        records_dir: Path,
        logs_dir: Path,
        clock: Clock,
        working_dir: Path | None = None,
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self._command = command
        self._records_dir = records_dir
        self._logs_dir = logs_dir
        self._clock = clock
        self._working_dir = working_dir
        self._environment = environment
        self._inherited = tuple(inherited)
        self._records: dict[str, LaunchRecord] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watches: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._exits: asyncio.Queue[Instance] = asyncio.Queue()

    async def start(self) -> None:
        """Find the launches of an earlier provider and watch those that run."""
        for directory in (self._records_dir, self._logs_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(self._records_dir.glob("*.json")):
            record = _read_record(path)
            if record is not None:
                self._records[record.launch_id] = record
                self._adopt(record)

    @property
    def child_ids(self) -> frozenset[int]:
        """Process ids of the launches that are children of this process and were not seen to end."""
        return frozenset(child.pid for child in self._children.values())

    async def launch(self, request: LaunchRequest) -> Instance:
        """Start a worker unless its launch is known."""
        known = self._records.get(request.launch_id)
        if known is not None and (known.process_id or known.has_exited):
            return _instance(known)
        record = LaunchRecord(request.launch_id, self._clock.now_ns())
        self._records[request.launch_id] = record
        try:
            self._write(record)
            self._start_process(request, record)
            self._write(record)
        except OSError as error:
            self._records.pop(request.launch_id, None)
            self._path(request.launch_id).unlink(missing_ok=True)
            raise ProviderError(f"no worker process could be started: {error}") from error
        self._watch(record)
        return _instance(record)

    async def list_instances(self) -> Sequence[Instance]:
        """Every launch that was not forgotten, by launch id."""
        for record in self._records.values():
            self._notice_exit(record)
        return [_instance(record) for _, record in sorted(self._records.items())]

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL to its process group after `grace_seconds`."""
        record = self._records.get(launch_id)
        if record is None or record.has_exited or launch_id in self._timers:
            return
        _send(record, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        self._timers[launch_id] = loop.call_later(grace_seconds, _kill_group, record)

    async def forget(self, launch_id: str) -> None:
        """Drop the record of an exited launch, and its log if it ended well."""
        record = self._records.get(launch_id)
        if record is None or not record.has_exited:
            return
        del self._records[launch_id]
        self._path(launch_id).unlink(missing_ok=True)
        if record.is_clean:
            self._log_path(launch_id).unlink(missing_ok=True)
        else:
            self._drop_old_logs()

    async def exits(self) -> AsyncIterator[Instance]:
        """Each running instance as it exits."""
        while True:
            yield await self._exits.get()

    async def close(self) -> None:
        """Stop watching; the processes go on."""
        for timer in self._timers.values():
            timer.cancel()
        for launch_id in list(self._watches):
            self._unwatch(launch_id)
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # it goes on without us, and Popen need not warn of that
        self._children.clear()

    def _start_process(self, request: LaunchRequest, record: LaunchRecord) -> None:
        environment = dict(os.environ if self._environment is None else self._environment)
        environment[RECORD_VARIABLE] = str(self._path(request.launch_id).absolute())
        environment[LAUNCH_VARIABLE] = request.launch_id
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        log = os.open(self._log_path(request.launch_id), flags, 0o600)
        try:
            child = subprocess.Popen(
                list(self._command(request)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._working_dir,
                env=environment,
                pass_fds=self._inherited,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._children[request.launch_id] = child
        record.process_id = child.pid
        record.process_started = _started_at(child.pid)

    def _adopt(self, record: LaunchRecord) -> None:
        if record.has_exited:
            return
        if not record.process_id:
            found = _find_process(self._path(record.launch_id).absolute())
            if found is None:
                del self._records[record.launch_id]  # it was never started
                self._path(record.launch_id).unlink(missing_ok=True)
                return
            record.process_id, record.process_started = found.pid, found.create_time()
            self._write(record)
        if not self._notice_exit(record):
            self._watch(record)

    def _watch(self, record: LaunchRecord) -> None:
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(record.process_id)
        except (AttributeError, OSError):
            loop.call_later(POLL_SECONDS, self._poll, record)
            return
        self._watches[record.launch_id] = descriptor
        loop.add_reader(descriptor, self._on_exit, record)

    def _poll(self, record: LaunchRecord) -> None:
        if record.launch_id in self._records and not record.has_exited:
            self._on_exit(record)
            if not record.has_exited:
                asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll, record)

    def _unwatch(self, launch_id: str) -> None:
        descriptor = self._watches.pop(launch_id, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def _on_exit(self, record: LaunchRecord) -> None:
        if self._notice_exit(record):
            self._exits.put_nowait(_instance(record))

    def _notice_exit(self, record: LaunchRecord) -> bool:
        """Whether `record` says now, and did not before, that the process has exited."""
        if record.has_exited:
            return False
        child = self._children.get(record.launch_id)
        if child is not None:
            code = child.poll()
            if code is None:
                return False
            record.reason, record.is_clean = _describe(code), code == 0
        elif _is_running(record):
            return False
        else:
            record.reason = "ended while another process watched over it, so its exit code is not known"
        record.has_exited = True
        self._children.pop(record.launch_id, None)
        if record.reason.startswith("exited") and not record.is_clean:
            said = last_words(self._log_path(record.launch_id))
            record.reason += f" ({said})" if said else ""
        self._unwatch(record.launch_id)
        if timer := self._timers.pop(record.launch_id, None):
            timer.cancel()
        self._write(record)
        return True

    def _drop_old_logs(self) -> None:
        running = {self._log_path(launch_id) for launch_id in self._records}
        logs = [path for path in self._logs_dir.glob("worker-*.log") if path not in running]
        for path in sorted(logs, key=lambda path: path.stat().st_mtime)[:-FAILURE_LOGS_KEPT]:
            path.unlink(missing_ok=True)

    def _path(self, launch_id: str) -> Path:
        return self._records_dir / f"{launch_id}.json"

    def _log_path(self, launch_id: str) -> Path:
        return self._logs_dir / f"worker-{launch_id}.log"

    def _write(self, record: LaunchRecord) -> None:
        path = self._path(record.launch_id)
        scratch = path.with_suffix(".new")
        scratch.write_bytes(msgspec.json.encode(record))
        scratch.replace(path)


def _read_record(path: Path) -> LaunchRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LaunchRecord)
    except (OSError, msgspec.MsgspecError):
        return None


def _instance(record: LaunchRecord) -> Instance:
    state = InstanceState.EXITED if record.has_exited else InstanceState.RUNNING
    handle = f"process {record.process_id}"
    return Instance(record.launch_id, state, record.launched_at_ns, handle, record.reason, record.is_clean)


def _started_at(process_id: int) -> float:
    try:
        return float(psutil.Process(process_id).create_time())
    except psutil.Error:
        return 0.0


def _is_running(record: LaunchRecord) -> bool:
    try:
        process = psutil.Process(record.process_id)
        is_same = abs(process.create_time() - record.process_started) < 1.0
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _find_process(record_path: Path) -> psutil.Process | None:
    """The worker whose environment names this record: the session leader, not what it started."""
    process: psutil.Process
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(RECORD_VARIABLE) == str(record_path)
                and os.getsid(process.pid) == process.pid
            ):
                return process
        except (psutil.Error, OSError):
            continue
    return None


def _describe(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"was killed by signal {-code}"


def _send(record: LaunchRecord, number: signal.Signals) -> None:
    if _is_running(record):
        try:
            os.kill(record.process_id, number)
        except ProcessLookupError:
            return


def _kill_group(record: LaunchRecord) -> None:
    if _is_running(record):
        try:
            os.killpg(record.process_id, signal.SIGKILL)
        except ProcessLookupError:
            return
