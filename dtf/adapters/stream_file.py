"""A stream of the broker in one portable file: recordings for tests, exports, imports.

    "DTF stream 1\\n"          so that `file` and people see what it is; the number is the version
    zstd frame of
        header                length (4 bytes), JSON: {"kind", "namespace", "code_version", "recorded_unix_nanos"}
        attachments           version 2 only: their number (4), and each as length of name (4) and of content
                              (4), name, content; a capsule has its manifest and a snapshot here
        each message          sequence (8), length of id (2), of headers (4), of payload (4), then
                              the id, the headers in JSON, the payload
        end                   sequence 0 and three lengths of 0, number of messages (8), SHA-256 (32)
                              of every byte of the frame before it

All numbers are big-endian. Version 2 is version 1 with attachments, and is written only where there
are some. A file that was cut off or changed is refused with the sequence up to which it could be
read; the hash chain alone vouches for that part. A file appears under its name only when it is whole.

A hostile file costs no more than its honest reading: no part is taken that is larger than a message
of a broker can be, the window of the compression is bounded, and a file that unfolds to thousands of
times its size is refused.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from dtf.ports.event_log import StoredCommit

_MAGIC = b"DTF stream 1\n"
_MAGIC_WITH_ATTACHMENTS = b"DTF stream 2\n"
_MAGIC_START = b"DTF stream "
_LENGTH = struct.Struct(">I")
_MESSAGE = struct.Struct(">QHII")
_END = struct.Struct(">Q32s")
_ATTACHMENT = struct.Struct(">II")
_MAX_PART_BYTES = 64 * 2**20
"""No message of a broker is larger; more is a damaged length."""
_MAX_ATTACHMENT_BYTES = 2**30
"""A snapshot of a million tasks takes a tenth of this."""
_MAX_ATTACHMENTS = 16
_TAKE_BYTES = 2**20
"""Memory follows what the file holds, not what it announces."""
_MAX_WINDOW_BYTES = 2**27
_MAX_RATIO = 4096
"""Columns of equal verdicts come to a few hundred."""
_FREE_BYTES = 2**28
"""So much is read whatever the file's size."""
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

    def write_attachments(self, attachments: Mapping[str, bytes]) -> None:
        """Add what goes with the stream; right after the header."""
        self._put(_LENGTH.pack(len(attachments)))
        for name, content in attachments.items():
            encoded = name.encode()
            self._put(_ATTACHMENT.pack(len(encoded), len(content)) + encoded)
            self._put(content)

    def write_end(self) -> None:
        """Finish the file."""
        self._put(_MESSAGE.pack(0, 0, 0, 0))
        self._target.write(_END.pack(self._count, self._hasher.digest()))

    def _put(self, data: bytes) -> None:
        self._hasher.update(data)
        self._target.write(data)


