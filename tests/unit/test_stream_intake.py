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
from dtf.trend_analyzer.intake import MOST_WAITING, StreamIntake
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
