"""Commits written to a broker's stream at the pace of the broker: NATS frames on a bare connection.

An append of the coordinator's waits for its own answer and costs 50 µs; here every thousandth is
answered. That answer vouches for those before it: each message names the one before, so that the
broker refuses whatever follows one that it did not take.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Self

from dtf.ports.subjects import EXPECTED_LAST_MESSAGE_ID_HEADER, MESSAGE_ID_HEADER

WINDOW_MESSAGES = 1000
ANSWER_SECONDS = 60.0


class BulkWriter:
    """One connection that only publishes. Not more than two windows are on their way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, subject: str) -> None:
        """Use `connect`."""
        self._reader = reader
        self._writer = writer
        self._subject = subject
        self._sent = 0
        self._answered = 0

    @classmethod
    async def connect(cls, url: str, user: str, password: str, subject: str) -> Self:
        """Log in to a broker on this machine."""
        host, _, port = url.rpartition("://")[2].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        options = {"user": user, "pass": password, "verbose": False, "pedantic": False, "headers": True}
        writer.write(f"CONNECT {json.dumps(options)}\r\nSUB answers 1\r\n".encode())
        return cls(reader, writer, subject)

    async def write(self, payload: bytes, message_id: str, previous: str, headers: Mapping[str, str]) -> None:
        """Send a message that continues the stream after `previous` ("": it is the first)."""
        lines = [f"{MESSAGE_ID_HEADER}: {message_id}", *(f"{name}: {headers[name]}" for name in headers)]
        if previous:
            lines.append(f"{EXPECTED_LAST_MESSAGE_ID_HEADER}: {previous}")
        head = "NATS/1.0\r\n{}\r\n\r\n".format("\r\n".join(lines)).encode()
        self._sent += 1
        is_answered = self._sent % WINDOW_MESSAGES == 0
        reply = "answers " if is_answered else ""
        frame = f"HPUB {self._subject} {reply}{len(head)} {len(head) + len(payload)}\r\n".encode()
        self._writer.write(b"".join((frame, head, payload, b"\r\n")))
        if is_answered:
            await self._writer.drain()
            await self._hear(self._sent - WINDOW_MESSAGES)

    async def finish(self) -> None:
        """Wait until what was answered is stored; what came after the last answer, the caller asks the log."""
        await self._writer.drain()
        await self._hear(self._sent - self._sent % WINDOW_MESSAGES)

    async def close(self) -> None:
        """Let go of the connection."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _hear(self, sequence: int) -> None:
        """Wait until the broker has stored `sequence`."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while self._answered < sequence:
                line = await self._reader.readline()
                if line.startswith(b"MSG "):
                    length = int(line.rsplit(b" ", 1)[1])
                    answer = json.loads((await self._reader.readexactly(length + 2))[:-2])
                    self._answered = int(answer["seq"]) if "seq" in answer else _refused(answer)
                elif line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
                elif not line or line.startswith(b"-ERR"):
                    raise ConnectionError(f"the broker ended the connection: {line.decode()}")


def _refused(answer: Mapping[str, object]) -> int:
    raise RuntimeError(f"the broker refused a commit: {answer}")
