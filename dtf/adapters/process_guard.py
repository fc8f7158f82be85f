"""Runs a command that cannot watch a lifeline itself, and ends it when its owner is gone.

    python -I -S process_guard.py LOG_FILE COMMAND [ARGUMENT …]

The owner holds the other end of standard input (and, under a supervisor, of the pipe named by
DTF_LIFELINE_FD). When either closes the command is killed, whatever way the owner went. SIGTERM
and SIGINT are passed on as SIGTERM. The command's output is appended to LOG_FILE, and copied to
standard output as far as somebody reads there. The exit code is the command's own.

The kernel kills the command too if the guard itself is killed (Linux; elsewhere the guard is
the only watch). It imports little, because it stays in memory as long as the command.
"""

import os
import selectors
import signal
import subprocess
import sys
from typing import Any

_GRACE_SECONDS = 10
"""After SIGTERM; nats-server flushes its store well within it."""
_MAX_LOG_BYTES = 8 * 2**20
"""At the start a larger log file is moved aside, so that two are kept at most."""


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    log_path, command = arguments[0], arguments[1:]
    if os.path.exists(log_path) and os.path.getsize(log_path) > _MAX_LOG_BYTES:  # noqa: PTH110, PTH202
        os.replace(log_path, log_path + ".1")  # noqa: PTH105
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent,
    )
    _pass_on_signals(process)
    os.set_blocking(1, False)
    _watch(process, log)
    return _finish(process)


def _die_with_parent() -> None:
    """In the child, before exec: ask Linux to kill it when the guard dies."""
    if sys.platform != "linux":
        return
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _pass_on_signals(process: "subprocess.Popen[bytes]") -> None:
    def stop(_number: int, _frame: Any) -> None:
        process.terminate()
        signal.alarm(_GRACE_SECONDS)

    def kill(_number: int, _frame: Any) -> None:
        process.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGALRM, kill)


def _watch(process: "subprocess.Popen[bytes]", log: int) -> None:
    """Copy the command's output until it ends; kill it when a lifeline does."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        for lifeline in _lifelines():
            selector.register(lifeline, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = _read(key.fd)
                if key.fd != output:
                    if not data:
                        process.kill()
                        selector.unregister(key.fd)
                elif data:
                    _copy(data, log)
                else:
                    return


def _lifelines() -> set[int]:
    inherited = os.environ.get("DTF_LIFELINE_FD", "")
    return {0, int(inherited)} if inherited.isdigit() else {0}


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def _copy(data: bytes, log: int) -> None:
    """To the log file, and to the owner unless it reads no longer or too slowly.

    A full disk must not stop the command's output from being taken, or it would stop as well.
    """
    for descriptor in (log, 1):
        try:
            os.write(descriptor, data)
        except OSError:
            continue


def _finish(process: "subprocess.Popen[bytes]") -> int:
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
