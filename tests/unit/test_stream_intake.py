"""A stream on its way into the store: how much may wait, and for how long."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from dtf.api.v1 import events_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points
from dtf.ports.event_log import StoredCommit
from dtf.ports.metric_store import Checkpoint
from dtf.trend_analyzer.intake import LONGEST_PACE_SECONDS, MOST_WAITING, PACE_SECONDS, StreamIntake
from tests.fakes import FakeClock
from tests.trend_events import PASSED, accepted, commit, run_created, shard_submitted

pytestmark = pytest.mark.trend_analyzer

CASES = 5_000
TURNS = 200
"""Turns of the loop: a reader that may go on reads a commit in a few."""


class GatedStore:
    """Takes no write until its gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.written = 0

    async def write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        """Wait for the gate."""
        await self.gate.wait()
        self.written += sum(map(len, points))


class SlowFold(LogFold):
    """Points that take a while to be made."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__(NameBook())
        self._clock = clock
        self._seconds = seconds

    def take(self) -> list[Points]:
        """Takes so long."""
        self._clock.jump(self._seconds)
        return super().take()


class EndlessLog:
    """Runs of CASES cases each, without end; counts what was read."""

    def __init__(self) -> None:
        self.read_points = 0
        names = [f"case-{number}" for number in range(CASES)]
        self._submitted = shard_submitted(*names)
        self._results = accepted(*[(0, case, PASSED, 0.5) for case in range(CASES)])

    async def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """A batch of one commit at a time."""
        sequence = after
        while True:
            sequence += 1
            run_id = f"r{sequence}"
            self._submitted.run_id = self._results.run_id = run_id
            each = commit(sequence, run_created(run_id), self._submitted, self._results)
            self.read_points += CASES
            yield [StoredCommit(sequence, each.SerializeToString(), str(sequence), {})]


async def settle(clock: FakeClock) -> None:
    """Let everything run that can."""
    for _ in range(TURNS):
        await clock.sleep(0)


async def test_a_store_that_takes_nothing_stops_the_reading_and_an_answer_lets_it_go_on(
    clock: FakeClock,
) -> None:
    log, store = EndlessLog(), GatedStore()
    intake = StreamIntake(
        "log",
        source=log.follow,
        parse=events_pb2.Commit.FromString,
        fold=LogFold(NameBook()),
        store=store,  # type: ignore[arg-type]  # only `write` is asked of it
        clock=clock,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(intake.run())
        await settle(clock)
        stopped_at = log.read_points
        assert MOST_WAITING <= stopped_at <= 2 * MOST_WAITING + 2 * CASES
        await settle(clock)
        assert log.read_points == stopped_at, "nothing more is read while the store is away"
        store.gate.set()
        while log.read_points == stopped_at or not store.written:
            await clock.sleep(0)
        running.cancel()


@pytest.mark.parametrize(
    ("seconds", "pace"), [(0.01, PACE_SECONDS), (0.5, 4.5), (60.0, LONGEST_PACE_SECONDS)]
)
async def test_points_that_take_long_to_make_are_made_less_often(
    clock: FakeClock, seconds: float, pace: float
) -> None:
    store = GatedStore()
    store.gate.set()
    intake = StreamIntake(
        "log",
        source=EndlessLog().follow,
        parse=events_pb2.Commit.FromString,
        fold=SlowFold(clock, seconds),
        store=store,  # type: ignore[arg-type]  # only `write` is asked of it
        clock=clock,
    )
    assert intake.pace_seconds == PACE_SECONDS
    await intake.flush()
    assert intake.pace_seconds == pytest.approx(pace)
