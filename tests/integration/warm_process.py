"""Starts a real warm process, as a worker would, over a socket of the test's own."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dtf.runner import shared_memory
from dtf.runner.channel import CaseItem, Down, Prepare, Ready, ResultItem, Results, Up, UpDecoder, encode
from dtf.runner.outbox import JournalReader
from dtf.runner.status import StatusReader

T = TypeVar("T")
PATIENCE_SECONDS = 90.0


class WarmProcess:
    """The worker's end of a runner, blocking."""

    def __init__(self, process: "subprocess.Popen[bytes]", sock: socket.socket, memory_fd: int) -> None:
        self.process = process
        self.socket = sock
        self.status = StatusReader(memory_fd)
        self.journal = JournalReader(memory_fd)
        self._decoder = UpDecoder()
        self._inbox: list[Up] = []

    def send(self, message: Down) -> None:
        """Send one message down."""
        self.socket.sendall(encode(message))

    def receive(self, kind: type[T]) -> T:
        """The next message up, which must be a `kind`."""
        while not self._inbox:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the runner closed its channel")
            self._inbox += self._decoder.feed(data)
        message = self._inbox.pop(0)
        assert isinstance(message, kind), message
        return message

    def results(self, count: int) -> list[ResultItem]:
        """The next `count` results."""
        items: list[ResultItem] = []
        while len(items) < count:
            items += self.receive(Results).items
        return items


@contextmanager
def warm_process() -> Iterator[WarmProcess]:
    """A warm process that has said Ready."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE_SECONDS)
    memory_fd = shared_memory.create()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dtf.runner.main"],
        env=os.environ | {"DTF_RUNNER_FDS": f"{theirs.fileno()},{memory_fd}"},
        pass_fds=(theirs.fileno(), memory_fd),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    theirs.close()
    warm = WarmProcess(process, ours, memory_fd)
    os.close(memory_fd)
    try:
        assert warm.receive(Ready).process_id == process.pid
        yield warm
    finally:
        ours.close()
        process.kill()
        process.communicate(timeout=PATIENCE_SECONDS)


def prepare_callable(function: str, **spec: Any) -> Prepare:
    """Prepare for `function`."""
    return Prepare("run", "suite", "callable", "w-1", {"function": function, **spec})


def case(fence: int, payload: str = "", *, name: str = "case", timeout: float = 60.0) -> CaseItem:
    """A case that is an attempt of its own."""
    return CaseItem(fence, 0, name, -1, payload, timeout, True)
