"""Frames of the NATS protocol handed on as they come, past nats-py's parser and queues.

nats-py spends 10 µs on a message: four regular expressions tried on a buffer that is moved for each
of them, an object, a queue, a task. A replay reads a million. Here a subscription that wants its
messages raw gets them from the read loop's own turn: one expression, two slices.

    bytes read ──▶ FrameParser ──┬─ frames of a raw subscription, while they follow each other ─▶ taker
                                 └─ everything else ─▶ nats-py ─▶ RawClient._process_msg ─▶ taker, or nats-py

Both ways lead to the taker in the order of arrival. Should a later nats-py no longer use its parser
or that method, messages come to the subscription's callback: slower, and no different.
"""

import re
from collections.abc import Callable, Iterator, Mapping

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

Taker = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes subject, reply, header (with its first line; empty: none) and payload of one message."""

_FRAME_WITH_REPLY = re.compile(rb"HMSG ([^ \r\n]+) (\d+) ([^ \r\n]+) (\d+) (\d+)\r\n")
"""What a consumer delivers; half the price of the other, which knows frames without a reply as well."""
_FRAME = re.compile(rb"HMSG ([^ \r\n]+) (\d+) (?:([^ \r\n]+) )?(\d+) (\d+)\r\n")
_FRAME_START = b"HMSG "
_LONGEST_CONTROL_LINE = 4096


class RawHeaders(Mapping[str, str]):
    """Headers of a message, read when someone asks for one."""

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._parsed: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())

    def _read(self) -> dict[str, str]:
        if self._parsed is None:
            self._parsed = parse_headers(self._raw)
        return self._parsed


def parse_headers(raw: bytes) -> dict[str, str]:
    """Names and values of "NATS/1.0[ status[ description]]\\r\\nname: value\\r\\n…"."""
    first, *lines = raw.decode("utf-8", "replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    found = {name.strip(): value.strip() for name, separator, value in pairs if separator}
    _, _, said = first.partition(" ")
    status, _, description = said.strip().partition(" ")
    if status:
        found["Status"] = status
        if description:
            found["Description"] = description.strip()
    return found


class RawClient(Client):
    """nats-py's client, whose subscriptions may take their messages raw."""

    def __init__(self) -> None:
        super().__init__()
        self.takers: dict[int, Taker] = {}
        self._ps = FrameParser(self)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        taker = self.takers.get(sid)
        if taker is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            taker(subject, reply, headers or b"", data)


class FrameParser(Parser):
    """nats-py's parser, which is not asked about frames of raw subscriptions."""

    def __init__(self, client: RawClient) -> None:
        super().__init__(client)
        self._takers = client.takers

    async def parse(self, data: bytes = b"") -> None:
        """Take what is there; the rest waits for the next call."""
        if self._takers and self.state == AWAITING_CONTROL_LINE:
            data, is_partial = self._take_frames(bytes(self.buf) + data if self.buf else bytes(data))
            self.buf = bytearray(data if is_partial else b"")
            if is_partial or not data:
                return
        await super().parse(data)

    def _take_frames(self, data: bytes) -> tuple[bytes, bool]:
        """What is left after the frames taken, and whether it is the beginning of another."""
        takers, match = self._takers, _FRAME_WITH_REPLY.match
        position, end = 0, len(data)
        while position < end:
            found = match(data, position) or _FRAME.match(data, position)
            if found is None:
                rest = data[position : position + _LONGEST_CONTROL_LINE]
                is_beginning = b"\r\n" not in rest and _FRAME_START.startswith(rest[: len(_FRAME_START)])
                return data[position:], is_beginning
            subject, sid, reply, header_length, length = found.groups()
            taker = takers.get(int(sid))
            if taker is None:
                return data[position:], False
            start = found.end()
            stop = start + int(length)
            if stop + 2 > end:
                return data[position:], True
            body = start + int(header_length)
            taker(subject, reply or b"", data[start:body], data[body:stop])
            position = stop + 2
        return b"", False


def take_raw(client: Client, subscription: Subscription, taker: Taker) -> None:
    """Hand the messages of a subscription to `taker` from now on, as far as the client can."""
    if isinstance(client, RawClient):
        client.takers[subscription._id] = taker


def take_raw_no_more(client: Client, subscription: Subscription) -> None:
    """Leave the messages of a subscription to nats-py again."""
    if isinstance(client, RawClient):
        client.takers.pop(subscription._id, None)
