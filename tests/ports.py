"""Ports for servers that cannot choose their own, or that are started again at the same address."""

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from dtf.cli.reserved_port import ReservedPort

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_locks: dict[int, int] = {}
"""Descriptors of the lock files of the ports that this process took, by port: locked for as long as it lives."""


def free_ports(number: int) -> Sequence[int]:
    """Ports of the loopback that nobody has, and that nobody gets before the end of this process.

    They are below those that the kernel gives to who asks for any, and each is locked in a file against
    other processes that ask here. Where the kernel leaves no such range, they are only free now.
    """
    ports: list[int] = []
    candidates = _below_ephemeral()
    while len(ports) < number:
        port = next(candidates, 0)
        if port and not _lock(port):
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(probe.getsockname()[1])
    return ports


def _below_ephemeral() -> Iterator[int]:
    """Each port of the range once; processes begin at different ones."""
    try:
        highest = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError):
        return
    span = range(_LOWEST, highest)
    for offset in range(len(span)):
        yield span[(os.getpid() * 97 + offset) % len(span)]


def _lock(port: int) -> bool:
    directory = Path(tempfile.gettempdir()) / f"dtf-ports-{os.getuid()}"
    directory.mkdir(exist_ok=True)
    if port in _locks:
        return False
    lock = os.open(directory / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    _locks[port] = lock
    return True


@contextlib.contextmanager
def kept_address() -> Iterator[str]:
    """An address of the loopback for servers that follow each other: it stays theirs between two of them."""
    reserved = ReservedPort("127.0.0.1:0")
    try:
        yield reserved.address
    finally:
        reserved.release()
