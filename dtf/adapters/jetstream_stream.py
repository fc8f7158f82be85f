"""One JetStream stream: made if missing, checked if there, and read fast and without gaps.

Reading goes through an ephemeral pull consumer without acknowledgements. Pulls overlap: the next
is sent when half of what the ones before asked for has come, so that the broker is never idle
and never more than a window ahead of the reader. Whatever breaks (the consumer is gone, the
broker was restarted, it fell silent), the reader makes a new consumer from the message after the
last one it handed on; every message's sequence is checked against the one before.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from dtf.adapters.nats_connection import BrokerRefusal, NatsConnection, describe
from dtf.adapters.nats_frames import RawHeaders, take_raw, take_raw_no_more
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, LogFull, LogHead, LogMismatch, LogUnavailable, StoredCommit
from dtf.ports.subjects import MESSAGE_ID_HEADER

_API = "$JS.API"
_MESSAGE_ID = re.compile(rb"\r\n" + MESSAGE_ID_HEADER.encode() + rb": *([^\r]*)\r\n")
_NO_SUCH_STREAM = 10059
_NO_SUCH_MESSAGE = 10037
_NAME_IN_USE = 10058
_NO_STORAGE_LEFT = 10047
_JETSTREAM_NOT_ENABLED = frozenset({10039, 10076})

_PULL_MESSAGES = 2048
_PULL_BYTES = 8 * 2**20
_WINDOW_MESSAGES = 2 * _PULL_MESSAGES
_PULL_SECONDS = 30
_HEARTBEAT_SECONDS = 2
"""An idle broker says so this often; one that misses three is taken for gone."""
_CONSUMER_SECONDS = 60
"""The broker forgets a consumer that nobody has pulled from for this long."""
_RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)

_ACK_TOKENS = 9
_END_OF_PULL = frozenset({"404", "408"})
_NO_RESPONDERS = "503"
_HEARTBEAT = "100"


class JetStreamStream:
    """A stream of the broker, by its name."""

    def __init__(
        self, connection: NatsConnection, name: str, clock: Clock, *, filter_subject: str = ""
    ) -> None:
        """`filter_subject`: only messages of it are read, with gaps; "": all are."""
        self._connection = connection
        self._name = name
        self._clock = clock
        self._filter_subject = filter_subject

    async def ensure(self, wanted: Mapping[str, Any]) -> None:
        """Make the stream if it is missing. Raises LogMismatch if it is there and differs."""
        try:
            found = await self._info()
        except BrokerRefusal as error:
            if error.code != _NO_SUCH_STREAM:
                raise _as_log_error(error, self._name) from error
            found = await self._create(wanted)
        differences = _differences(wanted, found["config"])
        if differences:
            raise LogMismatch(
                f"stream {self._name} is not configured as this process expects: {'; '.join(differences)}. "
                f"Nothing was changed; correct the setting, or `nats stream edit {self._name}`"
            )

    async def head(self) -> LogHead:
        """Where the stream ends, as its leader says."""
        try:
            state = (await self._info())["state"]
            last, first = int(state["last_seq"]), int(state["first_seq"])
            return LogHead(last, await self._message_id(last) if last else "", max(first, 1))
        except BrokerRefusal as error:
            raise _as_log_error(error, self._name) from error

    async def purge_below(self, sequence: int) -> None:
        """Remove every message before `sequence`. Raises LogError."""
        try:
            await self._connection.request(f"{_API}.STREAM.PURGE.{self._name}", {"seq": sequence})
        except BrokerRefusal as error:
            raise _as_log_error(error, self._name) from error

    async def size_bytes(self) -> int:
        """What it takes on the broker's disk."""
        try:
            return int((await self._info())["state"]["bytes"])
        except BrokerRefusal as error:
            raise _as_log_error(error, self._name) from error

    async def read(
        self, after: int, until: int | None, *, gaps: bool
    ) -> AsyncGenerator[Sequence[StoredCommit], None]:
        """Batches with `after` < sequence <= `until` (None: the last one now).

        Survives a lost connection as long as a new one is had within the time to connect.
        `gaps` says whether messages may be missing because they were too old to keep.
        """
        head = await self.head()
        end = head.last_sequence if until is None else min(until, head.last_sequence)
        position = max(after, head.first_sequence - 1) if gaps else after
        while position < end:
            before = position
            with suppress(LogUnavailable):
                async with aclosing(self._pull(position, gaps=gaps)) as batches:
                    async for batch in batches:
                        kept = batch if batch[-1].sequence <= end else _up_to(batch, end)
                        position = batch[-1].sequence
                        if kept:
                            yield kept
                        if position >= end:
                            return
            if position == before:
                await self.head()  # raises if the broker is gone for good

    async def follow(self, after: int, *, gaps: bool) -> AsyncGenerator[Sequence[StoredCommit], None]:
        """Batches after `after`, without end. A broker that is gone is waited for."""
        position, failures = after, 0
        while True:
            try:
                async with aclosing(self._pull(position, gaps=gaps)) as batches:
                    async for batch in batches:
                        position, failures = batch[-1].sequence, 0
                        yield batch
            except LogUnavailable:
                await self._clock.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1

    async def _pull(self, after: int, *, gaps: bool) -> AsyncGenerator[Sequence[StoredCommit], None]:
        """Batches after `after` from one consumer, until something breaks: LogUnavailable then."""
        client = await self._connection.client()
        pull = _Pull(self._name, after, gaps=gaps)
        try:
            await pull.start(client, await self._create_consumer(after))
            self._connection.when_lost(pull.wake)
            while True:
                yield await pull.next_batch()
        finally:
            self._connection.when_lost_no_more(pull.wake)
            await pull.stop()

    async def _create_consumer(self, after: int) -> str:
        config: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": after + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _CONSUMER_SECONDS * 10**9,
        }
        if self._filter_subject:
            config["filter_subject"] = self._filter_subject
        request = {"stream_name": self._name, "config": config}
        try:
            made = await self._connection.request(f"{_API}.CONSUMER.CREATE.{self._name}", request)
        except BrokerRefusal as error:
            raise _as_log_error(error, self._name) from error
        return str(made["name"])

    async def _info(self) -> dict[str, Any]:
        return await self._connection.request(f"{_API}.STREAM.INFO.{self._name}")

    async def _create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self._connection.request(f"{_API}.STREAM.CREATE.{self._name}", wanted)
        except BrokerRefusal as error:
            if error.code == _NAME_IN_USE:  # somebody else made it in the meantime, otherwise
                return await self._info()
            raise _as_log_error(error, self._name) from error

    async def _message_id(self, sequence: int) -> str:
        try:
            answer = await self._connection.request(f"{_API}.STREAM.MSG.GET.{self._name}", {"seq": sequence})
        except BrokerRefusal as error:
            if error.code == _NO_SUCH_MESSAGE:  # purged
                return ""
            raise
        return _headers_of_raw(answer["message"].get("hdrs", "")).get(MESSAGE_ID_HEADER, "")


