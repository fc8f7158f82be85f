"""Suites on workers that are jobs of a real Slurm, through the real resource manager."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtf.adapters.nats_server import NatsServer
from tests.integration.pool_rig import PoolRig, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.resource_manager

SUITE = """
import os, time
import pytest

@pytest.mark.parametrize("number", range(12))
def test_in_a_job(number):
    time.sleep(0.2)
    assert os.environ["SLURM_JOB_ID"]
"""
POOL = """
[pool]
provider = "slurm"
min_workers = 2
max_workers = 3
backlog_aim_seconds = 0.5
scale_in_idle_seconds = 0.3
scale_in_cooldown_seconds = 0.1

[slurm]
configuration = "{configuration}"
poll_seconds = 0.5
"""


@pytest.fixture
async def pool(slurm: SlurmCluster, own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[PoolRig]:
    """Broker and coordinator of a project whose workers are jobs."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_jobs.py").write_text(SUITE)
    settings = POOL.format(configuration=slurm.configuration)
    async with pool_rig(own_nats_server, project, settings) as made:
        yield made


async def stop(process: asyncio.subprocess.Process, number: signal.Signals) -> int:
    """Signal a process and wait for its end."""
    process.send_signal(number)
    async with asyncio.timeout(WAIT_SECONDS):
        return await process.wait()


def active_jobs(slurm: SlurmCluster) -> list[str]:
    """The jobs that have not ended, by name."""
    return slurm.run("squeue", "--me", "--noheader", "--array", "--format=%A %a %j").splitlines()


async def test_a_suite_runs_on_a_slurm_and_its_jobs_are_gone_afterwards(
    pool: PoolRig, slurm: SlurmCluster
) -> None:
    manager = await pool.start_manager()
    workers = await pool.workers_until(2)
    assert {worker.worker_id for worker in workers} == {"local-1", "local-2"}
    code, output = await pool.command("run", "test_jobs.py")
    assert code == 0, output
    assert "12 passed" in output
    assert await stop(manager, signal.SIGTERM) == 0
    async with asyncio.timeout(WAIT_SECONDS):
        while await asyncio.to_thread(active_jobs, slurm):
            pass  # Slurm lists a job that has ended until its node has tidied up


async def test_after_kill_9_of_the_resource_manager_its_jobs_go_on_and_none_is_submitted_twice(
    pool: PoolRig, slurm: SlurmCluster
) -> None:
    others = set(await asyncio.to_thread(active_jobs, slurm))  # of tests before, not yet tidied up
    manager = await pool.start_manager("--max", "2")
    before = {worker.worker_id: worker.process_id for worker in await pool.workers_until(2)}
    run = await pool.client.start_run("sleepers", commands=[["sleep", "0.1"]] * 20)
    await stop(manager, signal.SIGKILL)
    manager = await pool.start_manager("--max", "2")
    assert (await run.result()).counts.passed == 20
    assert {worker.worker_id: worker.process_id for worker in await pool.workers_until(2)} == before
    assert len({*await asyncio.to_thread(active_jobs, slurm)} - others) == 2
    assert await stop(manager, signal.SIGTERM) == 0
