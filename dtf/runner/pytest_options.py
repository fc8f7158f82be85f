"""What the controller tells its workers beyond pytest's arguments, and where they meet.

A run has a directory of its own under the project's state directory. Workers that see it (the same
machine, or a shared file system) find there:

    environment.json   the controller's environment, mode 0600: it stays out of the event log, which
                       is kept and shown, because environments hold secrets
    alive              a named pipe that every pytest process of the run holds open, so that the
                       controller sees the last one end (the same machine only)
    gw0, gw1, …        seats: a process locks the first free one and so has a small number of its
                       own while it lives, which is its worker_id as pytest-xdist counts
    gw0.PID.output     what the process leaves behind for plug-ins (pytest-xdist's workeroutput)

Workers that do not see it use their own environment and the variables of the specification.
"""

import ast
import fcntl
import os
import re
from pathlib import Path
from typing import Any

import msgspec

ENVIRONMENT_FILE = "environment.json"
ALIVE_PIPE = "alive"
MAX_SEATS = 10_000


class PytestOptions(msgspec.Struct, omit_defaults=True):
    """The content of PytestSpec.options_json."""

    host: str = ""
    """Name of the controller's machine."""
    python_version: str = ""
    pytest_version: str = ""
    python_prefix: str = ""
    argv: list[str] = []
    """The controller's sys.argv."""
    warn_options: list[str] = []
    """The controller's -W options."""
    worker_count: int = 1
    """Workers the run may have."""
    worker_input: str = "{}"
    """What plug-ins put into pytest-xdist's workerinput, as a Python literal."""
    run_dir: str = ""
    base_temp: str = ""
    """The controller's base of temporary directories; empty: none."""


def encode_literal(value: dict[str, Any]) -> str:
    """A Python literal. Raises ValueError if `value` holds what a literal cannot say."""
    text = repr(value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"only plain values (numbers, texts, lists, dicts …) can be sent, not {text}"
        ) from error
    return text


def decode_literal(text: str) -> dict[str, Any]:
    """The opposite of `encode_literal`."""
    value = ast.literal_eval(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:80]!r} is not a dict")
    return value


def read_environment(run_dir: Path) -> dict[str, str] | None:
    """The controller's environment; None if it cannot be seen from here."""
    try:
        return msgspec.json.decode((run_dir / ENVIRONMENT_FILE).read_bytes(), type=dict[str, str])
    except OSError:
        return None


class Seat:
    """The number a pytest process has among those of its run that live."""

    def __init__(self, name: str, path: Path | None, descriptors: tuple[int, ...]) -> None:
        self.name = name
        self._path = path
        self._descriptors = descriptors
        """Kept open: the kernel frees the lock and the pipe however this process ends."""

    @classmethod
    def take(cls, directory: str, worker_id: str) -> "Seat":
        """The first free seat; where the run's directory is not seen, one named as the worker."""
        run_dir = Path(directory)
        if not directory or not run_dir.is_dir():
            return cls(worker_id, None, ())
        alive = open_alive_pipe(run_dir)
        for number in range(MAX_SEATS):
            path = run_dir / f"gw{number}"
            lock = try_lock(path)
            if lock is not None:
                return cls(path.name, path, (lock, *alive))
        raise RuntimeError(f"all {MAX_SEATS} seats of {run_dir} are taken")

    def base_temp(self, base: str) -> str | None:
        """A base of temporary directories for this process alone; None: pytest's own choice."""
        if not base or self._path is None or not os.access(base, os.W_OK):
            return None
        path = Path(base) / f"popen-{self.name}"
        number = 0
        while path.exists():
            number += 1
            path = Path(base) / f"popen-{self.name}-{number}"
        return str(path)

    def leave_output(self, output: dict[str, Any]) -> None:
        """Leave what plug-ins want the controller to have."""
        if self._path is None:
            return
        target = self._path.with_name(f"{self.name}.{os.getpid()}.output")
        partial = target.with_suffix(".partial")
        partial.write_text(encode_literal(output))
        partial.rename(target)


def open_alive_pipe(run_dir: Path) -> tuple[int, ...]:
    """The pipe whose end tells the controller that this process is gone; nothing on another machine."""
    try:
        return (os.open(run_dir / ALIVE_PIPE, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC),)
    except OSError:
        return ()


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock on `path`; None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def seats_taken(run_dir: Path) -> set[str]:
    """Names of the seats that were ever taken."""
    return {path.name for path in run_dir.iterdir() if re.fullmatch(r"gw\d+", path.name)}


def outputs_left(run_dir: Path) -> list[tuple[str, dict[str, Any]]]:
    """Seat and output of each process that ended in order."""
    paths = sorted(run_dir.glob("gw*.output"))
    return [(path.name.partition(".")[0], decode_literal(path.read_text())) for path in paths]
