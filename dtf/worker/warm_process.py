"""The worker's end of one warm process (dtf/runner/main.py).

    starting ── Ready ──▶ warm ── Prepare ──▶ preparing ── Prepared ──▶ serving ── Finish ──▶ finishing
        └───────────────────────────┴─────────────┴───────────────────────┴──────────────────▶ dead

Death is told once, after everything the process wrote has been read: its channel, its journal, the
case its status cell names.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from dtf.api.v1 import common_pb2
from dtf.runner import shared_memory
from dtf.runner.channel import (
    Down,
    Drop,
    Dropped,
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
from dtf.runner.launch_messages import Exited
from dtf.runner.outbox import JournalReader
from dtf.runner.status import RunningCase, StatusReader
from dtf.worker.launcher_client import LauncherLost, Process
from dtf.worker.leases import Key, Lease
from dtf.worker.output_tail import OutputTail


class State(Enum):
    """Where a warm process stands."""

    STARTING = auto()
    WARM = auto()
    PREPARING = auto()
    SERVING = auto()
    FINISHING = auto()
    DEAD = auto()


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended."""

    exited: Exited | None
    """None: its launcher died too."""
    running: RunningCase | None
    """The case that ran then."""
    output: str
    """The end of what the process itself printed."""
    state: State
    """Where the process stood."""
    seen_at: float
    """When, on the monotonic clock."""

    @property
    def reason(self) -> str:
        """How it ended, in words."""
        if self.exited is None:
            return "its launcher died"
        if self.exited.signal:
            return f"killed by signal {self.exited.signal}"
        return f"exited with code {self.exited.exit_code} (os._exit({self.exited.exit_code}))"


@dataclass(frozen=True, slots=True)
class StopReason:
    """Why the worker ended a process."""

    outcome: "common_pb2.Outcome.ValueType"
    words: str
    fence: int = 0
    """The attempt that is at fault; 0: none."""


class Listener(Protocol):
    """Who hears what a process says."""

    def on_ready(self, process: "WarmProcess") -> None:
        """It can take a run."""

    def on_prepared(self, process: "WarmProcess") -> None:
        """It can take cases."""

    def on_prepare_failed(self, process: "WarmProcess", message: str, output: str) -> None:
        """It cannot serve its run."""

    def on_results(self, process: "WarmProcess", items: Sequence[ResultItem]) -> None:
        """Cases ended; some may have been told before."""

    def on_dropped(self, process: "WarmProcess", fences: Sequence[int]) -> None:
        """Attempts will not start."""

    def on_garbled(self, process: "WarmProcess", why: str) -> None:
        """It said something that is no message."""

    def on_death(self, process: "WarmProcess", death: Death) -> None:
        """It is gone."""


