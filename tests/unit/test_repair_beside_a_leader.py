"""`dtf log repair` beside a coordinator that leads, has just ended, or ended long ago."""

import asyncio

import pytest

from dtf.adapters.memory_lease import MemoryLease
from dtf.cli.errors import CommandError
from dtf.cli.log_repair_command import refuse_beside_a_leader
from dtf.ports.leader_lease import LeaderPhase, LeaderRecord
from tests.fakes import FakeClock

LEADER = LeaderRecord("one", 3, "127.0.0.1:7070", 1.5)


async def test_a_leader_that_renews_is_to_be_stopped_first(clock: FakeClock) -> None:
    lease = MemoryLease()
    revision = await lease.write(LEADER, 0)
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_refusal(lease, clock))
        await clock.advance(0.5)
        await lease.write(LEADER, revision)
        await clock.advance(1.1)
        assert "one leads this namespace at 127.0.0.1:7070" in await asked


async def test_a_record_that_is_not_renewed_hinders_nobody(clock: FakeClock) -> None:
    lease = MemoryLease()
    await lease.write(LEADER, 0)
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_refusal(lease, clock))
        await clock.advance(1.6)
        assert await asked == ""


async def test_a_record_that_the_broker_forgot_meanwhile_was_not_renewed(clock: FakeClock) -> None:
    lease = MemoryLease()
    await lease.write(LEADER, 0)
    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(_refusal(lease, clock))
        await clock.advance(0.5)
        lease.reconnect(forgotten=True)
        await clock.advance(1.1)
        assert await asked == ""


@pytest.mark.parametrize("phase", [LeaderPhase.RELEASED, LeaderPhase.LOST])
async def test_a_leader_that_said_it_ended_is_not_waited_for(clock: FakeClock, phase: LeaderPhase) -> None:
    lease = MemoryLease()
    await lease.write(LeaderRecord("one", 3, "127.0.0.1:7070", 1.5, phase), 0)
    assert await _refusal(lease, clock) == ""
    assert clock.monotonic() == 0


async def _refusal(lease: MemoryLease, clock: FakeClock) -> str:
    try:
        await refuse_beside_a_leader(lease, clock)
    except CommandError as error:
        return str(error)
    return ""
