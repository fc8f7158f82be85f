"""A worker that stands still says what it waits for."""

import logging

import pytest

from dtf.runner.status import RunningCase
from dtf.worker.standstill import STANDSTILL_SECONDS, Standstill
from dtf.worker.warm_process import State
from tests.fakes import FakeClock
from tests.unit.test_worker_slots import Table

LOGGER = "dtf.worker.standstill"


class Watched:
    """A board with one slot, and what is said of it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING, LOGGER)
        self._caplog = caplog
        self.table = Table(FakeClock())
        self._standstill = Standstill(self.table.board.slots, self.table.book, self.table.outbound, 0.0)

    async def after(self, seconds: float) -> list[str]:
        """What was said until then, a look a second."""
        self._caplog.clear()
        for _ in range(int(seconds)):
            self._standstill.look(self.table.clock.monotonic())
            await self.table.clock.advance(1)
        return [record.getMessage() for record in self._caplog.records if record.name == LOGGER]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


async def test_a_case_that_is_held_back_is_named_with_its_process(watched: Watched) -> None:
    (fence,) = watched.table.run("r", 1, executor="pytest")
    watched.table.prepared(watched.table.processes[0])
    (line,) = await watched.after(STANDSTILL_SECONDS + 2)
    assert line.startswith("nothing began or ended for 30 s, leases held: 1; slot 0: ")
    assert f"was given fences {fence}, 1 cases, and runs none of them" in line
    assert "holds its last case back" in line


async def test_a_process_that_does_not_get_ready_is_named_with_what_waits_for_it(watched: Watched) -> None:
    watched.table.run("r", 3)
    (line,) = await watched.after(STANDSTILL_SECONDS + 2)
    assert "of run r template 0 collects or imports its suite" in line
    assert "3 of run r template 0 wait for a slot" in line


async def test_it_is_said_again_when_it_has_lasted_twice_as_long(watched: Watched) -> None:
    watched.table.run("r", 3)
    assert len(await watched.after(5 * STANDSTILL_SECONDS)) == 3


async def test_results_that_nobody_acknowledges_are_a_standstill(watched: Watched) -> None:
    fences = watched.table.run("r", 1)
    process = watched.table.processes[0]
    watched.table.prepared(process)
    watched.table.result(process, *fences)
    sequence = watched.table.said().sequence
    (line,) = await watched.after(STANDSTILL_SECONDS + 2)
    assert f"1 messages wait to be acknowledged, the first is number {sequence}" in line
    watched.table.outbound.acknowledge(sequence)
    assert await watched.after(3 * STANDSTILL_SECONDS) == []


@pytest.mark.parametrize("what", ["nothing is held", "a case runs"])
async def test_who_has_nothing_to_do_or_does_it_stands_not_still(watched: Watched, what: str) -> None:
    if what == "a case runs":
        (fence,) = watched.table.run("r", 1)
        process = watched.table.processes[0]
        watched.table.prepared(process)
        process.running = RunningCase(fence, 0, 0.0, 3600.0)
        assert process.state is State.SERVING
    assert await watched.after(3 * STANDSTILL_SECONDS) == []


async def test_what_moves_begins_the_time_anew(watched: Watched) -> None:
    fences = watched.table.run("r", 2)
    process = watched.table.processes[0]
    watched.table.prepared(process)
    assert await watched.after(STANDSTILL_SECONDS - 1) == []
    watched.table.result(process, fences[0])
    watched.table.outbound.acknowledge(watched.table.said().sequence)
    assert await watched.after(STANDSTILL_SECONDS - 1) == []
