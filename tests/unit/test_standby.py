"""When a standby takes its turn, and when it does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace

import pytest

from dtf.adapters.memory_lease import MemoryLease
from dtf.adapters.memory_log import MemoryLog
from dtf.coordinator.lease_keeper import LeaseKeeper
from dtf.coordinator.recovery import HistoryLost, replay
from dtf.coordinator.reign import Reign, begin_reign
from dtf.coordinator.standby import Identity, Standby
from dtf.ports.leader_lease import LeaderPhase, LeaderRecord
from tests.fakes import FakeClock

LEADER = LeaderRecord("leader", 1, "", 1.5)


class Waiting:
    """A standby that waits for its turn."""

    def __init__(self, log: MemoryLog, lease: MemoryLease, clock: FakeClock, name: str) -> None:
        self.reign = Reign()
        self._standby = Standby(log, lease, clock, Identity(name, "", 1.5), self.reign)
        self.keeper: LeaseKeeper | None = None

    async def run(self) -> None:
        self.keeper = await self._standby.turn()

    async def refused(self) -> str:
        """Why it does not take its turn."""
        with pytest.raises(HistoryLost) as refusal:
            await self._standby.turn()
        return refusal.value.what


class Rig:
    """A log, a lease, and standbys on them."""

    def __init__(self, clock: FakeClock) -> None:
        self.log = MemoryLog()
        self.lease = MemoryLease()
        self.clock = clock

    @asynccontextmanager
    async def standbys(self, *names: str) -> AsyncIterator[list[Waiting]]:
        """Standbys at work, which have read what there is."""
        found = [Waiting(self.log, self.lease, self.clock, name) for name in names]
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(standby.run()) for standby in found]
            await self.clock.advance(0)
            yield found
            for task in running:
                task.cancel()

    async def elect(self, reign: Reign | None = None) -> Reign:
        """One more reign in the log."""
        return await begin_reign(
            self.log,
            self.clock,
            leader="leader",
            lease_seconds=10.0,
            nonce=bytes(8),
            code_version="x",
            reign=reign,
        )

    async def renew(self, record: LeaderRecord = LEADER) -> None:
        """The leader says that it lives."""
        await self.lease.write(record, (await self.lease.read()).revision)


@pytest.fixture
def rig(clock: FakeClock) -> Rig:
    return Rig(clock)


async def test_it_waits_while_the_leader_renews(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        for _ in range(20):
            await clock.advance(1.4)
            await rig.renew()
        assert standby.keeper is None


async def test_it_claims_when_the_lease_stands_still_for_its_length(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        await clock.advance(1.4)
        assert standby.keeper is None
        await clock.advance(0.3)
        assert standby.keeper is not None
    record = (await rig.lease.read()).record
    assert record == LeaderRecord("a", 2, "", 1.5, LeaderPhase.CLAIMING)


async def test_who_stood_still_itself_does_not_take_that_for_the_leaders_silence(
    rig: Rig, clock: FakeClock
) -> None:
    """As where a whole machine stands still: the leader on it goes on as well."""
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        for _ in range(3):
            await clock.advance(1.0)
            clock.jump(60.0)
            await clock.advance(0.2)
            assert standby.keeper is None
            await rig.renew()
        await clock.advance(1.7)
        assert standby.keeper is not None


async def test_it_claims_a_released_lease_at_once(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        await rig.renew(replace(LEADER, phase=LeaderPhase.RELEASED))
        await clock.advance(0.2)
        assert standby.keeper is not None


async def test_where_nobody_ever_led_it_claims_after_the_length_of_a_lease(
    rig: Rig, clock: FakeClock
) -> None:
    async with rig.standbys("a") as (standby,):
        await clock.advance(1.4)
        assert standby.keeper is None
        await clock.advance(0.3)
        assert standby.keeper is not None


async def test_of_several_one_claims_and_the_others_wait_for_it(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a", "b", "c") as standbys:
        await clock.advance(1.7)
        (first,) = [standby for standby in standbys if standby.keeper is not None]
        assert first.keeper is not None
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(first.keeper.run())
            await clock.advance(10)
            assert [standby for standby in standbys if standby.keeper is not None] == [first]
            keeping.cancel()
        await clock.advance(1.7)
        assert sum(standby.keeper is not None for standby in standbys) == 2


async def test_a_broker_that_is_away_says_nothing_of_the_leader(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        rig.lease.disconnect()
        await clock.advance(60)
        rig.lease.reconnect()
        await clock.advance(1.2)
        assert standby.keeper is None
        await rig.renew()
        await clock.advance(1.2)
        assert standby.keeper is None


async def test_it_is_known_to_the_leader_until_it_leads(rig: Rig, clock: FakeClock) -> None:
    await rig.renew()
    async with rig.standbys("a", "b") as (first, second):
        assert await rig.lease.standbys() == {"a", "b"}
        await clock.advance(1.7)
        leader = "a" if first.keeper is not None else "b"
        assert second.keeper is not None or leader == "a"
        assert await rig.lease.standbys() == {"a", "b"} - {leader}


async def test_what_was_folded_is_where_the_next_reign_begins(rig: Rig, clock: FakeClock) -> None:
    first = await rig.elect()
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        assert standby.reign.chain.last_hash == first.chain.last_hash
        second = await rig.elect(first)
        await clock.advance(0.1)
        assert standby.reign.chain.last_hash == second.chain.last_hash
        await clock.advance(1.7)
        assert (await rig.elect(standby.reign)).chain.epoch == 3


async def test_a_log_that_ends_before_what_was_folded_is_not_led(rig: Rig, clock: FakeClock) -> None:
    reign = await rig.elect()
    for _ in range(2):
        reign = await rig.elect(reign)
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        rig.log.cut(after=1)
        await clock.advance(1.7)
        with pytest.raises(HistoryLost, match=r"the event log ends at 1 .* has read it up to 3"):
            await rig.elect(standby.reign)
    assert len(rig.log.commits) == 1


async def test_a_log_that_was_cut_and_written_anew_is_not_led(rig: Rig, clock: FakeClock) -> None:
    first = await rig.elect()
    base = deepcopy(first)
    await rig.elect(first)
    await rig.renew()
    async with rig.standbys("a") as (standby,):
        rig.log.cut(after=1)
        await clock.advance(0.5)
        await rig.elect(base)
        await clock.advance(1.2)
        with pytest.raises(HistoryLost, match="was changed"):
            await rig.elect(standby.reign)
    assert len(rig.log.commits) == 2


@pytest.mark.parametrize("phase", [LeaderPhase.LOST, LeaderPhase.RELEASED, LeaderPhase.LEADING])
async def test_a_log_that_lacks_what_its_leader_knew_is_not_claimed(
    rig: Rig, clock: FakeClock, phase: LeaderPhase
) -> None:
    reign = await rig.elect()
    known = replace(LEADER, phase=phase, sequence=reign.chain.sequence + 12, message_id="0" * 64)
    await rig.renew(known)
    waiting = Waiting(rig.log, rig.lease, clock, "a")
    async with asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(waiting.refused())
        await clock.advance(1.7)
        assert "leader had acknowledged 13 in epoch 1; the log ends at 1" in await turn
    assert (await rig.lease.read()).record == known, "the next standby can read it as well"


async def test_what_a_leader_knew_before_an_election_binds_nobody(rig: Rig, clock: FakeClock) -> None:
    reign = await rig.elect()
    await rig.renew(replace(LEADER, phase=LeaderPhase.LOST, sequence=12, message_id="0" * 64))
    await rig.elect(reign)  # as `dtf log repair --accept-loss` does
    waiting = Waiting(rig.log, rig.lease, clock, "a")
    await replay(rig.log, waiting.reign.state, waiting.reign.chain)
    await waiting.run()
    assert waiting.keeper is not None


async def test_a_broker_that_forgot_the_record_does_not_hide_what_the_leader_knew(
    rig: Rig, clock: FakeClock
) -> None:
    reign = await rig.elect()
    await rig.renew(replace(LEADER, sequence=reign.chain.sequence + 1, message_id="0" * 64))
    waiting = Waiting(rig.log, rig.lease, clock, "a")
    async with asyncio.TaskGroup() as tasks:
        turn = tasks.create_task(waiting.refused())
        await clock.advance(0.5)
        rig.lease.reconnect(forgotten=True)
        await clock.advance(1.9)
        assert "leader had acknowledged 2" in await turn
