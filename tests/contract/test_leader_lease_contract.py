"""What every LeaderLease does, the one in memory and the one in a JetStream bucket alike."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest
import pytest_asyncio

from dtf.adapters.leader_bucket import LeaderBucket
from dtf.adapters.memory_lease import MemoryLease
from dtf.adapters.system_clock import SystemClock
from dtf.ports.leader_lease import LeaderLease, LeaderPhase, LeaderRecord, LeaseTaken, LeaseView
from dtf.settings.model import NatsSettings

RECORD = LeaderRecord("one", 3, "127.0.0.1:7070", 1.5)


@pytest.fixture
def memory_lease() -> MemoryLease:
    return MemoryLease()


@pytest_asyncio.fixture
async def bucket(nats_settings: NatsSettings, namespace: str) -> AsyncIterator[LeaderBucket]:
    bucket = LeaderBucket(nats_settings, namespace)
    yield bucket
    await bucket.close()


@pytest.fixture(params=["memory_lease", "bucket"])
def lease(request: pytest.FixtureRequest) -> LeaderLease:
    return cast(LeaderLease, request.getfixturevalue(request.param))


async def test_without_a_leader_there_is_no_record(lease: LeaderLease) -> None:
    assert await lease.read() == LeaseView(None, 0)


@pytest.mark.parametrize("phase", LeaderPhase)
async def test_what_was_written_is_read(lease: LeaderLease, phase: LeaderPhase) -> None:
    await lease.read()
    record = replace(RECORD, phase=phase)
    revision = await lease.write(record, 0)
    assert await lease.read() == LeaseView(record, revision)


async def test_each_renewal_has_another_revision(lease: LeaderLease) -> None:
    await lease.read()
    first = await lease.write(RECORD, 0)
    second = await lease.write(RECORD, first)
    assert second != first
    assert (await lease.read()).revision == second


async def test_of_two_who_replace_the_same_record_one_does(lease: LeaderLease) -> None:
    await lease.read()
    revision = await lease.write(RECORD, 0)
    await lease.write(replace(RECORD, leader="two"), revision)
    with pytest.raises(LeaseTaken):
        await lease.write(replace(RECORD, leader="three"), revision)
    record = (await lease.read()).record
    assert record is not None and record.leader == "two"


async def test_of_two_who_find_no_record_one_writes_it(lease: LeaderLease) -> None:
    await lease.read()
    await lease.write(RECORD, 0)
    with pytest.raises(LeaseTaken):
        await lease.write(replace(RECORD, leader="two"), 0)


async def test_standbys_are_known_until_they_withdraw(lease: LeaderLease) -> None:
    await lease.read()
    assert await lease.standbys() == frozenset()
    await lease.enlist("a")
    await lease.enlist("b")
    await lease.enlist("a")
    assert await lease.standbys() == {"a", "b"}
    await lease.withdraw("a")
    assert await lease.standbys() == {"b"}


async def test_a_standby_does_not_change_the_record(lease: LeaderLease) -> None:
    await lease.read()
    revision = await lease.write(RECORD, 0)
    await lease.enlist("a")
    await lease.write(RECORD, revision)


async def test_word_of_a_loss_outlasts_what_the_bucket_forgets(
    nats_settings: NatsSettings, namespace: str
) -> None:
    bucket, clock = LeaderBucket(nats_settings, namespace, kept_seconds=1.0), SystemClock()
    await bucket.read()
    word = replace(RECORD, phase=LeaderPhase.LOST, sequence=17, message_id="m")
    revision = await bucket.write(word, 0)
    await bucket.enlist("said after it")
    while await bucket.standbys():
        await clock.sleep(0.02)
    assert (await bucket.read()).record == word
    await bucket.write(replace(word, phase=LeaderPhase.RELEASED), revision)
    while (await bucket.read()).record is not None:
        await clock.sleep(0.02)
    await bucket.close()
