"""Messages between a worker and its launcher: four bytes of length, then msgpack, as in channel.py.

A Launch is accompanied by file descriptors (SCM_RIGHTS): standard input, output and error, then
those the process is to be given beside them, whose numbers it finds in DTF_RUNNER_FDS.
"""

import struct
from collections.abc import Iterator

import msgspec

_LENGTH = struct.Struct(">I")
MAX_MESSAGE_BYTES = 16 * 2**20


class Launch(msgspec.Struct, tag="launch"):
    """Start a process in a session of its own."""

    id: int
    argv: list[str]
    environment: dict[str, str]
    working_dir: str
    """Empty: the launcher's own."""
    descriptor_count: int
    """How many descriptors come with it, at least three."""


class Kill(msgspec.Struct, tag="kill"):
    """End a process and its whole tree: `first_signal` to the process, SIGKILL to the tree after the grace."""

    id: int
    first_signal: int = 9
    grace_seconds: float = 0.0


class Launched(msgspec.Struct, tag="launched"):
    """It runs."""

    id: int
    process_id: int


class LaunchFailed(msgspec.Struct, tag="launch_failed"):
    """It could not be started: one line."""

    id: int
    message: str


class Exited(msgspec.Struct, tag="exited"):
    """It ended, and what was left of its tree was killed."""

    id: int
    exit_code: int
    """What it returned; 0 if a signal ended it."""
    signal: int
    """Signal that ended it; 0: none."""
    cpu_seconds: float
    """Of the process and the descendants it waited for."""
    peak_memory_bytes: int
    """The most that one of these had resident."""


ToLauncher = Launch | Kill
FromLauncher = Launched | LaunchFailed | Exited

_encoder = msgspec.msgpack.Encoder()
_to_decoder: "msgspec.msgpack.Decoder[ToLauncher]" = msgspec.msgpack.Decoder(ToLauncher)
_from_decoder: "msgspec.msgpack.Decoder[FromLauncher]" = msgspec.msgpack.Decoder(FromLauncher)


def encode(message: ToLauncher | FromLauncher) -> bytes:
    """One framed message. Raises ValueError if it is too large."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a launch of {len(body)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Splits a stream of bytes into the bodies of messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies completed by `data`."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body


def decode_to_launcher(body: bytes) -> ToLauncher:
    """A message from the worker."""
    return _to_decoder.decode(body)


def decode_from_launcher(body: bytes) -> FromLauncher:
    """A message from the launcher."""
    return _from_decoder.decode(body)