class WarmProcess:
    """One warm process."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._decoder = UpDecoder()
        self._unsent = bytearray()
        self._is_channel_open = True
        self.state = State.STARTING
        self.process: Process | None = None
        self.was_ready = False
        self.key: Key | None = None
        self.leases: dict[int, Lease] = {}
        """What it was given and has not reported in full, by fence, in the order given."""
        self.needs_successor = False
        """Whether its last case is held back until another comes, or Flush."""
        self.is_flushed = False
        self.given_at = 0.0
        """When it last got cases, on the monotonic clock."""
        self.outstanding = 0
        """Cases of `leases` not yet reported."""
        self.average_seconds = 0.0
        """How long its cases take, lately; 0: unknown."""
        self.stop_reason: StopReason | None = None
        self._fault: asyncio.Future[None] = self._loop.create_future()
        self._open()

    def _open(self) -> None:
        self._socket, self._their_socket = socket.socketpair()
        self._socket.setblocking(False)
        self.memory_fd = shared_memory.create()
        self._status = StatusReader(self.memory_fd)
        self._journal = JournalReader(self.memory_fd)
        output_fd, self._their_output = os.pipe()
        self._tail = OutputTail(output_fd)
        self._null = os.open(os.devnull, os.O_RDONLY)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What it is launched with; `launched` closes our copies."""
        return (
            self._null,
            self._their_output,
            self._their_output,
            self._their_socket.fileno(),
            self.memory_fd,
        )

    def launched(self) -> None:
        """It runs, or could not be started: the descriptors that are its own are closed here."""
        self._their_socket.close()
        for descriptor in (self._null, self._their_output, self.memory_fd):
            os.close(descriptor)
        self._loop.add_reader(self._socket.fileno(), self._read)

    async def watch(self, process: Process) -> None:
        """Return when it has ended and its death was told. Raises what a listener failed with."""
        self.process = process
        try:
            exited = await self._exit_of(process)
            self._read_rest()
        finally:
            self._close_channel()
            self._tail.close()
        items = self._journal.read()
        if items:
            self._listener.on_results(self, items)
        last, self.state = self.state, State.DEAD
        death = Death(exited, self._status.read(), self._tail.text, last, self._loop.time())
        self._listener.on_death(self, death)

    async def _exit_of(self, process: Process) -> Exited | None:
        """How it ended; None: its launcher died."""
        await asyncio.wait((process.exited, self._fault), return_when=asyncio.FIRST_COMPLETED)
        if self._fault.done():
            self._fault.result()
        try:
            return process.exited.result()
        except LauncherLost:
            return None

    @property
    def was_told_to_go(self) -> bool:
        """Whether its end, of which no attempt died, was the worker's wish."""
        return self.stop_reason is not None and self.stop_reason.outcome != common_pb2.OUTCOME_CRASHED

    # Down.

    def prepare(self, message: Prepare, key: Key) -> None:
        """Serve this run from now on."""
        self.state = State.PREPARING
        self.key = key
        self._send(message)

    def give(self, leases: Sequence[Lease], timeout_seconds: float, now: float) -> None:
        """Run these attempts, in order, after those given before."""
        for lease in leases:
            self.leases[lease.fence] = lease
            self.outstanding += lease.case_count
        self.is_flushed = False
        self.given_at = now
        self._send(Run([item for lease in leases for item in lease.items(timeout_seconds)]))

    def flush(self) -> None:
        """No successor is coming now."""
        self.is_flushed = True
        self._send(Flush())

    def drop(self, fences: Sequence[int]) -> None:
        """Do not start these."""
        self._send(Drop(list(fences)))

    def finish(self) -> None:
        """Tear down and exit."""
        if self.state not in (State.FINISHING, State.DEAD):
            self.state = State.FINISHING
            self._send(Finish())

    def _send(self, message: Down) -> None:
        if not self._is_channel_open:
            return
        was_empty = not self._unsent
        self._unsent += encode(message)
        if was_empty:
            self._write()

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            # It is dying; its death will be told.
            self._unsent.clear()
            self._loop.remove_writer(self._socket.fileno())
            return
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._write)
        else:
            self._loop.remove_writer(self._socket.fileno())

    # Up.

    def running_case(self) -> RunningCase | None:
        """The case that runs now."""
        return self._status.read()

    def look_into_journal(self) -> None:
        """Take results that wait for their batch while a longer case runs."""
        items = self._journal.read()
        if items:
            self._listener.on_results(self, items)

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_channel()
            return
        try:
            self._feed(data)
        except Exception as error:
            # The event loop would log it and go on, and what this process waits for would never be said.
            self._close_channel()
            if not self._fault.done():
                self._fault.set_exception(error)
                self._fault.exception()

    def _feed(self, data: bytes) -> None:
        try:
            messages = self._decoder.feed(data)
        except ValueError as error:
            # User code wrote to the channel, or broke msgpack: nothing it says can be trusted now.
            self._close_channel()
            self._listener.on_garbled(self, str(error))
            return
        for message in messages:
            self._handle(message)

    def _read_rest(self) -> None:
        """Its process and every descendant are dead: what is not there now will never come."""
        while self._is_channel_open:
            try:
                data = self._socket.recv(1 << 18)
            except OSError:
                data = b""
            if data:
                self._feed(data)
            else:
                self._close_channel()

    def _close_channel(self) -> None:
        if self._is_channel_open:
            self._is_channel_open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _handle(self, message: Up) -> None:
        match message:
            case Results(items):
                self._listener.on_results(self, items)
            case Ready():
                self.was_ready = True
                if self.state is State.STARTING:
                    self.state = State.WARM
                self._listener.on_ready(self)
            case Prepared():
                if self.state is State.PREPARING:
                    self.state = State.SERVING
                self._listener.on_prepared(self)
            case PrepareFailed(text, output):
                self._listener.on_prepare_failed(self, text, output)
            case Dropped(fences):
                self._listener.on_dropped(self, fences)
