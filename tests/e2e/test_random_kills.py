"""kill -9 of several parts one after the other, in an order drawn from a seed: the run completes all the same.

DTF_KILL_SEEDS="1,2,3" runs other seeds than the one that is always run.
"""

import asyncio
import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dtf.api.v1 import events_pb2
from tests.e2e.gated_work import CASES, RUNS, GatedWork, is_result
from tests.e2e.project import COMMAND_SECONDS, SETTINGS, Project, finish
from tests.processes import wait_until_gone

PARTS = ("worker", "coordinator", "resource-manager", "trend-analyzer", "nats-server")
KILLS = 4
RESULTS_BETWEEN_KILLS = 3
MOST_SECONDS_BETWEEN_KILLS = 5.0
"""What is left may wait for the gate, or behind what waits."""
MANY_LOSSES = SETTINGS + "\n[run]\ninfrastructure_retries = 5\n"
"""Chance may kill the worker of one case twice: here that must not be the case's fault."""
SEEDS = [int(seed) for seed in os.environ.get("DTF_KILL_SEEDS", "3").split(",")]

pytestmark = [pytest.mark.coordinator, pytest.mark.worker, pytest.mark.timeout(600)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose cases outlive many losses."""
    return Project(tmp_path, MANY_LOSSES)


async def results_so_far(project: Project) -> int:
    """How many events of the log accepted results."""
    log = await project.open_log()
    try:
        return sum(
            is_result(event)
            for batch in [batch async for batch in log.read(0)]
            for message in batch
            for event in events_pb2.Commit.FromString(message.payload).events
        )
    finally:
        await log.close()


def worker_processes(project: Project) -> list[psutil.Process]:
    """The workers that the resource manager started and that live."""
    return [
        process
        for process in psutil.process_iter()
        if str(project.directory) in (words := _command_line(process)) and " worker " in words
    ]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def living_victim(project: Project, name: str, draw: random.Random) -> psutil.Process:
    """The part, or a worker; if it is just being restarted, once it is there again."""
    until = time.monotonic() + COMMAND_SECONDS
    while time.monotonic() < until:
        if name == "worker":
            found = worker_processes(project)
            if found:
                return draw.choice(sorted(found, key=lambda process: process.pid))
        else:
            try:
                return project.part(name)
            except psutil.NoSuchProcess:
                pass
        threading.Event().wait(0.05)  # the file that says so is no event
    raise AssertionError(f"{name} does not come back\n{project.logs()}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", RUNS)
async def test_a_run_outlives_any_sequence_of_kills(project: Project, kind: str, seed: int) -> None:
    draw = random.Random(seed)
    work = GatedWork(project)
    project.dtf("up")
    try:
        run = project.start(*RUNS[kind])
        killed = await _kill_in_turn(project, draw)
        assert run.poll() is None, f"the run ended before all of {killed} were killed"
        work.open()
        await asyncio.to_thread(finish, run)
        await _check_books(project)
        project.dtf("down", "--now")
        assert wait_until_gone(project.directory) == []
    finally:
        assert project.close() == [], project.logs()


async def _kill_in_turn(project: Project, draw: random.Random) -> list[str]:
    killed: list[str] = []
    await project.wait_for(is_result)
    while len(killed) < KILLS:
        name = draw.choice([part for part in PARTS if part not in killed[-1:]])
        await more_results(project)
        victim = await asyncio.to_thread(living_victim, project, name, draw)
        victim.kill()
        await asyncio.to_thread(victim.wait, COMMAND_SECONDS)
        killed.append(name)
    return killed


async def more_results(project: Project) -> None:
    """Return when a few more results came in, or none came for a while."""
    with suppress(TimeoutError):
        async with asyncio.timeout(MOST_SECONDS_BETWEEN_KILLS):
            await project.wait_for(is_result, count=await results_so_far(project) + RESULTS_BETWEEN_KILLS)


async def _check_books(project: Project) -> None:
    account = await project.account()
    (books,) = account.runs.values()
    assert books.faults() == []
    assert sum(map(len, books.cases.values())) == CASES
    assert books.finished is not None and books.finished.counts.passed == CASES
    assert account.strangers == 0
