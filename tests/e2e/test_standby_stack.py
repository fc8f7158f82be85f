"""A stack with a standby: its leader dies and what runs does not notice."""

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.e2e.gated_work import CASES, RUNS, GatedWork, is_result
from tests.e2e.project import COMMAND_SECONDS, SETTINGS, Project, finish

pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(600)]

PATIENT = f"{SETTINGS}standbys = 1\nleader_lease_seconds = 20.0\n"
"""A leader that is killed is missed at once; one that the machine holds up for a while is none that died."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, PATIENT)


@pytest.mark.parametrize("kind", RUNS)
async def test_a_run_goes_on_while_each_coordinator_dies_in_turn(project: Project, kind: str) -> None:
    try:
        work = GatedWork(project)
        project.dtf("up")
        assert len(project.stack.server.split(",")) == 2
        run = project.start(*RUNS[kind])
        for epoch, part in ((2, "coordinator"), (3, "coordinator-2")):
            await project.wait_for(is_result)
            await kill_leader(project, part)
            await project.wait_for(lambda event, epoch=epoch: event.leader_elected.epoch == epoch)  # type: ignore[misc]
        work.open()
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
    await asyncio.to_thread(psutil.wait_procs, [leader], timeout=COMMAND_SECONDS)
