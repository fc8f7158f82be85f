"""What every EventLog does, the one in memory and the one on JetStream alike."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.ports.event_log import AppendConflict, EventLog, LogHead, StoredCommit


@pytest.fixture
def memory_log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture(params=["memory_log", "event_log"])
def log(request: pytest.FixtureRequest) -> EventLog:
    return cast(EventLog, request.getfixturevalue(request.param))


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def append(
    log: EventLog, payload: bytes, previous: str | None, expected: int | None = None
) -> asyncio.Future[int]:
    return log.append(
        payload,
        message_id=digest(payload),
        previous_message_id=previous,
        expected_last_sequence=expected,
        headers={"Dtf-Types": "RunCreated"},
    )


async def append_chain(log: EventLog, payloads: Sequence[bytes], previous: str) -> list[int]:
    futures = []
    for payload in payloads:
        futures.append(append(log, payload, previous))
        previous = digest(payload)
    return list(await asyncio.gather(*futures))


async def collect(batches: AsyncIterator[Sequence[StoredCommit]], wanted: int) -> list[StoredCommit]:
    found: list[StoredCommit] = []
    async with (
        asyncio.timeout(20),
        aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches,
    ):
        async for batch in open_batches:
            found.extend(batch)
            if len(found) >= wanted:
                break
    return found


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert await log.head() == LogHead(0, "", 1)
    assert [batch async for batch in log.read(0)] == []


async def test_a_pipelined_chain_lands_in_order_and_reads_back_as_it_was(log: EventLog) -> None:
    payloads = [b"commit %d" % number for number in range(100)]
    assert await append_chain(log, payloads, "") == list(range(1, 101))
    assert await log.head() == LogHead(100, digest(payloads[-1]), 1)
    found = [commit async for batch in log.read(0) for commit in batch]
    assert [commit.payload for commit in found] == payloads
    assert [commit.sequence for commit in found] == list(range(1, 101))
    assert [commit.message_id for commit in found] == [digest(payload) for payload in payloads]
    assert all(commit.headers["Dtf-Types"] == "RunCreated" for commit in found)


async def test_a_fenced_append_to_another_place_conflicts(log: EventLog) -> None:
    await append(log, b"one", "", 0)
    with pytest.raises(AppendConflict):
        await append(log, b"two", digest(b"another"))
    assert (await log.head()).last_sequence == 1


async def test_follow_delivers_what_comes_later(log: EventLog) -> None:
    await append_chain(log, [b"a", b"b"], "")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(collect(log.follow(1), 3))
        await append_chain(log, [b"c", b"d"], digest(b"b"))
    assert [commit.payload for commit in following.result()] == [b"b", b"c", b"d"]