class _Pull:
    """What one consumer delivers, and how much of what was asked for is still to come."""

    def __init__(self, stream: str, after: int, *, gaps: bool) -> None:
        self._stream = stream
        self._position = after
        self._gaps = gaps
        self._arrived: list[StoredCommit] = []
        self._outstanding = 0
        self._something = asyncio.Event()
        self._fault: LogError | None = None
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._next_subject = ""
        self._inbox = ""
        self._raw_inbox = b""
        self._consumer = ""

    async def start(self, client: Client, consumer: str) -> None:
        self._client, self._consumer = client, consumer
        self._next_subject = f"{_API}.CONSUMER.MSG.NEXT.{self._stream}.{consumer}"
        self._inbox = client.new_inbox()
        self._raw_inbox = self._inbox.encode()
        self._subscription = await client.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0
        )
        take_raw(client, self._subscription, self._take_frame)

    async def next_batch(self) -> Sequence[StoredCommit]:
        """What has come since the last call; waits for at least one message."""
        while not self._arrived:
            if self._fault is not None:
                raise self._fault
            await self._ask_for_more()
            self._something.clear()
            try:
                async with asyncio.timeout(3 * _HEARTBEAT_SECONDS):
                    await self._something.wait()
            except TimeoutError as error:
                raise LogUnavailable(f"stream {self._stream} fell silent") from error
        batch, self._arrived = self._arrived, []
        await self._ask_for_more()
        return batch

    async def stop(self) -> None:
        """Unsubscribe, and let the broker forget the consumer; neither has to succeed."""
        if self._client is None or not self._client.is_connected:
            return
        with suppress(nats.errors.Error, OSError):
            if self._subscription is not None:
                take_raw_no_more(self._client, self._subscription)
                await self._subscription.unsubscribe()
            await self._client.publish(f"{_API}.CONSUMER.DELETE.{self._stream}.{self._consumer}")

    def wake(self) -> None:
        """The connection is gone."""
        self._fail(LogUnavailable("the connection to the broker was lost"))

    async def _ask_for_more(self) -> None:
        """Keep a window of messages asked for, less what the reader has not taken yet."""
        assert self._client is not None
        while self._fault is None and self._outstanding + len(self._arrived) <= _PULL_MESSAGES:
            request = {
                "batch": _PULL_MESSAGES,
                "max_bytes": _PULL_BYTES,
                "expires": _PULL_SECONDS * 10**9,
                "idle_heartbeat": _HEARTBEAT_SECONDS * 10**9,
            }
            try:
                await self._client.publish(
                    self._next_subject, json.dumps(request).encode(), reply=self._inbox
                )
            except (nats.errors.Error, OSError) as error:
                raise LogUnavailable(f"the connection to the broker was lost ({describe(error)})") from error
            self._outstanding += _PULL_MESSAGES

    def _take_frame(self, subject: bytes, reply: bytes, header: bytes, payload: bytes) -> None:
        """A message as it came: nearly all of a replay's do, and are kept as they are."""
        if subject == self._raw_inbox:
            self._note_status(RawHeaders(header))
            self._something.set()
        else:
            self._take(_sequence_of(reply), payload, header)

    async def _receive(self, message: Msg) -> None:
        """The same from nats-py's own hands, should its insides have changed."""
        headers = message.headers or {}
        if message.subject == self._inbox:
            self._note_status(headers)
            self._something.set()
        else:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            raw = f"NATS/1.0\r\n{lines}\r\n".encode()
            self._take(_sequence_of(message.reply.encode()), message.data, raw)

    def _take(self, sequence: int, payload: bytes, header: bytes) -> None:
        self._outstanding -= 1
        if sequence <= self._position or self._fault is not None:
            return
        if sequence != self._position + 1 and not self._gaps:
            self._fail(
                LogMismatch(
                    f"stream {self._stream} has no messages {self._position + 1} to {sequence - 1}: "
                    "they were purged or lost; restore them, or begin after them"
                )
            )
            return
        self._position = sequence
        found = _MESSAGE_ID.search(header)
        message_id = found[1].decode(errors="replace") if found else ""
        if not self._arrived:
            self._something.set()
        self._arrived.append(StoredCommit(sequence, payload, message_id, RawHeaders(header)))

    def _note_status(self, headers: Mapping[str, str]) -> None:
        status = headers.get("Status", "")
        if status == _HEARTBEAT:
            return
        if status == _NO_RESPONDERS:
            self._fail(LogUnavailable(f"nobody serves stream {self._stream} now"))
            return
        description = headers.get("Description", "")
        if status not in _END_OF_PULL and not _is_end_of_pull(description):
            self._fail(LogUnavailable(f"stream {self._stream}: {status} {description}"))
            return
        self._outstanding -= int(headers.get("Nats-Pending-Messages", 0))

    def _fail(self, fault: LogError) -> None:
        self._fault = self._fault or fault
        self._something.set()


