"""The supervisor as a process: started once, known by its lock, collected when it has ended."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dtf.client.supervisor_connection import StackError
from dtf.settings.loader import dump_settings, without_settings
from dtf.settings.model import Settings
from dtf.settings.project import SUPERVISOR_LOCK, make_private_dir

SUPERVISOR_PROGRAM = (sys.executable, "-P", "-m", "dtf.cli.supervisor")
"""-P: the files of the project, where it runs, must not stand in for modules of ours."""
STOP_TIMEOUT_SECONDS = 60.0
EXIT_TIMEOUT_SECONDS = 10.0
_RETRY_SECONDS = 0.05

_started_here: "list[subprocess.Popen[bytes]]" = []
"""Supervisors this process started and has left; they are its children and must be collected."""


def spawn(
    supervisor: Sequence[str], project_dir: Path, state: Path, settings: Settings, deadline: float
) -> "subprocess.Popen[bytes] | None":
    """Start a supervisor unless another does; returns when one listens, or after a moment to look again."""
    with (state / "join.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_locked(state / SUPERVISOR_LOCK):
            _wait_a_moment(deadline)
            return None
        starter = _start_supervisor([*supervisor, str(project_dir)], project_dir, state, settings)
        assert starter.stdout is not None
        if starter.stdout.readline():
            return starter
        code = starter.wait(EXIT_TIMEOUT_SECONDS)
        with releasing(starter):
            pass
        raise StackError(
            f"the supervisor ended at once (exit code {code}){_last_line(state / 'logs' / 'supervisor.log')}",
            "`dtf doctor` checks this machine; .dtf/logs/supervisor.log has what it said",
        )


def _start_supervisor(
    command: Sequence[str], project_dir: Path, state: Path, settings: Settings
) -> "subprocess.Popen[bytes]":
    logs = make_private_dir(state / "logs")
    log_descriptor = os.open(logs / "supervisor.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    try:
        starter = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_descriptor,
            cwd=project_dir,
            # The settings travel whole; what is started with these here must not see them twice.
            env=without_settings(os.environ),
            start_new_session=True,
        )
    finally:
        os.close(log_descriptor)
    assert starter.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        starter.stdin.write(dump_settings(settings).replace("\n", " ").encode() + b"\n")
        starter.stdin.flush()
    return starter


def await_end(lock_file: Path) -> None:
    """Return when the supervisor, which is on its way out, is gone; collect it if it was started here."""
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        _collect_ended()
        if not _is_locked(lock_file):
            break
        time.sleep(_RETRY_SECONDS)
    _collect_ended()


def _collect_ended() -> None:
    _started_here[:] = [starter for starter in _started_here if starter.poll() is None]


def _is_locked(path: Path) -> bool:
    """Whether a supervisor, or what is left of one, holds the lock."""
    try:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # someone removed the state directory
        return False
    return False


def _wait_a_moment(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise StackError(
            "another stack of this project neither serves nor ends",
            "`dtf down --now` stops it; .dtf/logs/supervisor.log may say what it waits for",
        )
    time.sleep(_RETRY_SECONDS)


def _last_line(path: Path) -> str:
    """The last error in a log, else its last line, after a colon."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    errors = [line.partition(" ERROR ")[2] for line in lines if " ERROR " in line]
    return f": {(errors or lines)[-1]}" if lines else ""


def raise_if_failed(starter: "subprocess.Popen[bytes]", state: Path) -> None:
    """Say why the supervisor started here ended, if it failed before it could tell its first member."""
    with releasing(starter):
        pass
    try:
        code = starter.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return
    if code:
        raise StackError(
            f"the stack did not come up (exit code {code}){_last_line(state / 'logs' / 'supervisor.log')}",
            "`dtf doctor` checks this machine; .dtf/logs/ has what each part said",
        )


@contextlib.contextmanager
def releasing(starter: "subprocess.Popen[bytes] | None") -> Iterator[None]:
    """The open standard input of a supervisor is a hold on it, until this process has joined."""
    try:
        yield
    finally:
        for pipe in (starter.stdin, starter.stdout) if starter is not None else ():
            if pipe is not None:
                pipe.close()


def leave_to_others(starter: "subprocess.Popen[bytes] | None") -> None:
    """This process is done with a supervisor it started; it is collected here when it ends."""
    if starter is not None:
        _started_here.append(starter)
