"""A stack with a standby: its leader dies and what runs does not notice."""

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.e2e.project import SETTINGS, Project, finish
from tests.e2e.test_kill_one_part import CASES, COMMANDS, SUITE, is_result

pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(240)]

RUNS = {
    "commands": ("run", "--each", "commands.txt", "--json"),
    "pytest": ("run", "test_suite.py", "-q"),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, SETTINGS + "standbys = 1\n")


@pytest.mark.parametrize("kind", RUNS)
async def test_a_run_goes_on_while_each_coordinator_dies_in_turn(project: Project, kind: str) -> None:
    try:
        project.write("commands.txt", COMMANDS)
        project.write("test_suite.py", SUITE)
        project.dtf("up")
        assert len(project.stack.server.split(",")) == 2
        run = project.start(*RUNS[kind])
        for epoch, part in ((2, "coordinator"), (3, "coordinator-2")):
            await project.wait_for(is_result)
            await kill_leader(project, part)
            await project.wait_for(lambda event, epoch=epoch: event.leader_elected.epoch == epoch)  # type: ignore[misc]
        await asyncio.to_thread(finish, run)
        account = await project.account()
        (books,) = account.runs.values()
        assert books.faults() == []
        assert books.losses == 0
        assert sum(map(len, books.cases.values())) == CASES
        assert account.epochs == {1, 2, 3}
        assert account.workers_lost == []
    finally:
        assert project.close() == [], project.logs()


async def kill_leader(project: Project, part: str) -> None:
    """kill -9 of the part that leads, once the supervisor has all parts running."""
    leader = project.part(part)
    leader.kill()
    await asyncio.to_thread(psutil.wait_procs, [leader], timeout=60)
