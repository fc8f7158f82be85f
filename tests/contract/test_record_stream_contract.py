"""What every RecordStream does, the one in memory and the one on JetStream alike."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import pytest
import pytest_asyncio

from dtf.adapters.memory_log import MemoryRecords
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import LogMismatch, RecordStream, StoredCommit
from dtf.ports.subjects import RecordKind, scaling_subject, telemetry_subject
from dtf.settings.model import NatsSettings


@pytest.fixture
def memory_records() -> MemoryRecords:
    return MemoryRecords()


@pytest_asyncio.fixture
async def jetstream_records(nats_settings: NatsSettings, namespace: str) -> AsyncIterator[JetStreamRecords]:
    records = await JetStreamRecords.open(nats_settings, RecordKind.SCALING, namespace, SystemClock())
    yield records
    await records.close()


@pytest.fixture(params=["memory_records", "jetstream_records"])
def records(request: pytest.FixtureRequest) -> RecordStream:
    return cast(RecordStream, request.getfixturevalue(request.param))


async def test_messages_are_read_in_the_order_they_were_published(
    records: RecordStream, namespace: str
) -> None:
    subject = scaling_subject(namespace, "local")
    assert [await records.publish(subject, b"%d" % number) for number in range(3)] == [1, 2, 3]
    found = [(record.sequence, record.payload) async for batch in records.read(0) for record in batch]
    assert found == [(1, b"0"), (2, b"1"), (3, b"2")]
    assert [record.sequence async for batch in records.read(1, 2) for record in batch] == [2]


async def test_the_same_id_is_stored_once(records: RecordStream, namespace: str) -> None:
    subject = scaling_subject(namespace, "local")
    assert await records.publish(subject, b"a", "local-1") == 1
    assert await records.publish(subject, b"a", "local-1") == 1
    assert await records.publish(subject, b"b", "local-2") == 2
    found = [(record.message_id, record.payload) async for batch in records.read(0) for record in batch]
    assert found == [("local-1", b"a"), ("local-2", b"b")]


async def test_follow_delivers_what_comes_later(records: RecordStream, namespace: str) -> None:
    await records.publish(scaling_subject(namespace, "local"), b"before")
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        following = group.create_task(first(records.follow(0), 2))
        await records.publish(scaling_subject(namespace, "other pool.x"), b"after")
    assert following.result() == [b"before", b"after"]


async def test_a_subject_of_another_stream_is_refused(
    jetstream_records: JetStreamRecords, namespace: str
) -> None:
    with pytest.raises(LogMismatch, match="is not of this stream"):
        await jetstream_records.publish(telemetry_subject(namespace, "w-1"), b"")


async def first(batches: AsyncIterator[Sequence[StoredCommit]], wanted: int) -> list[bytes]:
    found: list[bytes] = []
    async with aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches:
        async for batch in open_batches:
            found.extend(record.payload for record in batch)
            if len(found) >= wanted:
                break
    return found