@contextmanager
def writing(
    path: Path, header: StreamFileHeader, attachments: Mapping[str, bytes] | None = None
) -> Iterator[StreamFileWriter]:
    """A writer whose file appears as `path`, whole and on the disk, when the block ends well."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            file.write(_MAGIC_WITH_ATTACHMENTS if attachments else _MAGIC)
            with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as frame:
                writer = StreamFileWriter(frame)
                writer.write_header(header)
                if attachments:
                    writer.write_attachments(attachments)
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
        self._last = 0
        self._taken_bytes = 0

    def __enter__(self) -> "StreamFile":
        self._file = self._path.open("rb")
        try:
            has_attachments = self._check_magic(self._file.read(len(_MAGIC)))
            self._most_bytes = _FREE_BYTES + _MAX_RATIO * os.fstat(self._file.fileno()).st_size
            decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
            self._frame = decompressor.stream_reader(self._file, closefd=False)
            self.header = self._read_header()
            self.attachments = self._read_attachments() if has_attachments else {}
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[StoredCommit]:
        """The messages in order. Raises StreamFileError at the first fault."""
        count = 0
        while True:
            sequence, id_length, headers_length, payload_length = _MESSAGE.unpack(self._take(_MESSAGE.size))
            if sequence == 0:
                self._check_end(count)
                return
            if sequence <= self._last:
                raise self._damaged(f"message {sequence} follows {self._last}")
            message_id = self._take_text(id_length)
            headers = self._parse_headers(self._take(headers_length))
            yield StoredCommit(sequence, self._take(payload_length), message_id, headers)
            count, self._last = count + 1, sequence

    def _check_magic(self, magic: bytes) -> bool:
        """Whether attachments follow the header. Raises StreamFileError for what this does not read."""
        if magic in (_MAGIC, _MAGIC_WITH_ATTACHMENTS):
            return magic == _MAGIC_WITH_ATTACHMENTS
        if magic.startswith(_MAGIC_START):
            raise StreamFileError(
                f"{self._path} is of another version: {magic!r}, this dtf reads {_MAGIC!r} and "
                f"{_MAGIC_WITH_ATTACHMENTS!r}; read it with the dtf that wrote it, or a newer one"
            )
        raise StreamFileError(f"{self._path} is no stream file; expected one of `dtf events export`")

    def _read_header(self) -> StreamFileHeader:
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size))
        try:
            said = json.loads(self._take(length))
            header = StreamFileHeader(**said)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged("its header cannot be read") from error
        texts = (header.kind, header.namespace, header.code_version)
        if not all(isinstance(text, str) for text in texts) or not isinstance(
            header.recorded_unix_nanos, int
        ):
            raise self._damaged("its header says something else than a header does")
        return header

    def _read_attachments(self) -> dict[str, bytes]:
        (count,) = _LENGTH.unpack(self._take(_LENGTH.size))
        if count > _MAX_ATTACHMENTS:
            raise self._damaged(f"it announces {count} attachments")
        attachments: dict[str, bytes] = {}
        for _ in range(count):
            name_length, length = _ATTACHMENT.unpack(self._take(_ATTACHMENT.size))
            name = self._take_text(name_length)
            attachments[name] = self._take(length, most=_MAX_ATTACHMENT_BYTES)
        return attachments

    def _parse_headers(self, encoded: bytes) -> dict[str, str]:
        try:
            headers = json.loads(encoded)
        except (ValueError, RecursionError) as error:
            raise self._damaged("headers of a message cannot be read") from error
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise self._damaged("headers of a message are no object of texts")
        return headers

    def _check_end(self, count: int) -> None:
        digest = self._hasher.digest()
        written_count, written_digest = _END.unpack(self._take(_END.size))
        if (written_count, written_digest) != (count, digest):
            raise self._damaged(f"it holds {count} messages, its end says {written_count} and another digest")

    def _take(self, length: int, most: int = _MAX_PART_BYTES) -> bytes:
        if length > most:
            raise self._damaged(f"it announces {length} bytes at once")
        self._taken_bytes += length
        if self._taken_bytes > self._most_bytes:
            raise self._damaged(f"it unfolds to more than {_MAX_RATIO} times its size")
        data = self._read(length)
        if len(data) != length:
            raise self._damaged("it ends before its end mark")
        self._hasher.update(data)
        return data

    def _read(self, length: int) -> bytes:
        try:
            if length <= _TAKE_BYTES:
                return self._frame.read(length)
            parts: list[bytes] = []
            while length and (part := self._frame.read(min(length, _TAKE_BYTES))):
                parts.append(part)
                length -= len(part)
            return b"".join(parts)
        except zstandard.ZstdError as error:
            raise self._damaged(str(error)) from error

    def _take_text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._damaged("a name in it is no text") from error

    def _damaged(self, what: str) -> StreamFileError:
        how_far = (
            f"it could be read up to sequence {self._last}" if self._last else "nothing of it can be read"
        )
        return StreamFileError(f"{self._path} is damaged: {what}; {how_far}; get the file again")
