"""`python -m dtf.runner.launcher`: starts processes for a worker and ends them, each with its whole tree.

It is free of gRPC and has one thread, so that forking is safe; it is the parent of everything that
runs user code, so that nothing outlives it: when the worker's socket closes, when the lifeline
closes or on SIGTERM it kills every descendant and exits.

The worker's socket is its standard input; DTF_LIFELINE_FD, if set, is a pipe whose end means the
same. Neither is inherited by what it starts.
"""

import contextlib
import ctypes  # noqa: F401 - loaded before the first fork, for process_tree.die_with_parent
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dtf.runner import process_tree
from dtf.runner.launch_messages import (
    Exited,
    Frames,
    FromLauncher,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    decode_to_launcher,
    encode,
)

DESCRIPTORS_VARIABLE = "DTF_RUNNER_FDS"
LIFELINE_VARIABLE = "DTF_LIFELINE_FD"
_MAX_DESCRIPTORS = 64
_KIB = 1024 if sys.platform != "darwin" else 1


@dataclass(slots=True)
class Leader:
    """A process that was launched and has not been reaped."""

    id: int
    process_id: int
    cookie: str
    kill_at: float | None = None
    """When its tree is killed, on the monotonic clock."""


class Launcher:
    """One worker's launcher."""

    def __init__(self, worker: socket.socket, lifeline: int | None) -> None:
        self._worker = worker
        self._lifeline = lifeline
        self._frames = Frames()
        self._descriptors: deque[int] = deque()
        self._leaders: dict[int, Leader] = {}
        self._by_id: dict[int, Leader] = {}
        self._unsent = bytearray()
        self._is_stopping = False
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wakeup_writer = os.pipe()

    def run(self) -> None:
        """Serve until the worker is gone; then nothing that was launched is left."""
        self._prepare()
        try:
            while not self._is_stopping:
                for key, _ in self._selector.select(self._patience()):
                    self._handle_ready(key.fd)
                self._kill_overdue()
                self._reap()
                self._flush()
        finally:
            process_tree.kill_until_none(self._everything)

    def _prepare(self) -> None:
        process_tree.become_subreaper()
        self._worker.setblocking(False)
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_writer, False)
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._selector.register(self._worker.fileno(), selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        if self._lifeline is not None:
            self._selector.register(self._lifeline, selectors.EVENT_READ)

    def _stop(self, *_: object) -> None:
        self._is_stopping = True

    def _patience(self) -> float | None:
        """Seconds until a tree must be killed; None: no such time."""
        times = [leader.kill_at for leader in self._leaders.values() if leader.kill_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _handle_ready(self, descriptor: int) -> None:
        if descriptor == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
        elif descriptor == self._lifeline:
            self._is_stopping = not os.read(descriptor, 4096)
        else:
            self._read_worker()

    def _read_worker(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._worker, 1 << 16, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except ConnectionError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not data:
            self._is_stopping = True
            return
        for body in self._frames.feed(data):
            match decode_to_launcher(body):
                case Launch() as launch:
                    self._launch(launch)
                case Kill() as kill:
                    self._kill(kill)

    def _launch(self, launch: Launch) -> None:
        descriptors = [self._descriptors.popleft() for _ in range(launch.descriptor_count)]
        cookie = f"{os.getpid()}.{launch.id}"
        try:
            process_id = start(launch, descriptors, cookie)
        except (OSError, ValueError) as error:
            self._send(LaunchFailed(launch.id, explain(launch, error)))
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        leader = Leader(launch.id, process_id, cookie)
        self._leaders[process_id] = self._by_id[launch.id] = leader
        self._send(Launched(launch.id, process_id))

    def _kill(self, kill: Kill) -> None:
        """Begin to end a tree; one that has ended already is none of our business."""
        leader = self._by_id.get(kill.id)
        if leader is None:
            return
        if kill.grace_seconds > 0:
            os.kill(leader.process_id, kill.first_signal)
        deadline = time.monotonic() + kill.grace_seconds
        leader.kill_at = deadline if leader.kill_at is None else min(deadline, leader.kill_at)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for leader in self._leaders.values():
            if leader.kill_at is not None and leader.kill_at <= now:
                leader.kill_at = None
                os.kill(leader.process_id, signal.SIGKILL)

    def _reap(self) -> None:
        """Report leaders that ended, with what was left of their trees killed; bury orphans."""
        while (ended := reap_child(self._leader_ended)) is not None:
            process_id, status, usage = ended
            leader = self._leaders.get(process_id)
            if leader is not None:
                self._report(leader, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _KIB)

    def _leader_ended(self, process_id: int) -> None:
        leader = self._leaders.get(process_id)
        if leader is not None:
            self._kill_rest(leader)

    def _kill_rest(self, leader: Leader) -> None:
        process_tree.kill_group(leader.process_id)
        process_tree.kill_until_none(
            lambda: process_tree.members(leader.process_id, leader.cookie, self._leaders)
        )

    def _report(self, leader: Leader, status: int, cpu_seconds: float, peak_bytes: int) -> None:
        del self._leaders[leader.process_id]
        del self._by_id[leader.id]
        code = os.waitstatus_to_exitcode(status)
        self._send(Exited(leader.id, max(code, 0), max(-code, 0), cpu_seconds, peak_bytes))

    def _send(self, message: FromLauncher) -> None:
        self._unsent += encode(message)

    def _flush(self) -> None:
        """Write what the socket takes now; come back for the rest."""
        try:
            while self._unsent:
                del self._unsent[: self._worker.send(self._unsent)]
        except BlockingIOError:
            pass
        except ConnectionError:
            self._is_stopping = True
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._worker.fileno(), events)

    def _everything(self) -> list[int]:
        return [pid for pid in process_tree.descendants(os.getpid()) if process_tree.is_alive(pid)]


def start(launch: Launch, descriptors: list[int], cookie: str) -> int:
    """Start the process of `launch` and return its number. Raises OSError."""
    stdin, stdout, stderr, *passed = descriptors
    environment = launch.environment | {process_tree.COOKIE_VARIABLE: cookie}
    if passed:
        environment[DESCRIPTORS_VARIABLE] = ",".join(map(str, passed))
    process = subprocess.Popen(
        launch.argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=launch.working_dir or None,
        env=environment,
        pass_fds=passed,
        start_new_session=True,
        preexec_fn=process_tree.die_with_parent,  # safe: this process has one thread
    )
    # It is reaped by number in Launcher._reap, which also reports what it used.
    process.returncode = 0
    return process.pid


def explain(launch: Launch, error: Exception) -> str:
    """One line that says what could not be started and why."""
    program = launch.argv[0] if launch.argv else "(no program)"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.filename == launch.working_dir and launch.working_dir:
        where = f"cannot enter the working directory {launch.working_dir}: {reason}"
        return f"{where} (where the code is on another machine only, let it travel: --workspace pack)"
    return f"cannot start {program}: {reason}"


def reap_child(on_ended: Callable[[int], None]) -> tuple[int, int, resource.struct_rusage] | None:
    """Reap a child that ended: its number, status and usage; None: there is none now.

    `on_ended` is called before the child is reaped, when its number is no other process's yet;
    where the system cannot show a child before it is reaped (macOS), right after.
    """
    try:
        if not hasattr(os, "waitid"):
            process_id, status, usage = os.wait4(-1, os.WNOHANG)
            if process_id:
                on_ended(process_id)
            return (process_id, status, usage) if process_id else None
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        on_ended(found.si_pid)
        return os.wait4(found.si_pid, 0)
    except ChildProcessError:
        return None


def main() -> int:
    """Serve the worker at standard input."""
    worker = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    name = os.environ.pop(LIFELINE_VARIABLE, "")
    lifeline = int(name) if name else None
    if lifeline is not None:
        os.set_inheritable(lifeline, False)
    Launcher(worker, lifeline).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
