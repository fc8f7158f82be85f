"""The second process of a replay, over two pipes; it is preparation_server.py, which says what is in them."""

import asyncio
import fcntl
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from dtf.adapters.preparation_server import FRAME_LENGTH
from dtf.ports.preparation import PreparationFailed

PROGRAM = (sys.executable, "-P", "-m", "dtf.adapters.preparation_server")
PIPE_BYTES = 1 << 20
"""Of each pipe, as far as the system allows: some 30 ms of work, so that neither waits while the other is busy."""
ANSWER_SECONDS = 20.0
"""A frozen process costs a start so much once, and nothing else."""
MAX_FRAME_BYTES = 256 << 20


def local_preparation() -> "LocalPreparation | None":
    """One on this machine; None where this process may use a single processor, which gains nothing by it."""
    is_single = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < 2
    return None if is_single or os.cpu_count() == 1 else LocalPreparation()


class LocalPreparation:
    """The PreparationProcess port on a process of this machine."""

    def __init__(self, program: Sequence[str] = PROGRAM, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._program = tuple(program)
        self._answer_seconds = answer_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._requests: asyncio.WriteTransport | None = None
        self._answers: _Answers | None = None

    @property
    def process_id(self) -> int | None:
        """Of the process; None: there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it; see the port."""
        try:
            await self._start()
        except OSError as error:
            raise PreparationFailed(f"it cannot be started: {error.strerror or error}") from error

    @property
    def is_ready(self) -> bool:
        """Whether it said that it has begun."""
        return self._answers is not None and self._answers.has_begun

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        (its_input, requests), (answers, its_output) = _pipe(), _pipe()
        try:
            writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(requests, "wb", 0))
            self._requests = writer
            _, self._answers = await loop.connect_read_pipe(_Answers, os.fdopen(answers, "rb", 0))
            self._process = await asyncio.create_subprocess_exec(
                *self._program, stdin=its_input, stdout=its_output
            )
        finally:
            os.close(its_input)
            os.close(its_output)

    @property
    def has_answer(self) -> bool:
        """Whether one has come and was not taken."""
        return self._answers is not None and self._answers.has_frame

    def send(self, request: bytes) -> None:
        """Send a request; see the port."""
        if self._requests is None or self._requests.is_closing():
            raise PreparationFailed("it takes nothing any more")
        self._requests.write(FRAME_LENGTH.pack(len(request)) + request)

    async def receive(self) -> bytes:
        """The next answer; see the port."""
        if self._answers is None:
            raise PreparationFailed("it was not started")
        await _next_turn()
        try:
            async with asyncio.timeout(self._answer_seconds):
                return await self._answers.next_frame()
        except TimeoutError as error:
            raise PreparationFailed(f"it has not answered for {self._answer_seconds:g} s") from error

    async def close(self) -> None:
        """Close the pipes, kill the process and wait for its end; see the port."""
        if self._requests is not None and not self._requests.is_closing():
            self._requests.abort()
        if self._answers is not None:
            self._answers.close()
        process, self._process, self._requests, self._answers = self._process, None, None, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Answers(asyncio.Protocol):
    """Frames as they come in."""

    def __init__(self) -> None:
        self._transport: asyncio.BaseTransport | None = None
        self._rest = bytearray()
        self._frames: deque[bytes] = deque()
        self._something = asyncio.Event()
        self._fault = ""
        self.has_begun = False
        """Whether the first frame came, which is no answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= FRAME_LENGTH.size:
            (length,) = FRAME_LENGTH.unpack_from(self._rest)
            end = FRAME_LENGTH.size + length
            if length > MAX_FRAME_BYTES:
                self._fail(f"it sent a frame of {length} bytes")
                return
            if len(self._rest) < end:
                break
            if self.has_begun:
                self._frames.append(bytes(self._rest[FRAME_LENGTH.size : end]))
            self.has_begun = True
            del self._rest[:end]
        self._something.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"its pipe broke ({exc})" if exc else "it ended")

    def _fail(self, fault: str) -> None:
        self._fault = self._fault or fault
        self._something.set()
        self.close()

    @property
    def has_frame(self) -> bool:
        """Whether one has come and was not taken."""
        return bool(self._frames)

    def close(self) -> None:
        """Let go of the pipe."""
        if self._transport is not None:
            self._transport.close()

    async def next_frame(self) -> bytes:
        """The oldest frame that was not taken. Raises PreparationFailed once there will be none."""
        while not self._frames:
            if self._fault:
                raise PreparationFailed(self._fault)
            self._something.clear()
            await self._something.wait()
        return self._frames.popleft()


async def _next_turn() -> None:
    """Let the loop run: what was sent goes on its way, what has come is taken in."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


def _pipe() -> tuple[int, int]:
    """A pipe that holds much, as far as the system allows."""
    reading, writing = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reading, writing
