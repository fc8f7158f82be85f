"""Moves a whole event log into a stream file and back into an empty log."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from dtf.adapters.stream_file import StreamFile, StreamFileHeader, writing
from dtf.core.chain import ChainReader
from dtf.core.events import parse_commit
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, StoredCommit
from dtf.ports.subjects import (
    EXPECTED_LAST_MESSAGE_ID_HEADER,
    EXPECTED_LAST_SEQUENCE_HEADER,
    MESSAGE_ID_HEADER,
)

_IN_FLIGHT = 64
_BROKER_HEADERS = {MESSAGE_ID_HEADER, EXPECTED_LAST_MESSAGE_ID_HEADER, EXPECTED_LAST_SEQUENCE_HEADER}


class ReadableLog(Protocol):
    """Whatever gives batches of a log: the live one, an archive, a file."""

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what has `after` < sequence <= `until` (None: the end)."""
        ...


class TransferError(ValueError):
    """The log and the file do not go together; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    commit_count: int
    stranger_count: int
    last_sequence: int


async def export_log(
    log: ReadableLog,
    path: Path,
    *,
    namespace: str,
    clock: Clock,
    after: int = 0,
    until: int | None = None,
    on_progress: Callable[[int], object] = lambda _count: None,
) -> Exported:
    """Write what has `after` < sequence <= `until` (None: the log's end now) to `path`.

    The hash chain is checked on the way; of a slice, from the first commit in it on. Raises
    ChainBroken, LogError and OSError; `path` is then what it was before.
    """
    chain, strangers = ChainReader(sequence=after), 0
    header = StreamFileHeader("events", namespace, version("dtf"), clock.now_ns())
    with writing(path, header) as writer:
        async for batch in log.read(after, until):
            for message in batch:
                if not chain.commit_count:
                    chain = _chain_before(message)
                commit = chain.accept(message.sequence, message.payload, message.message_id)
                strangers += commit is None
                writer.write(message)
            on_progress(len(batch))
    return Exported(chain.commit_count, strangers, chain.sequence)


def _chain_before(first: StoredCommit) -> ChainReader:
    """The chain as a slice that begins with `first` must take it to stand: on the slice's own word."""
    commit = parse_commit(first.payload, first.message_id)
    if first.sequence == 1 or commit is None:
        return ChainReader(sequence=first.sequence - 1)
    return ChainReader(sequence=first.sequence - 1, last_hash=commit.prev_hash)


async def import_log(log: EventLog, path: Path) -> int:
    """Append the messages of a stream file to an empty log, each as it was; return how many.

    Raises TransferError if the log is not empty or the file is of another stream,
    StreamFileError, and LogError. The file is read through and checked before the first append.
    """
    head = await log.head()
    if head.last_sequence:
        raise TransferError(
            f"the log has {head.last_sequence} commits already; import into a namespace of its own"
        )
    _check(path)
    in_flight: deque[asyncio.Future[int]] = deque()
    count = 0
    with StreamFile(path) as file:
        for message in file:
            in_flight.append(_append(log, message))
            count += 1
            if len(in_flight) >= _IN_FLIGHT:
                await in_flight.popleft()
    while in_flight:
        await in_flight.popleft()
    return count


def _check(path: Path) -> None:
    chain = ChainReader()
    with StreamFile(path) as file:
        if file.header.kind != "events":
            raise TransferError(f"{path} holds a stream of {file.header.kind}, not an event log")
        for message in file:
            if not chain.sequence and message.sequence > 1:
                raise TransferError(
                    f"{path} is a slice that begins at {message.sequence}; a log can be filled from 1 on only. "
                    "`dtf replay`, `dtf explain` and others read it with --from"
                )
            chain.accept(message.sequence, message.payload, message.message_id)


def _append(log: EventLog, message: StoredCommit) -> asyncio.Future[int]:
    return log.append(
        message.payload,
        message_id=message.message_id,
        previous_message_id=None,
        expected_last_sequence=message.sequence - 1,
        headers={name: value for name, value in message.headers.items() if name not in _BROKER_HEADERS},
    )
