"""The event log on NATS JetStream.

Appends are pipelined: each is published with a reply subject of its own under one wildcard
subscription, and its future is found again by the last token of that subject. (nats-py's own
`publish_async` never resolves its future when an append is refused.) Each carries the id of the
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
from itertools import count
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from dtf.adapters.jetstream_stream import JetStreamStream
from dtf.adapters.nats_connection import NatsConnection, describe
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

    def __init__(
        self, connection: NatsConnection, settings: NatsSettings, namespace: str, clock: Clock
    ) -> None:
        """Use `open`, which also makes the stream."""
        self._connection = connection
        self._subject = event_subject(namespace)
        self._stream = JetStreamStream(connection, event_stream(namespace), clock)
        self._timeout_seconds = settings.append_timeout_seconds
        self._acknowledgements = _Acknowledgements()
        connection.when_lost(self._acknowledgements.fail_all)

    @classmethod
    async def open(cls, nats: NatsSettings, namespace: str, clock: Clock) -> "JetStreamLog":
        """Connect, and make the stream of `namespace` if it is missing.

        Raises LogUnavailable, or LogMismatch if the stream is there and not as it must be.
        """
        connection = NatsConnection(nats, name=f"dtf log {namespace}")
        log = cls(connection, nats, namespace, clock)
        try:
            await log._stream.ensure(event_stream_config(nats, namespace))
            await log._acknowledgements.subscribe(await connection.client())
        except BaseException:
            await log.close()
            raise
        return log

    async def head(self) -> LogHead:
        """Where the log ends, asked of the stream's leader; connects again if it must.

        Afterwards appends can be made again: they go out on the same connection.
        """
        head = await self._stream.head()
        await self._acknowledgements.subscribe(await self._connection.client())
        return head

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
        client = self._connection.live
        if client is None or not self._acknowledgements.is_subscribed_on(client):
            return _failed(LogUnavailable("not connected to the broker; ask for the head to connect again"))
        fence = _fence_headers(message_id, previous_message_id, expected_last_sequence)
        reply, future = self._acknowledgements.expect(self._timeout_seconds)
        try:
            _send_now(client, self._subject, payload, reply, {**headers, **fence})
        except (nats.errors.Error, OSError, LogUnavailable) as error:
            self._acknowledgements.fail(reply, LogUnavailable(f"the append was not sent: {describe(error)}"))
        return future

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is stored; see the port."""
        return self._stream.read(after, until, gaps=False)

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; see the port."""
        return self._stream.follow(after, gaps=False)

    async def close(self) -> None:
        """Let go of the connection; appends in flight fail with LogUnavailable."""
        self._acknowledgements.fail_all()
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


class _Acknowledgements:
    """Futures of appends in flight, by the last token of their reply subject."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._prefix = ""
        self._numbers = count()
        self._waiting: dict[str, tuple[asyncio.Future[int], asyncio.TimerHandle]] = {}

    def is_subscribed_on(self, client: Client) -> bool:
        return self._client is client

    async def subscribe(self, client: Client) -> None:
        """Listen on `client`, unless that is done."""
        if self._client is client:
            return
        self._client = client
        self._prefix = client.new_inbox()
        await client.subscribe(f"{self._prefix}.*", cb=self._receive)

    def expect(self, timeout_seconds: float) -> tuple[str, asyncio.Future[int]]:
        """A fresh reply subject and the future that its answer resolves."""
        loop = asyncio.get_running_loop()
        reply = f"{self._prefix}.{next(self._numbers)}"
        future = _new_future()
        late = LogUnavailable(f"the broker did not acknowledge an append within {timeout_seconds:g} s")
        self._waiting[reply] = (future, loop.call_later(timeout_seconds, self.fail, reply, late))
        return reply, future

    def fail(self, reply: str, error: LogError) -> None:
        """End one append with an error."""
        waiting = self._waiting.pop(reply, None)
        if waiting is not None:
            waiting[1].cancel()
            if not waiting[0].done():
                waiting[0].set_exception(error)

    def fail_all(self) -> None:
        """The connection is gone: whether they landed is unknown."""
        self._client = None
        for reply in tuple(self._waiting):
            self.fail(
                reply, LogUnavailable("the connection to the broker was lost with the append in flight")
            )

    async def _receive(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is None:
            return
        future, timer = waiting
        timer.cancel()
        if future.done():
            return
        result = _parse_acknowledgement(message)
        if isinstance(result, int):
            future.set_result(result)
        else:
            future.set_exception(result)


def _parse_acknowledgement(message: Msg) -> int | LogError:
    if message.headers and message.headers.get("Status") == "503":
        return LogUnavailable("nobody serves the log's stream now; the broker is starting or lost its leader")
    try:
        answer = json.loads(message.data)
        error = answer.get("error")
        if error is not None:
            return _refusal(int(error.get("err_code", 0)), str(error.get("description", "")))
        if answer.get("duplicate"):
            return AppendConflict(f"the commit is in the log already, at {answer['seq']}")
        return int(answer["seq"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return LogUnavailable(f"an acknowledgement cannot be read: {message.data[:80]!r}")


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


def _send_now(client: Client, subject: str, payload: bytes, reply: str, headers: dict[str, str]) -> None:
    """Publish without giving way to anything else, so that appends leave in the order of the calls.

    nats-py's publish is a coroutine that only ever waits when its buffer is bounded and full; the
    connection is opened without that bound. Should it wait nevertheless, the append is not made.
    """
    sending = client.publish(subject, payload, reply=reply, headers=headers)
    try:
        sending.send(None)
    except StopIteration:
        return
    sending.close()
    raise LogUnavailable("the connection's buffer took nothing")


def _failed(error: LogError) -> asyncio.Future[int]:
    future = _new_future()
    future.set_exception(error)
    return future


def _new_future() -> asyncio.Future[int]:
    """A future whose error nobody has to fetch: a writer that is deposed lets a whole pipeline go."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future
