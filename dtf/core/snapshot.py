"""A snapshot as bytes: state and chain at one message of the log, proof against damage.

"DTF snapshot 1\\n"    so that `file` and people see what it is; the number is this layout's
SHA-256 (32 bytes)    of what follows
zstd frame            of a protobuf Snapshot

SnapshotUnusable (ValueError)
├── SnapshotDamaged     cut off, changed, or no snapshot: the next one is tried
├── SnapshotOutdated    of an older schema: the next one, or the log itself, is read
└── SnapshotTooNew      of a newer schema: this version of dtf must not go on with that log
"""

import hashlib

import zstandard
from google.protobuf.message import DecodeError

from dtf.api.v1 import snapshot_pb2
from dtf.core.chain import ChainReader
from dtf.core.run.state import State
from dtf.core.run.state_codec import StateUndecodable, decode_state, encode_state
from dtf.core.run.state_hash import SCHEMA_VERSION, state_hash

_MAGIC = b"DTF snapshot 1\n"
_DIGEST_BYTES = 32
_LEVEL = 1
"""Fast enough not to matter beside encoding; queued tasks shrink to a fifth."""


class SnapshotUnusable(ValueError):
    """State cannot be had from these bytes; the message says why."""


class SnapshotDamaged(SnapshotUnusable):
    """Cut off, changed, or no snapshot at all."""


class SnapshotOutdated(SnapshotUnusable):
    """Of an older schema, which this version no longer decodes."""


class SnapshotTooNew(SnapshotUnusable):
    """Of a newer schema: the log holds what this version does not know."""


def take(state: State, chain: ChainReader, *, code_version: str) -> bytes:
    """The bytes of a snapshot of `state`, which is the fold of the log up to `chain`."""
    message = snapshot_pb2.Snapshot(
        last_sequence=chain.sequence,
        last_hash=chain.last_hash,
        epoch=chain.epoch,
        now_unix_nanos=chain.now_ns,
        schema_version=SCHEMA_VERSION,
        state_hash=state_hash(state),
        code_version=code_version,
        stranger_sequences=sorted(chain.stranger_sequences),
        commit_count=chain.commit_count,
        state=encode_state(state),
    )
    body = zstandard.ZstdCompressor(level=_LEVEL).compress(message.SerializeToString())
    return _MAGIC + hashlib.sha256(body).digest() + body


def read_snapshot(data: bytes) -> snapshot_pb2.Snapshot:
    """The message in a snapshot's bytes, its state still encoded. Raises SnapshotUnusable."""
    start = len(_MAGIC) + _DIGEST_BYTES
    if data[: len(_MAGIC)] != _MAGIC:
        raise SnapshotDamaged(f"it begins with {data[:15]!r}, expected {_MAGIC!r}")
    body = memoryview(data)[start:]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise SnapshotDamaged(f"its {len(body)} bytes are not those that were written: the SHA-256 differs")
    try:
        message = snapshot_pb2.Snapshot.FromString(zstandard.ZstdDecompressor().decompress(body))
    except (zstandard.ZstdError, DecodeError) as error:
        raise SnapshotDamaged(f"it cannot be read: {error}") from error
    _check_schema(message)
    return message


def open_snapshot(data: bytes) -> tuple[State, ChainReader]:
    """State and chain as they were when it was taken. Raises SnapshotUnusable."""
    message = read_snapshot(data)
    try:
        state = decode_state(message.state)
    except StateUndecodable as error:
        raise SnapshotDamaged(f"its state cannot be read: {error}") from error
    chain = ChainReader(
        sequence=message.last_sequence,
        last_hash=message.last_hash,
        epoch=message.epoch,
        now_ns=message.now_unix_nanos,
        commit_count=message.commit_count,
        stranger_sequences=set(message.stranger_sequences),
    )
    return state, chain


def last_commit_sequence(chain: ChainReader) -> int:
    """Sequence of the last commit folded in: strangers may have come after it. 0: there is none."""
    sequence = chain.sequence
    while sequence in chain.stranger_sequences:
        sequence -= 1
    return sequence


def _check_schema(message: snapshot_pb2.Snapshot) -> None:
    if message.schema_version > SCHEMA_VERSION:
        raise SnapshotTooNew(
            f"it is of schema {message.schema_version}, written by dtf {message.code_version}; "
            f"this dtf knows schema {SCHEMA_VERSION} and would misread what that one wrote"
        )
    if message.schema_version < SCHEMA_VERSION:
        raise SnapshotOutdated(
            f"it is of schema {message.schema_version}, written by dtf {message.code_version}; "
            f"this dtf reads schema {SCHEMA_VERSION}, and makes the state from the log anew"
        )
