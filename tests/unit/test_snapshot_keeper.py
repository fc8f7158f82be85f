"""When a coordinator has snapshots taken, and what follows one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dtf.adapters.spool import FileSpool, read_directory
from dtf.api.v1 import events_pb2
from dtf.coordinator.commits import PendingCommit
from dtf.coordinator.snapshot_keeper import (
    LEAST_PAUSE_SECONDS,
    RETRY_SECONDS,
    SnapshotFailed,
    SnapshotKeeper,
    SnapshotRules,
    TakenSnapshot,
)
from tests.fakes import FakeClock
from tests.unit.test_spool import commit as spooled

RULES = SnapshotRules(events=10, bytes=1000)


@dataclass(slots=True)
class Launcher:
    """Takes snapshots at once, or fails, and counts."""

    count: int = 0
    is_failing: bool = False
    oldest_kept: int = 0
    taken: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> TakenSnapshot:
        self.count += 1
        self.taken.set()
        if self.is_failing:
            raise SnapshotFailed("there is no room")
        return TakenSnapshot(self.count, self.oldest_kept)


def durable(events: int, size: int = 10) -> PendingCommit:
    """A commit of so many events."""
    return PendingCommit(
        sequence=1,
        now_ns=1,
        payload=bytes(size),
        message_id="",
        previous_message_id=None,
        expected_last_sequence=None,
        headers={},
        events=[events_pb2.Event()] * events,
        steps=[],
    )


@asynccontextmanager
async def running(keeper: SnapshotKeeper) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.run())
        yield
        task.cancel()


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


@pytest.mark.parametrize(("first", "second"), [(durable(9), durable(1)), (durable(1, 999), durable(1, 1))])
async def test_one_is_taken_when_the_log_has_grown_by_enough_and_not_before(
    first: PendingCommit, second: PendingCommit
) -> None:
    launcher = Launcher()
    keeper = SnapshotKeeper(launcher, None, FakeClock(), RULES, pending_commits=0)
    async with running(keeper):
        keeper.durable(first)
        await turns()
        assert launcher.count == 0
        keeper.durable(second)
        await turns()
        assert launcher.count == 1


async def test_a_start_from_a_long_log_has_one_taken_at_once() -> None:
    launcher = Launcher()
    async with running(SnapshotKeeper(launcher, None, FakeClock(), RULES, pending_commits=10)):
        await turns()
    assert launcher.count == 1


async def test_the_next_one_waits_for_a_pause_whatever_the_load_and_longer_after_a_failure() -> None:
    launcher, clock = Launcher(), FakeClock()
    keeper = SnapshotKeeper(launcher, None, clock, RULES, pending_commits=0)
    async with running(keeper):
        keeper.durable(durable(10))
        await turns()
        keeper.durable(durable(10))
        await clock.advance(LEAST_PAUSE_SECONDS / 2)
        assert launcher.count == 1
        launcher.is_failing = True
        await clock.advance(LEAST_PAUSE_SECONDS)
        await turns()
        assert launcher.count == 2
        await clock.advance(RETRY_SECONDS / 2)
        assert launcher.count == 2
        launcher.is_failing = False
        await clock.advance(RETRY_SECONDS)
        await turns()
        assert launcher.count == 3


async def test_the_spool_is_trimmed_to_the_oldest_snapshot_that_is_kept(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, segment_bytes=1)
    spool.begin("aa")
    for sequence in range(1, 6):
        await spool.write(spooled(sequence))
    launcher = Launcher(oldest_kept=3)
    keeper = SnapshotKeeper(launcher, spool, FakeClock(), RULES, pending_commits=10)
    await keeper.finish(30.0)
    await spool.close()
    assert [found.sequence for found in read_directory(tmp_path, 0).commits] == [4, 5]


async def test_a_last_one_is_taken_only_if_the_next_start_gains_by_it() -> None:
    launcher = Launcher()
    keeper = SnapshotKeeper(launcher, None, FakeClock(), RULES, pending_commits=0)
    await keeper.finish(30.0)
    assert launcher.count == 0
    keeper.durable(durable(2))
    await keeper.finish(30.0)
    assert launcher.count == 1


async def test_a_last_one_that_takes_too_long_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    async def never() -> TakenSnapshot:
        await asyncio.Event().wait()
        raise AssertionError

    await SnapshotKeeper(never, None, FakeClock(), RULES, pending_commits=10).finish(0.01)
    assert "too long" in caplog.text
