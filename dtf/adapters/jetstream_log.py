"""The event log on NATS JetStream.

Appends are pipelined, each with a reply subject of its own (nats_replies.py; nats-py's own
`publish_async` never resolves its future when an append is refused). Each carries the id of the
commit before it, so that the broker itself refuses what does not continue the chain.

What the broker answers, and what that means here:

    seq                             the commit is durable
    duplicate: true                 AppendConflict  it landed before
    10070, 10071, 10158, 10164      AppendConflict  the log does not end where the writer believes
    10077, 10023, 10047, 10028      LogFull         the stream or the disk is full
    nothing in time, no connection  LogUnavailable  it may have landed: read back
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from nats.aio.msg import Msg

from dtf.adapters.jetstream_stream import JetStreamStream
from dtf.adapters.nats_connection import NatsConnection
from dtf.ports.clock import Clock
from dtf.ports.event_log import (
    AppendConflict,
    LogError,
    LogFull,
    LogHead,
    LogMismatch,
    LogUnavailable,
    StoredCommit,
)
from dtf.ports.subjects import (
    EXPECTED_LAST_MESSAGE_ID_HEADER,
    EXPECTED_LAST_SEQUENCE_HEADER,
    MESSAGE_ID_HEADER,
    event_stream,
    event_subject,
)
from dtf.settings.model import NatsSettings

_CONFLICT_CODES = frozenset({10070, 10071, 10158, 10164})
_FULL_CODES = frozenset({10077, 10023, 10028, 10047})
_DUPLICATE_WINDOW_SECONDS = 10
"""The chain refuses a late duplicate by itself; a long window only costs the broker memory."""


class JetStreamLog:
    """The EventLog port on one JetStream stream."""

    def __init__(self, connection: NatsConnection, namespace: str, clock: Clock) -> None:
        """Use `open`, which also makes the stream."""
        self._connection = connection
        self._subject = event_subject(namespace)
        self._stream = JetStreamStream(connection, event_stream(namespace), clock)

    @classmethod
    async def open(cls, nats: NatsSettings, namespace: str, clock: Clock) -> "JetStreamLog":
        """Connect, and make the stream of `namespace` if it is missing.

        Raises LogUnavailable, or LogMismatch if the stream is there and not as it must be.
        """
        connection = NatsConnection(nats, name=f"dtf log {namespace}")
        log = cls(connection, namespace, clock)
        try:
            await log._stream.ensure(event_stream_config(nats, namespace))
        except BaseException:
            await log.close()
            raise
        return log

    @classmethod
    async def attach(cls, nats: NatsSettings, namespace: str, clock: Clock) -> "JetStreamLog":
        """Connect to a log that is there, for a tap: nothing is made and nothing is checked.

        Raises LogUnavailable, or LogMismatch if there is no log of this namespace.
        """
        log = cls(NatsConnection(nats, name=f"dtf tap {namespace}"), namespace, clock)
        try:
            await log.head()
        except BaseException:
            await log.close()
            raise
        return log

    async def head(self) -> LogHead:
        """Where the log ends, asked of the stream's leader.

        Connects again if it must; after that, appends can be made again.
        """
        return await self._stream.head()

    async def size_bytes(self) -> int:
        """What it takes on the broker's disk."""
        return await self._stream.size_bytes()

    def append(
        self,
        payload: bytes,
        *,
        message_id: str,
        previous_message_id: str | None,
        expected_last_sequence: int | None,
        headers: Mapping[str, str],
    ) -> asyncio.Future[int]:
        """Send one commit; see the port. Without a connection it fails at once and is never sent."""
        fence = _fence_headers(message_id, previous_message_id, expected_last_sequence)
        return self._connection.send(self._subject, payload, {**headers, **fence}, parse=_sequence_of)

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is stored; see the port."""
        return self._stream.read(after, until, gaps=False)

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; see the port."""
        return self._stream.follow(after, gaps=False)

    async def purge_below(self, sequence: int) -> None:
        """Remove the messages before `sequence`, which the archive has; `dtf log archive` alone does it."""
        await self._stream.purge_below(sequence)

    async def close(self) -> None:
        """Let go of the connection; appends in flight fail with LogUnavailable."""
        await self._connection.close()


def event_stream_config(settings: NatsSettings, namespace: str) -> dict[str, Any]:
    """How the stream of the event log must be: it forgets nothing and refuses when it is full."""
    return {
        "name": event_stream(namespace),
        "subjects": [event_subject(namespace)],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": settings.max_log_bytes,
        "max_age": 0,
        "max_msgs": -1,
        "deny_delete": True,
        "num_replicas": settings.replicas,
        "duplicate_window": _DUPLICATE_WINDOW_SECONDS * 10**9,
    }


def _sequence_of(acknowledgement: Msg) -> int:
    """The sequence of a commit that landed now. Raises the LogError that the answer means."""
    answer = json.loads(acknowledgement.data)
    error = answer.get("error")
    if error is not None:
        raise _refusal(int(error.get("err_code", 0)), str(error.get("description", "")))
    if answer.get("duplicate"):
        raise AppendConflict(f"the commit is in the log already, at {answer['seq']}")
    return int(answer["seq"])


def _refusal(code: int, description: str) -> LogError:
    if code in _CONFLICT_CODES:
        return AppendConflict(f"the log is not where this writer believes: {description} (error {code})")
    if code in _FULL_CODES:
        return LogFull(
            f"the event log is full: {description} (error {code}); "
            "raise [nats] max_log_bytes or free some disk, then go on"
        )
    if code == 0 or 500 <= code < 600:
        return LogUnavailable(f"the broker could not store an append: {description}")
    return LogMismatch(f"the broker refused an append: {description} (error {code})")


def _fence_headers(message_id: str, previous: str | None, expected: int | None) -> dict[str, str]:
    """The conditions under which the broker takes the message.

    "" as the id before means an empty log. nats-server takes an empty header for no condition at
    all, so that is asked for as a last sequence of 0.
    """
    fence = {MESSAGE_ID_HEADER: message_id}
    if previous:
        fence[EXPECTED_LAST_MESSAGE_ID_HEADER] = previous
    if expected is not None:
        fence[EXPECTED_LAST_SEQUENCE_HEADER] = str(expected)
    elif previous == "":
        fence[EXPECTED_LAST_SEQUENCE_HEADER] = "0"
    return fence
