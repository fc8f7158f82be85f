"""Answers to what was sent over one connection, found by their reply subject.

One wildcard subscription serves them all. Unlike nats-py's own requests, what still waits when
the connection is lost is told so at once, and any number can be in flight.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from dtf.ports.event_log import LogError, LogUnavailable

Answer = TypeVar("Answer")


class Replies:
    """Futures of what was sent, by reply subject. Made anew for each connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._prefix = client.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, tuple[asyncio.Future[Any], Callable[[Msg], Any], asyncio.TimerHandle]] = {}

    async def start(self) -> None:
        """Listen for answers."""
        await self._client.subscribe(f"{self._prefix}.*", cb=self._receive)

    def send(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        *,
        parse: Callable[[Msg], Answer],
        timeout_seconds: float,
    ) -> asyncio.Future[Answer]:
        """Publish at once, in the order of the calls; the future gives what `parse` makes of the answer.

        It fails with what `parse` raises, or with LogUnavailable when no answer came in time, the
        connection was lost, or nothing could be sent.
        """
        reply = f"{self._prefix}.{next(self._numbers)}"
        future: asyncio.Future[Answer] = new_future()
        late = LogUnavailable(
            f"the broker did not answer within {timeout_seconds:g} s; "
            "if it answers other questions, its disk is full or failing"
        )
        timer = asyncio.get_running_loop().call_later(timeout_seconds, self._fail, reply, late)
        self._waiting[reply] = (future, parse, timer)
        try:
            _send_now(self._client, subject, payload, reply, headers)
        except (nats.errors.Error, OSError, LogUnavailable) as error:
            self._fail(reply, LogUnavailable(f"the connection took nothing: {error}"))
        return future

    def fail_all(self) -> None:
        """The connection is gone: whether anything in flight arrived is unknown."""
        for reply in tuple(self._waiting):
            self._fail(reply, LogUnavailable("the connection to the broker was lost before the answer came"))

    def _fail(self, reply: str, error: LogError) -> None:
        waiting = self._waiting.pop(reply, None)
        if waiting is not None:
            future, _, timer = waiting
            timer.cancel()
            if not future.done():
                future.set_exception(error)

    async def _receive(self, message: Msg) -> None:
        waiting = self._waiting.pop(message.subject, None)
        if waiting is None:
            return
        future, parse, timer = waiting
        timer.cancel()
        if future.done():
            return
        if not message.data and message.headers and message.headers.get("Status") == "503":
            future.set_exception(
                LogUnavailable(
                    "nobody serves this now: JetStream is starting, has no leader, or is not enabled"
                )
            )
            return
        try:
            future.set_result(parse(message))
        except LogError as error:
            future.set_exception(error)
        except (ValueError, KeyError, TypeError, AttributeError):
            future.set_exception(
                LogUnavailable(f"an answer from the broker cannot be read: {message.data[:80]!r}")
            )


def new_future() -> asyncio.Future[Any]:
    """A future whose error nobody has to fetch: a writer that is deposed lets a whole pipeline go."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return future


def _send_now(
    client: Client, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None
) -> None:
    """Publish without giving way to anything else, so that messages leave in the order of the calls.

    nats-py's publish is a coroutine that only ever waits when its buffer is bounded and full; the
    connection is opened without that bound. Should it wait nevertheless, nothing is sent.
    """
    sending = client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)
    try:
        sending.send(None)
    except StopIteration:
        return
    sending.close()
    raise LogUnavailable("its buffer is full")
