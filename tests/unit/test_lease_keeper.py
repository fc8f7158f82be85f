"""How long a leader believes in itself, and what makes it leave its place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from dtf.adapters.memory_lease import MemoryLease
from dtf.coordinator.lease_keeper import LeaseKeeper
from dtf.coordinator.pipeline import Deposed
from dtf.ports.leader_lease import LeaderPhase, LeaderRecord
from dtf.rpc.errors import NotLeading
from tests.fakes import FakeClock

RECORD = LeaderRecord("one", 3, "127.0.0.1:7070", 1.5)
OTHER = replace(RECORD, leader="two", epoch=4)


endings: list[Deposed] = []
"""What keepers of this test ended with."""


@pytest.fixture
def lease() -> MemoryLease:
    return MemoryLease()


@pytest.fixture
def keeper(lease: MemoryLease, clock: FakeClock) -> LeaseKeeper:
    return LeaseKeeper(lease, clock, RECORD)


@asynccontextmanager
async def kept(keeper: LeaseKeeper, clock: FakeClock) -> AsyncIterator[None]:
    """The keeper at work."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_ending(keeper))
        await clock.advance(0)
        yield
        task.cancel()


async def _ending(keeper: LeaseKeeper) -> None:
    try:
        await keeper.run()
    except Deposed as error:
        endings.append(error)


@pytest.fixture(autouse=True)
def no_endings() -> None:
    endings.clear()


async def record_of(lease: MemoryLease) -> LeaderRecord | None:
    return (await lease.read()).record


async def replace_by(lease: MemoryLease, record: LeaderRecord) -> None:
    await lease.write(record, (await lease.read()).revision)


async def test_it_renews_several_times_in_the_length_of_the_lease(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        first = (await lease.read()).revision
        await clock.advance(RECORD.lease_seconds)
        assert (await lease.read()).revision >= first + 4
        assert await record_of(lease) == RECORD


async def test_a_record_of_an_earlier_epoch_is_replaced(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    await lease.write(replace(OTHER, epoch=2), 0)
    async with kept(keeper, clock):
        assert await record_of(lease) == RECORD
    assert not endings


async def test_a_record_of_a_later_epoch_deposes(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        await replace_by(lease, OTHER)
        await clock.advance(1)
    assert "two at 127.0.0.1:7070 is leading with epoch 4" in str(endings[0])
    assert await record_of(lease) == OTHER


async def test_a_lease_that_its_keeper_forgot_is_written_again(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        lease.disconnect()
        await clock.advance(0.5)
        lease.reconnect(forgotten=True)
        await clock.advance(0.5)
        assert await record_of(lease) == RECORD
    assert not endings


async def test_without_a_standby_it_outlasts_any_silence_of_the_broker_and_answers(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        lease.disconnect()
        await clock.advance(3600)
        await keeper.confirm()
    assert not endings


async def test_with_a_standby_it_leaves_its_place_when_its_lease_has_lapsed(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    await lease.enlist("standby")
    async with kept(keeper, clock):
        lease.disconnect()
        await clock.advance(RECORD.lease_seconds * 0.9)
        assert not endings
        await clock.advance(RECORD.lease_seconds * 0.4)
    assert "could not renew its lease for 1.5 s" in str(endings[0])
    with pytest.raises(NotLeading):
        await keeper.confirm()


async def test_a_lease_counts_from_when_its_renewal_was_sent_however_late_the_answer_is(
    clock: FakeClock,
) -> None:
    class Slow(MemoryLease):
        async def write(self, record: LeaderRecord, replaces: int) -> int:
            revision = await super().write(record, replaces)
            await clock.sleep(1.4)
            return revision

    keeper = LeaseKeeper(Slow(), clock, RECORD)
    async with kept(keeper, clock):
        await clock.advance(1.45)
        await keeper.confirm()
        await clock.advance(0.1)
        late = asyncio.ensure_future(keeper.confirm())
        await asyncio.wait([late], timeout=0)
        assert not late.done()
        late.cancel()


async def test_a_leader_that_was_stopped_answers_only_after_it_has_renewed(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        before = (await lease.read()).revision
        clock.jump(60)
        answer = asyncio.ensure_future(keeper.confirm())
        await asyncio.wait([answer], timeout=0)
        assert not answer.done()
        await clock.advance(0)
        await answer
        assert (await lease.read()).revision > before
    assert not endings


async def test_a_leader_that_was_stopped_while_another_was_elected_answers_nothing(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        await replace_by(lease, OTHER)
        clock.jump(60)
        answer = asyncio.ensure_future(keeper.confirm())
        await clock.advance(1)
        with pytest.raises(NotLeading):
            await answer
    assert endings


async def test_a_good_end_releases_the_lease(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        await keeper.release()
        await clock.advance(5)
    assert await record_of(lease) == replace(RECORD, phase=LeaderPhase.RELEASED)
    with pytest.raises(NotLeading):
        await keeper.confirm()


async def test_the_lease_of_another_is_not_released(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        await replace_by(lease, OTHER)
        await keeper.release()
    assert await record_of(lease) == OTHER


async def test_word_of_a_lost_tail_is_left_with_a_broker_that_forgot_the_lease(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        keeper.lead(3, lambda: (1646, "a-commit"))
        await clock.advance(RECORD.lease_seconds / 5)
        lease.disconnect()
        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(keeper.release(LeaderPhase.LOST))
            await clock.advance(1)
            assert not leaving.done(), "it waits for the broker"
            lease.reconnect(forgotten=True)
            await clock.advance(1)
    assert await record_of(lease) == replace(
        RECORD, phase=LeaderPhase.LOST, sequence=1646, message_id="a-commit"
    )


async def test_a_forgotten_lease_is_not_written_only_to_release_it(
    lease: MemoryLease, keeper: LeaseKeeper, clock: FakeClock
) -> None:
    async with kept(keeper, clock):
        lease.reconnect(forgotten=True)
        await keeper.release()
    assert await record_of(lease) is None
