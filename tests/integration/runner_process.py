"""A warm process driven by hand over its channel, with no worker and no coordinator."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dtf.runner import shared_memory
from dtf.runner.channel import (
    CaseItem,
    Down,
    Finish,
    Flush,
    Prepare,
    Prepared,
    PrepareFailed,
    Ready,
    ResultItem,
    Results,
    Run,
    Up,
    UpDecoder,
    encode,
)
from dtf.runner.pytest_reports import decode

TIMEOUT_SECONDS = 60.0
Message = TypeVar("Message", bound=Up)


class RunnerProcess:
    """The worker's end of the channel."""

    def __init__(self, process: "subprocess.Popen[bytes]", sock: socket.socket) -> None:
        self.process = process
        self._socket = sock
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._decoder = UpDecoder()
        self._messages: list[Up] = []

    def send(self, message: Down) -> None:
        """Write one message."""
        self._socket.sendall(encode(message))

    def receive(self) -> Up:
        """The next message; EOFError when the process has gone."""
        while not self._messages:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError(f"the process ended with {self.process.wait(TIMEOUT_SECONDS)}")
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def expect(self, kind: type[Message]) -> Message:
        """The next message, which is of `kind`."""
        message = self.receive()
        assert isinstance(message, kind), message
        return message

    def prepare(self, directory: Path, arguments: Sequence[str] = (), **spec: Any) -> Up:
        """Begin a pytest session in `directory`; what came of it."""
        spec = {
            "root_dir": str(directory),
            "working_dir": str(directory),
            "arguments": ["-p", "no:cacheprovider", "-p", "no:randomly", *arguments],
            "environment": {},
            "testrun_uid": "uid-1",
            "options_json": "{}",
            "import_path": [],
        } | spec
        self.expect(Ready)
        self.send(Prepare("run-1", "suite", "pytest", "w-1", spec))
        return self.receive()

    def prepared(self, directory: Path, arguments: Sequence[str] = (), **spec: Any) -> int:
        """Begin a pytest session that can be served; how many cases it collected."""
        answer = self.prepare(directory, arguments, **spec)
        assert isinstance(answer, Prepared), answer
        return answer.collected_count

    def refused(self, directory: Path, arguments: Sequence[str] = (), **spec: Any) -> PrepareFailed:
        """Begin a pytest session that cannot be served; why."""
        answer = self.prepare(directory, arguments, **spec)
        assert isinstance(answer, PrepareFailed), answer
        return answer

    def results(self, count: int) -> list[ResultItem]:
        """The next `count` results."""
        items: list[ResultItem] = []
        while len(items) < count:
            items += self.expect(Results).items
        assert len(items) == count
        return items

    def run(self, names: Sequence[str], *, flush: bool = True) -> list[ResultItem]:
        """Run the cases of one attempt to its end."""
        self.send(Run(attempt(1, names)))
        if flush:
            self.send(Flush())
        return self.results(len(names))

    def finish(self) -> int:
        """End the session; the process's exit code."""
        self.send(Finish())
        try:
            while True:
                self.receive()
        except EOFError:
            return self.process.wait(TIMEOUT_SECONDS)


def attempt(
    fence: int, names: Sequence[str], positions: Sequence[int] | None = None, collected: int = -1
) -> list[CaseItem]:
    """The cases of one attempt, of as many as the controller collected."""
    places = positions if positions is not None else [-1] * len(names)
    last = len(names) - 1
    return [
        CaseItem(fence, index, name, position, str(collected), 60.0, index == last)
        for index, (name, position) in enumerate(zip(names, places, strict=True))
    ]


def elements(result: ResultItem) -> list[dict[str, Any]]:
    """The reports of a result."""
    assert result.detail is not None
    return decode(result.detail.reports_json)


@contextmanager
def started(**environment: str) -> Iterator[RunnerProcess]:
    """A warm process, ended when left."""
    ours, theirs = socket.socketpair()
    memory = shared_memory.create()
    process = subprocess.Popen(
        [sys.executable, "-m", "dtf.runner.main"],
        env={**os.environ, **environment, "DTF_RUNNER_FDS": f"{theirs.fileno()},{memory}"},
        pass_fds=(theirs.fileno(), memory),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()
    os.close(memory)
    try:
        yield RunnerProcess(process, ours)
    finally:
        ours.close()
        process.kill()
        process.wait(TIMEOUT_SECONDS)
