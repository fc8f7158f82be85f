"""Messages between a worker and its warm processes: four bytes of length, then msgpack.

Down (worker to runner):
    Prepare   which run this process serves from now on, and how; exactly one, first
    Run       cases to run, in order
    Flush     no successor is coming now: run the case that was held back
    Drop      do not start these attempts (revoked or cancelled)
    Finish    tear down and exit

Up (runner to worker):
    Ready     the process is warm
    Prepared  collection is done, or PrepareFailed with what was printed
    Results   cases that ended
    Dropped   attempts that will not start, in answer to Drop

Which case runs now is not a message but a cell of shared memory (status.py), so that a case
costs no message at its start and the worker knows it even after the process died.
"""

import socket
import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct(">I")
MAX_MESSAGE_BYTES = 256 * 2**20


class CaseItem(msgspec.Struct, array_like=True, frozen=True):
    """One case to run."""

    fence: int
    case: int
    """Index in its task."""
    name: str
    position: int
    """Index in the controller's collection; -1: unknown."""
    payload: str
    timeout_seconds: float
    is_last_of_attempt: bool


class Measurement(msgspec.Struct, array_like=True, frozen=True):
    """A number measured by a case."""

    metric: str
    value: float
    unit: str
    is_lower_better: bool
    case_name: str = ""


class Detail(msgspec.Struct, omit_defaults=True):
    """What a case said beyond its verdict; becomes a CaseDetail."""

    reports_json: bytes = b""
    message: str = ""
    measurements: list[Measurement] = []
    exit_code: int = 0
    value_json: str = ""
    output: str = ""
    """What the case printed, where no report holds it."""


class ResultItem(msgspec.Struct, array_like=True):
    """One case that ended. `verdict` is the number of dtf.api.v1.Verdict."""

    fence: int
    case: int
    verdict: int
    duration_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    started_at: float
    is_last_of_attempt: bool
    detail: Detail | None = None


class Prepare(msgspec.Struct, tag="prepare"):
    """Which run this process serves. `spec` holds the fields of PytestSpec or CallableSpec by name."""

    run_id: str
    suite: str
    executor: str
    """pytest or callable."""
    worker_id: str
    spec: dict[str, Any]


class Run(msgspec.Struct, tag="run"):
    """Cases to run, in order."""

    items: list[CaseItem]


class Flush(msgspec.Struct, tag="flush"):
    """No successor is coming now."""


class Drop(msgspec.Struct, tag="drop"):
    """Do not start these attempts."""

    fences: list[int]


class Finish(msgspec.Struct, tag="finish"):
    """Tear down and exit."""


class Ready(msgspec.Struct, tag="ready"):
    """The process is warm."""

    process_id: int


class Prepared(msgspec.Struct, tag="prepared"):
    """Collection is done."""

    collected_count: int


class PrepareFailed(msgspec.Struct, tag="prepare_failed"):
    """The run cannot be served: one line, and what was printed."""

    message: str
    output: str


class Results(msgspec.Struct, tag="results"):
    """Cases that ended, in order."""

    items: list[ResultItem]


class Dropped(msgspec.Struct, tag="dropped"):
    """Attempts that will not start."""

    fences: list[int]


Down = Prepare | Run | Flush | Drop | Finish
Up = Ready | Prepared | PrepareFailed | Results | Dropped

_encoder = msgspec.msgpack.Encoder()
_down_decoder: "msgspec.msgpack.Decoder[Down]" = msgspec.msgpack.Decoder(Down)
_up_decoder: "msgspec.msgpack.Decoder[Up]" = msgspec.msgpack.Decoder(Up)


def encode(message: Down | Up) -> bytes:
    """One framed message."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class ChannelClosed(EOFError):
    """The other side is gone."""


class RunnerChannel:
    """The runner's end: blocking, over a connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def send(self, message: Up) -> None:
        """Write one message; returns when the kernel has it."""
        self._socket.sendall(encode(message))

    def receive(self, *, block: bool = True) -> Down | None:
        """The next message; None if there is none now and `block` is false. Raises ChannelClosed."""
        while (body := self._take()) is None:
            if not self._fill(block):
                return None
        return _down_decoder.decode(body)

    def _fill(self, block: bool) -> bool:
        flags = 0 if block else socket.MSG_DONTWAIT
        try:
            data = self._socket.recv(1 << 18, flags)
        except BlockingIOError:
            return False
        if not data:
            raise ChannelClosed("the worker closed the channel")
        self._buffer += data
        return True

    def _take(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return body


class UpDecoder:
    """Splits what a runner writes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Up]:
        """The messages completed by `data`. Raises ValueError on a malformed one."""
        self._buffer += data
        messages: list[Up] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_up_decoder.decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages
