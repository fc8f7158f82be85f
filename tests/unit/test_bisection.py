"""Bisection finds the first commit that breaks something, with few checks."""

from collections.abc import AsyncIterator, Sequence

import pytest

from dtf.cli.bisection import Bisection, Breach
from dtf.core.chain import ChainReader
from dtf.core.run.commands import ElectLeader
from dtf.core.run.state import State
from dtf.ports.event_log import StoredCommit
from tests.unit.command_log import CommandLog
from tests.unit.core_world import template
from tests.unit.test_redaction import create

COMMITS = 400


@pytest.fixture(scope="module")
def log() -> CommandLog:
    """Four hundred commits: a run each."""
    made = CommandLog()
    made.do(ElectLeader("host", 1.0))
    made.do(*(create(f"r{number}", template()) for number in range(1, COMMITS)))
    return made


def reader(log: CommandLog) -> Bisection:
    async def read(after: int, until: int) -> AsyncIterator[Sequence[StoredCommit]]:
        messages = log.between(after, until)
        for start in range(0, len(messages), 100):
            yield messages[start : start + 100]

    return Bisection(read, lambda state: [])


async def find(log: CommandLog, bad: range, windows: int = 128) -> tuple[Breach | None, int]:
    """Bisect for states whose newest commit is in `bad`."""
    bisection = reader(log)
    bisection.check = lambda state: ["bad"] if state.last_sequence in bad else []
    breach = await bisection.first_breach(State(), ChainReader(), COMMITS, windows)
    return breach, bisection.checks


@pytest.mark.parametrize("first", [1, 2, 17, 100, 399, 400])
async def test_it_finds_the_first_of_those_that_stay_bad(log: CommandLog, first: int) -> None:
    breach, checks = await find(log, range(first, COMMITS + 1))
    assert breach is not None
    assert breach.sequence == first
    assert breach.faults == ["bad"]
    assert len(breach.after["runs"]) == first - 1
    assert len(breach.before.get("runs", ())) == max(first - 2, 0)
    assert checks < 250


async def test_it_says_so_if_nothing_breaks(log: CommandLog) -> None:
    breach, checks = await find(log, range(0))
    assert breach is None
    assert checks <= 140


async def test_what_heals_is_found_where_every_commit_is_checked(log: CommandLog) -> None:
    assert (await find(log, range(202, 204)))[0] is None, "this is what the help warns of"
    breach, checks = await find(log, range(202, 204), windows=0)
    assert breach is not None
    assert (breach.sequence, checks) == (202, 202)
