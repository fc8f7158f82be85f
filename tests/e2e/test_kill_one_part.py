"""kill -9 of any one part during a run: the run completes, each case judged exactly once, the chain whole."""

import asyncio
import json

import psutil
import pytest

from tests.e2e.gated_work import CASES, RUNS, GatedWork, is_result
from tests.e2e.project import Project, finish

COMPONENT = {
    "worker": pytest.mark.worker,
    "coordinator": pytest.mark.coordinator,
    "resource-manager": pytest.mark.resource_manager,
    "trend-analyzer": pytest.mark.trend_analyzer,
    "nats-server": pytest.mark.coordinator,
}
VICTIMS = [pytest.param(name, marks=mark) for name, mark in COMPONENT.items()]


async def victim(project: Project, name: str) -> psutil.Process:
    """The process to kill: the part, or the worker that a result came from."""
    if name != "worker":
        return project.part(name)
    result = await project.wait_for(is_result)
    registered = await project.wait_for(
        lambda event: event.worker_registered.worker_id == result.results_accepted.worker_id
    )
    return psutil.Process(registered.worker_registered.process_id)


async def kill_during(project: Project, name: str, kind: str) -> str:
    """Start `dtf run`, kill `name` once results come in, and look at what became of it; what the run printed."""
    work = GatedWork(project)
    project.dtf("up")
    process = project.start(*RUNS[kind])
    await project.wait_for(is_result, count=3)
    (await victim(project, name)).kill()
    assert process.poll() is None, "the run ended before anything was killed"
    work.open()
    output = await asyncio.to_thread(finish, process)
    account = await project.account()
    (books,) = account.runs.values()
    assert books.faults() == []
    assert sum(map(len, books.cases.values())) == CASES
    assert books.finished is not None and books.finished.counts.passed == CASES
    assert account.strangers == 0
    if name == "worker":
        assert len(account.workers_lost) == 1
    if name == "coordinator":
        assert account.epochs == {1, 2}
    return output


@pytest.mark.parametrize("name", VICTIMS)
async def test_commands_complete_though_one_part_is_killed(project: Project, name: str) -> None:
    run = json.loads(await kill_during(project, name, "commands"))
    if name == "trend-analyzer":
        report = project.json("report", run["run_id"], "--json")
        assert len(report["cases"]) == CASES, "it has every case in the end"


@pytest.mark.parametrize("name", VICTIMS)
async def test_a_pytest_suite_completes_though_one_part_is_killed(project: Project, name: str) -> None:
    await kill_during(project, name, "pytest")
