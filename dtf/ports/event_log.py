"""The event log: a hash chain of commits with one writer and any number of readers.

Errors:

    LogError
    ├── LogUnavailable      the broker does not answer; nothing is known about what was in flight
    ├── LogFull             the log takes no more; make room, then go on
    ├── AppendConflict      the log is not where the writer believed: it is deposed, or must read back
    └── LogMismatch         the stream or its server is not configured as it must be
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec


class LogError(Exception):
    """Base of what can go wrong with the log. `is_retryable` says whether trying again can help."""

    is_retryable = False


class LogUnavailable(LogError):
    """The broker does not answer."""

    is_retryable = True


class LogFull(LogError):
    """The log takes no more until room is made."""

    is_retryable = True


class AppendConflict(LogError):
    """Another message is where this writer's would have gone, or its own landed already."""


class LogMismatch(LogError):
    """The stream or the server is not configured as it must be; the message says what differs."""


class StoredCommit(msgspec.Struct, frozen=True, gc=False):
    """One message of the log as it is stored. A replay makes a million: this is a quarter of a dataclass's price."""

    sequence: int
    payload: bytes
    message_id: str
    """SHA-256 of `payload` in hexadecimal digits, or whatever a stranger wrote (possibly "")."""
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LogHead:
    """Where the log ends."""

    last_sequence: int
    last_message_id: str
    """Id of the last message; "" when the log is empty or a stranger wrote it without one."""
    first_sequence: int


class EventLog(Protocol):
    """A durable log of commits. Every call may raise LogError."""

    async def head(self) -> LogHead:
        """Where the log ends, asked of the stream's leader."""
        ...

    def append(
        self,
        payload: bytes,
        *,
        message_id: str,
        previous_message_id: str | None,
        expected_last_sequence: int | None,
        headers: Mapping[str, str],
    ) -> "asyncio.Future[int]":
        """Send one commit and return at once; the future gives its sequence when it is durable.

        The append fails with AppendConflict unless the log's last message has the id
        `previous_message_id` (None: not asked) and, when given, the last sequence is
        `expected_last_sequence`. Appends may be pipelined: they take effect in the order of
        the calls.
        """
        ...

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of the commits with `after` < sequence <= `until` (None: the head at the call)."""
        ...

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of the commits after `after`, without end; survives a broker's restart."""
        ...

    async def close(self) -> None:
        """Let go of the connection; appends in flight fail with LogUnavailable."""
        ...


class RecordStream(Protocol):
    """A stream beside the log, of protobuf messages: telemetry, scaling decisions, findings."""

    async def publish(self, subject: str, payload: bytes, message_id: str | None = None) -> int:
        """Store one message and return its sequence.

        The same `message_id` is stored once, as long as both come within an hour (telemetry: two
        minutes); readers that go back further know a message by what it says.
        """
        ...

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of the messages after sequence `after`, without end."""
        ...

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of the messages with `after` < sequence <= `until` (None: the last at the call)."""
        ...
