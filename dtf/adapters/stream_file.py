"""A stream of the broker in one portable file: recordings for tests, exports, imports.

    "DTF stream 1\\n"          so that `file` and people see what it is; the number is the version
    zstd frame of
        header                length (4 bytes), JSON: {"kind", "namespace", "code_version", "recorded_unix_nanos"}
        each message          sequence (8), length of id (2), of headers (4), of payload (4), then
                              the id, the headers in JSON, the payload
        end                   sequence 0 and three lengths of 0, number of messages (8), SHA-256 (32)
                              of every byte of the frame before it

All numbers are big-endian. A file that was cut off or changed is refused, and nothing that was read
from it up to there should be used; a file appears under its name only when it is whole.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from dtf.ports.event_log import StoredCommit

_MAGIC = b"DTF stream 1\n"
_MAGIC_START = b"DTF stream "
_LENGTH = struct.Struct(">I")
_MESSAGE = struct.Struct(">QHII")
_END = struct.Struct(">Q32s")
_MAX_PART_BYTES = 64 * 2**20
"""No message of a broker is larger; more is a damaged length."""
_LEVEL = 9
"""Half the size of level 3 on columns of results, at 40 MB/s."""


class StreamFileError(ValueError):
    """The file is no stream, is damaged, or is of a version this one does not read."""


@dataclass(frozen=True, slots=True)
class StreamFileHeader:
    """What a stream file says of itself."""

    kind: str
    """Which stream: events, scaling, telemetry or analysis."""
    namespace: str
    code_version: str
    """Version of dtf that wrote the file."""
    recorded_unix_nanos: int


class StreamFileWriter:
    """Adds messages to a file; see `writing`."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._hasher = hashlib.sha256()
        self._count = 0

    @property
    def message_count(self) -> int:
        """How many messages were written."""
        return self._count

    def write(self, message: StoredCommit) -> None:
        """Add one message."""
        message_id = message.message_id.encode()
        headers = json.dumps(dict(message.headers), sort_keys=True, separators=(",", ":")).encode()
        lengths = _MESSAGE.pack(message.sequence, len(message_id), len(headers), len(message.payload))
        self._put(lengths + message_id + headers + message.payload)
        self._count += 1

    def write_header(self, header: StreamFileHeader) -> None:
        """Begin the file."""
        encoded = json.dumps(asdict(header), sort_keys=True).encode()
        self._put(_LENGTH.pack(len(encoded)) + encoded)

    def write_end(self) -> None:
        """Finish the file."""
        self._put(_MESSAGE.pack(0, 0, 0, 0))
        self._target.write(_END.pack(self._count, self._hasher.digest()))

    def _put(self, data: bytes) -> None:
        self._hasher.update(data)
        self._target.write(data)


@contextmanager
def writing(path: Path, header: StreamFileHeader) -> Iterator[StreamFileWriter]:
    """A writer whose file appears as `path`, whole and on the disk, when the block ends well."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC)
            with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as frame:
                writer = StreamFileWriter(frame)
                writer.write_header(header)
                yield writer
                writer.write_end()
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class StreamFile:
    """A stream file, open for reading. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hasher = hashlib.sha256()

    def __enter__(self) -> "StreamFile":
        self._file = self._path.open("rb")
        try:
            self._check_magic(self._file.read(len(_MAGIC)))
            self._frame = zstandard.ZstdDecompressor().stream_reader(self._file, closefd=False)
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[StoredCommit]:
        """The messages in order. Raises StreamFileError at the first fault."""
        count, previous = 0, 0
        while True:
            sequence, id_length, headers_length, payload_length = _MESSAGE.unpack(self._take(_MESSAGE.size))
            if sequence == 0:
                self._check_end(count)
                return
            if sequence <= previous:
                raise self._damaged(f"message {sequence} follows {previous}")
            message_id = self._take_text(id_length)
            headers = self._parse_headers(self._take(headers_length))
            yield StoredCommit(sequence, self._take(payload_length), message_id, headers)
            count, previous = count + 1, sequence

    def _check_magic(self, magic: bytes) -> None:
        if magic == _MAGIC:
            return
        if magic.startswith(_MAGIC_START):
            raise StreamFileError(
                f"{self._path} is of another version: {magic!r}, this dtf reads {_MAGIC!r}; read it with that one"
            )
        raise StreamFileError(f"{self._path} is no stream file; expected one of `dtf events export`")

    def _read_header(self) -> StreamFileHeader:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        try:
            return StreamFileHeader(**json.loads(self._take(length)))
        except (ValueError, TypeError) as error:
            raise self._damaged("its header cannot be read") from error

    def _parse_headers(self, encoded: bytes) -> dict[str, str]:
        try:
            headers = json.loads(encoded)
        except ValueError as error:
            raise self._damaged("headers of a message cannot be read") from error
        if not isinstance(headers, dict):
            raise self._damaged("headers of a message are no object")
        return headers

    def _check_end(self, count: int) -> None:
        digest = self._hasher.digest()
        written_count, written_digest = _END.unpack(self._take(_END.size))
        if (written_count, written_digest) != (count, digest):
            raise self._damaged(f"it holds {count} messages, its end says {written_count} and another digest")

    def _take(self, length: int) -> bytes:
        if length > _MAX_PART_BYTES:
            raise self._damaged(f"it announces {length} bytes at once")
        try:
            data = self._frame.read(length)
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error
        if len(data) != length:
            raise self._damaged("it ends before its end mark")
        self._hasher.update(data)
        return data

    def _take_text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._damaged("an id of a message is no text") from error

    def _damaged(self, what: str) -> StreamFileError:
        return StreamFileError(f"{self._path} is damaged: {what}; get the file again")
