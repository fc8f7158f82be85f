"""The streams beside the log, on NATS JetStream: scaling decisions, telemetry, findings."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from dtf.adapters.jetstream_stream import JetStreamStream
from dtf.adapters.nats_connection import BrokerRefusal, NatsConnection
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogFull, LogHead, LogMismatch, StoredCommit
from dtf.ports.subjects import MESSAGE_ID_HEADER, RecordKind, record_stream, record_subjects
from dtf.settings.model import NatsSettings

_FULL_CODES = frozenset({10077, 10023, 10028, 10047})
_DAY_SECONDS = 86_400
_TELEMETRY_AGE_SECONDS = 7 * _DAY_SECONDS
"""Long enough for an analyzer that was down over a weekend; what it wrote is in its store."""
_TELEMETRY_MAX_BYTES = 2**30
_RECORDS_MAX_BYTES = 2**30
_DUPLICATE_WINDOW_SECONDS = {
    RecordKind.SCALING: 3600,
    RecordKind.ANALYSIS: 3600,
    RecordKind.TELEMETRY: 120,
}
"""A restarted publisher sends its last decision again within the hour; a sample only at once."""


class JetStreamRecords:
    """The RecordStream port on one JetStream stream."""

    def __init__(self, connection: NatsConnection, kind: RecordKind, namespace: str, clock: Clock) -> None:
        """Use `open`, which also makes the stream."""
        self._connection = connection
        self._subject_prefix = record_subjects(kind, namespace).removesuffix(">")
        self._stream = JetStreamStream(connection, record_stream(kind, namespace), clock)

    @classmethod
    async def open(
        cls, nats: NatsSettings, kind: RecordKind, namespace: str, clock: Clock
    ) -> "JetStreamRecords":
        """Connect, and make the stream if it is missing. Raises LogUnavailable or LogMismatch."""
        connection = NatsConnection(nats, name=f"dtf {kind.value} {namespace}")
        records = cls(connection, kind, namespace, clock)
        try:
            await records._stream.ensure(record_stream_config(nats, kind, namespace))
        except BaseException:
            await records.close()
            raise
        return records

    async def publish(self, subject: str, payload: bytes, message_id: str | None = None) -> int:
        """Store one message and return its sequence; connects again if it must.

        `subject` is a whole one, made by dtf.ports.subjects. Raises LogUnavailable (it may have
        been stored: publish again with the same id), LogFull, LogMismatch.
        """
        if not subject.startswith(self._subject_prefix):
            raise LogMismatch(f"subject {subject} is not of this stream; expected {self._subject_prefix}…")
        headers = {MESSAGE_ID_HEADER: message_id} if message_id else None
        try:
            return int((await self._connection.ask(subject, payload, headers))["seq"])
        except BrokerRefusal as error:
            if error.code in _FULL_CODES:
                raise LogFull(
                    f"{error.description} (error {error.code}); free some disk, then go on"
                ) from error
            raise LogMismatch(str(error)) from error

    async def head(self) -> LogHead:
        """Where the stream ends."""
        return await self._stream.head()

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; messages past their age may be missing."""
        return self._stream.follow(after, gaps=True)

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is stored; messages past their age may be missing."""
        return self._stream.read(after, until, gaps=True)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._connection.close()


def record_stream_config(settings: NatsSettings, kind: RecordKind, namespace: str) -> dict[str, Any]:
    """How a stream beside the log must be: it drops its oldest rather than refuse."""
    is_telemetry = kind is RecordKind.TELEMETRY
    return {
        "name": record_stream(kind, namespace),
        "subjects": [record_subjects(kind, namespace)],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_bytes": _TELEMETRY_MAX_BYTES if is_telemetry else _RECORDS_MAX_BYTES,
        "max_age": _TELEMETRY_AGE_SECONDS * 10**9 if is_telemetry else 0,
        "deny_delete": True,
        "num_replicas": settings.replicas,
        "duplicate_window": _DUPLICATE_WINDOW_SECONDS[kind] * 10**9,
    }
