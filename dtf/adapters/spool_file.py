"""How a spool lies on the disk: segments of records, and one mark, for each reign that wrote.

    <first sequence>-<writer>.spool    records, one after the other; a segment ends at 16 MiB
    <writer>.mark                      how far the log had acknowledged, written over in place

A record is a header (CRC-32 of what follows it, lengths, sequence) and a body (id, headers in JSON,
payload). A header also says how far the log had acknowledged when it was written, so that a machine
that crashed, and with it the mark, still knows nearly as much. All numbers are big-endian.

kill -9 may cut the last record of a segment short: it was never on the disk as a whole, so nothing
rests on it. A record that is whole and wrong, or short with others behind it, is damage.
"""

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dtf.ports.spool import SpooledCommit, SpoolMark

_HEADER = struct.Struct(">IQQ32sHHI")
"""CRC, sequence, acknowledged sequence and hash, lengths of id, of headers, of payload."""
_CRC = struct.Struct(">I")
_MARK = struct.Struct(">IQ32s")
MARK_BYTES = _MARK.size
_SEGMENT = re.compile(r"(\d{20})-([0-9a-f]{1,64})\.spool")
_MARK_FILE = re.compile(r"([0-9a-f]{1,64})\.mark")


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of records."""

    path: Path
    first_sequence: int
    writer: str


class SpoolDamaged(ValueError):
    """A segment holds something else than what was written."""


def segment_path(directory: Path, first_sequence: int, writer: str) -> Path:
    """Where a segment lies."""
    return directory / f"{first_sequence:020d}-{writer}.spool"


def mark_path(directory: Path, writer: str) -> Path:
    """Where a reign's mark lies."""
    return directory / f"{writer}.mark"


def segments(directory: Path) -> list[Segment]:
    """The segments there are, each writer's in order. Raises OSError."""
    found = ((path, _SEGMENT.fullmatch(path.name)) for path in directory.iterdir())
    return sorted(
        (Segment(path, int(match[1]), match[2]) for path, match in found if match),
        key=lambda segment: (segment.first_sequence, segment.writer),
    )


def marks(directory: Path) -> Iterator[SpoolMark]:
    """The marks there are; one that was cut off or damaged is left out. Raises OSError."""
    for path in sorted(directory.iterdir()):
        match = _MARK_FILE.fullmatch(path.name)
        data = path.read_bytes() if match else b""
        if match is None or len(data) != MARK_BYTES:
            continue
        crc, sequence, digest = _MARK.unpack(data)
        if crc == zlib.crc32(data[_CRC.size :]):
            yield SpoolMark(sequence, digest.hex(), match[1])


def encode_mark(sequence: int, message_id: str) -> bytes:
    """What a mark's file holds."""
    body = _MARK.pack(0, sequence, bytes.fromhex(message_id))[_CRC.size :]
    return _CRC.pack(zlib.crc32(body)) + body


def encode_record(commit: SpooledCommit, acknowledged: int, acknowledged_id: str) -> bytes:
    """One record."""
    message_id = commit.message_id.encode()
    headers = json.dumps(dict(commit.headers), sort_keys=True, separators=(",", ":")).encode()
    header = _HEADER.pack(
        0,
        commit.sequence,
        acknowledged,
        bytes.fromhex(acknowledged_id) if acknowledged_id else bytes(32),
        len(message_id),
        len(headers),
        len(commit.payload),
    )
    record = b"".join((header[_CRC.size :], message_id, headers, commit.payload))
    return _CRC.pack(zlib.crc32(record)) + record


def read_segment(segment: Segment) -> Iterator[tuple[SpooledCommit, SpoolMark | None]]:
    """The records of a segment in order, each with the mark it carries. Raises SpoolDamaged, OSError."""
    data = memoryview(segment.path.read_bytes())
    position = 0
    while position < len(data):
        end = _end_of_record(data, position)
        if end is None or end > len(data):
            _refuse_unless_cut_short(segment, data, position)
            return
        if _CRC.unpack_from(data, position)[0] != zlib.crc32(data[position + _CRC.size : end]):
            if end == len(data):  # its bytes had not all reached the disk
                return
            raise SpoolDamaged(
                f"{segment.path.name}: the record at byte {position} is not what was written (its CRC differs)"
            )
        yield _decode_record(data, position, segment.writer)
        position = end


def _end_of_record(data: memoryview, position: int) -> int | None:
    """Where a record ends by what its header says; None if even that is cut short."""
    if len(data) - position < _HEADER.size:
        return None
    *_, id_length, headers_length, payload_length = _HEADER.unpack_from(data, position)
    return position + _HEADER.size + int(id_length) + int(headers_length) + int(payload_length)


def _refuse_unless_cut_short(segment: Segment, data: memoryview, position: int) -> None:
    """A header that points beyond the end is the last record, cut short, unless its length is absurd."""
    end = _end_of_record(data, position)
    if end is not None and end - position > _LARGEST_RECORD_BYTES:
        raise SpoolDamaged(
            f"{segment.path.name}: the record at byte {position} says it has {end - position} bytes, "
            f"expected at most {_LARGEST_RECORD_BYTES}"
        )


_LARGEST_RECORD_BYTES = 8 * 2**20
"""A broker takes messages of up to 1 MiB unless it is told otherwise."""


def _decode_record(data: memoryview, position: int, writer: str) -> tuple[SpooledCommit, SpoolMark | None]:
    _, sequence, acknowledged, digest, id_length, headers_length, payload_length = _HEADER.unpack_from(
        data, position
    )
    start = position + _HEADER.size
    headers_at, payload_at = start + id_length, start + id_length + headers_length
    commit = SpooledCommit(
        sequence,
        bytes(data[payload_at : payload_at + payload_length]),
        str(data[start:headers_at], "ascii"),
        json.loads(bytes(data[headers_at:payload_at])),
    )
    mark = SpoolMark(acknowledged, digest.hex(), writer) if acknowledged else None
    return commit, mark