def _is_end_of_pull(description: str) -> bool:
    """A pull that was answered in part: its bytes are used up, or the broker closed it early."""
    return description in {"Batch Completed", "Message Size Exceeds MaxBytes"}


def _up_to(batch: Sequence[StoredCommit], end: int) -> Sequence[StoredCommit]:
    return [commit for commit in batch if commit.sequence <= end]


def _sequence_of(reply: bytes) -> int:
    """The stream's sequence in "$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>. …".

    Servers that know domains put two tokens, the domain and the account, before the stream.
    """
    tokens = reply.split(b".")
    return int(tokens[5] if len(tokens) == _ACK_TOKENS else tokens[7])


def _headers_of_raw(encoded: str) -> dict[str, str]:
    """The headers of a message that the API returned in base64."""
    lines = base64.b64decode(encoded).decode(errors="replace").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} is {found.get(key)!r}, expected {value!r}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]


def _as_log_error(error: BrokerRefusal, stream: str) -> LogError:
    if error.code == _NO_STORAGE_LEFT:
        return LogFull(
            f"nats-server has no room left for stream {stream}: {error.description} (error {error.code}); "
            "raise max_file_store in its configuration, or lower [nats] max_log_bytes"
        )
    if error.code in _JETSTREAM_NOT_ENABLED:
        return LogMismatch("nats-server has JetStream switched off; start it with `jetstream {}` (-js)")
    if error.code == _NO_SUCH_STREAM:
        return LogMismatch(
            f"there is no stream {stream} on this broker; `dtf coordinator` makes it for its namespace"
        )
    return LogMismatch(f"stream {stream}: {error.description} (error {error.code})")
