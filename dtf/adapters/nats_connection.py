"""A connection to the broker that never sends anything later than it was asked to.

nats-py keeps what was published while it was disconnected, and what lay in its buffer then, and
sends it after it has reconnected. A log cannot have that: the writer has been told that the
append failed. So its reconnection is off. A connection that is lost is closed, everybody who
waits on it is told, and the next one to ask opens a new one.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from dtf.adapters.nats_configuration import read_credentials
from dtf.adapters.nats_errors import NatsServerError
from dtf.adapters.nats_frames import RawClient
from dtf.adapters.nats_replies import Answer, Replies, new_future
from dtf.ports.event_log import LogError, LogMismatch, LogUnavailable
from dtf.settings.model import NatsSettings

logger = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS = 0.02
_LAST_RETRY_SECONDS = 1.0
_PING_SECONDS = 5
"""A broker that answers none of two pings is taken for lost: a frozen one is seen in about 10 s."""


class BrokerRefusal(LogError):
    """JetStream answered with an error; `code` is nats-server's own (10059: no such stream)."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"nats-server refused: {description} (error {code})")
        self.code = code
        self.description = description


class _Client(RawClient):
    """nats-py's client, whose reading of headers took half of the time of a replay.

    Its own asks of each character of each name whether it is white space. Should a later version
    not call this any more, nothing changes but the time.
    """

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        lines = raw.decode("utf-8", "replace").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip(): value.strip() for name, separator, value in pairs if separator}


class NatsConnection:
    """One connection, opened when it is first needed and opened again after it was lost."""

    def __init__(self, settings: NatsSettings, *, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: Client | None = None
        self._replies: Replies | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False
        self._on_lost: list[Callable[[], None]] = []

    @property
    def live(self) -> Client | None:
        """The connection if there is one now."""
        return self._client if self._client is not None and self._client.is_connected else None

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time an open connection ends, for whatever reason."""
        self._on_lost.append(callback)

    def when_lost_no_more(self, callback: Callable[[], None]) -> None:
        """Forget a callback, if it is known."""
        if callback in self._on_lost:
            self._on_lost.remove(callback)

    async def client(self) -> Client:
        """An open connection. Raises LogUnavailable after `connect_timeout_seconds` without one."""
        async with self._opening:
            if self._is_closed:
                raise LogUnavailable("the connection to the broker was closed by this process")
            live = self.live
            if live is None:
                live = await self._open()
                self._replies = Replies(live)
                await self._replies.start()
                self._client = live
            return live

    async def request(self, subject: str, payload: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the JetStream API and return its answer. Raises BrokerRefusal and LogUnavailable."""
        return await self.ask(subject, json.dumps(payload).encode() if payload else b"", None)

    async def ask(self, subject: str, payload: bytes, headers: Mapping[str, str] | None) -> dict[str, Any]:
        """Send one message and return the JSON of the answer. Raises BrokerRefusal and LogUnavailable."""
        await self.client()
        return await self.send(subject, payload, headers, parse=parsed_answer)

    def send(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        *,
        parse: Callable[[Msg], Answer],
    ) -> asyncio.Future[Answer]:
        """Send one message at once, if there is a connection; see `Replies.send`."""
        if self.live is None or self._replies is None:
            future = new_future()
            future.set_exception(
                LogUnavailable(f"not connected to {self.described_url}; nothing is sent until it is again")
            )
            return future
        timeout = self._settings.append_timeout_seconds
        return self._replies.send(subject, payload, headers, parse=parse, timeout_seconds=timeout)

    async def close(self) -> None:
        """Let go of it; it is not opened again."""
        self._is_closed = True
        client, self._client = self._client, None
        if self._replies is not None:
            self._replies.fail_all()
        if client is not None:
            await _close_client(client)

    @property
    def described_url(self) -> str:
        """The broker's address, for messages: without a password that stands in the URL."""
        return ",".join(url.rpartition("@")[2] if "@" in url else url for url in self._urls())

    def _urls(self) -> list[str]:
        return [url.strip() for url in self._settings.url.split(",") if url.strip()]

    async def _open(self) -> Client:
        if not self._urls():
            raise LogMismatch("no broker is named; set [nats] url, or let `dtf up` start one")
        reasons: list[str] = []
        delay = _FIRST_RETRY_SECONDS
        seconds = self._settings.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                while True:
                    client = await self._try_to_open(reasons)
                    if client is not None:
                        return client
                    await _pause(delay)
                    delay = min(2 * delay, _LAST_RETRY_SECONDS)
        except TimeoutError as error:
            raise LogUnavailable(
                f"no nats-server at {self.described_url} "
                f"({reasons[-1] if reasons else 'no answer'}, tried for {seconds:g} s); "
                "start it, or set [nats] url"
            ) from error

    async def _try_to_open(self, reasons: list[str]) -> Client | None:
        """An open connection, or None and the reason appended. Raises LogMismatch if refused for good."""
        client = _Client()
        user, password, creds_file = self._credentials()

        async def note(error: Exception) -> None:
            reasons.append(describe(error))
            logger.debug("nats: %s", describe(error))

        async def closed() -> None:
            if self._client is client and self._replies is not None:
                self._replies.fail_all()
            for callback in tuple(self._on_lost):
                callback()

        is_open = False
        try:
            await client.connect(
                self._urls(),
                name=self._name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, round(self._settings.connect_timeout_seconds)),
                ping_interval=_PING_SECONDS,
                max_outstanding_pings=2,
                # Nothing is ever kept for later, and publishing never has to wait: see nats_replies.
                pending_size=-1,
                error_cb=note,
                closed_cb=closed,
                user=user,
                password=password,
                user_credentials=creds_file,
            )
            is_open = True
        except (nats.errors.Error, OSError, TimeoutError) as error:
            said = describe(error)
            if "authorization" in said.lower():
                raise LogMismatch(
                    f"{self.described_url} refuses these credentials; "
                    f"check [nats] credentials_file ({self._settings.credentials_file or 'not set'})"
                ) from error
            if not reasons:
                reasons.append(said)
            return None
        finally:
            if not is_open:
                await _close_client(client)
        return client

    def _credentials(self) -> tuple[str | None, str | None, str | None]:
        """User, password and .creds file, as far as they are set."""
        file = self._settings.credentials_file
        if not file:
            return None, None, None
        if file.endswith(".creds"):
            return None, None, file
        try:
            return (*read_credentials(Path(file)), None)
        except NatsServerError as error:
            raise LogMismatch(str(error)) from error


def parsed_answer(answer: Msg) -> dict[str, Any]:
    """The JSON of an answer of JetStream. Raises BrokerRefusal if it is an error, ValueError if it is none."""
    parsed: dict[str, Any] = json.loads(answer.data)
    error = parsed.get("error")
    if error:
        raise BrokerRefusal(int(error.get("err_code", 0)), str(error.get("description", error)))
    return parsed


def describe(error: BaseException) -> str:
    """An error of the connection in a few words."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (str(error).removeprefix("nats: ") or type(error).__name__).strip()


async def _close_client(client: Client) -> None:
    """Close it, whatever state it is in."""
    try:
        async with asyncio.timeout(5):
            await client.close()
    except (nats.errors.Error, OSError, TimeoutError, AssertionError) as error:
        logger.debug("closing a connection: %s", describe(error))


async def _pause(seconds: float) -> None:
    """Wait on the loop's own time: how often a socket is tried is nobody's decision."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = asyncio.get_running_loop().call_later(seconds, future.set_result, None)
    try:
        await future
    finally:
        handle.cancel()
