"""Suites on workers that are pods: the real resource manager, scheduler and job controller, and real workers."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.settings.providers import KubernetesSettings
from tests.integration.pool_rig import PoolRig, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS
from tests.kubernetes_bench import KubernetesBench
from tests.kubernetes_cluster import KubernetesCluster

pytestmark = pytest.mark.resource_manager

SUITE = """
import time
import psutil, pytest

@pytest.mark.parametrize("number", range(12))
def test_on_a_pod(number):
    time.sleep(0.2)
    commands = [each.cmdline() for each in psutil.Process().parents()]
    assert any("worker" in words and {"local-1", "local-2", "local-3"} & {*words} for words in commands)
"""
POOL = """
[pool]
provider = "kubernetes"
min_workers = 2
max_workers = 3
backlog_aim_seconds = 0.5
scale_in_idle_seconds = 0.3
scale_in_cooldown_seconds = 0.1

[kubernetes]
kubeconfig = "{kubeconfig}"
namespace = "{namespace}"
kind = "{kind}"
image = "worker:1"
cpus = 0.5
termination_grace_seconds = 5
"""


@pytest.fixture
async def rig(
    request: pytest.FixtureRequest,
    kubernetes: KubernetesCluster,
    own_nats_server: NatsServer,
    tmp_path: Path,
) -> AsyncIterator[tuple[PoolRig, KubernetesBench]]:
    """Broker and coordinator, and a namespace for the workers; they are pods unless a parameter says jobs."""
    kind = getattr(request, "param", "pod")
    bench = KubernetesBench(kubernetes, "", KubernetesSettings(kind=kind))
    project = tmp_path / "project"
    project.mkdir()
    (project / "test_pods.py").write_text(SUITE)
    settings = POOL.format(kubeconfig=kubernetes.kubeconfig, namespace=bench.namespace, kind=kind)
    async with pool_rig(own_nats_server, project, settings) as made:
        yield made, bench
    await bench.stop()


async def stop(process: asyncio.subprocess.Process, number: signal.Signals) -> int:
    """Signal a process and wait for its end."""
    process.send_signal(number)
    async with asyncio.timeout(WAIT_SECONDS):
        return await process.wait()


@pytest.mark.parametrize("rig", ["pod", "job"], indirect=True)
async def test_a_suite_runs_on_workers_that_are_pods(rig: tuple[PoolRig, KubernetesBench]) -> None:
    pool, bench = rig
    manager = await pool.start_manager()
    workers = await pool.workers_until(2)
    assert {worker.worker_id for worker in workers} == {"local-1", "local-2"}
    assert {pod["metadata"]["labels"]["dtf-launch-id"] for pod in bench.pods()} == {"local-1", "local-2"}
    code, output = await pool.command("run", "test_pods.py")
    assert code == 0, output
    assert "12 passed" in output
    assert await stop(manager, signal.SIGTERM) == 0
    assert [pod for pod in bench.pods() if pod["status"]["phase"] == "Running"] == []


async def test_an_evicted_worker_gives_its_work_back_and_is_replaced(
    rig: tuple[PoolRig, KubernetesBench],
) -> None:
    pool, bench = rig
    manager = await pool.start_manager()
    await pool.workers_until(2)
    run = await pool.client.start_run("sleepers", commands=[["sleep", "0.2"]] * 40)
    bench.evict(await bench.running_pod("local-1"))
    result = await run.result()
    assert result.counts.passed == 40
    async with asyncio.timeout(WAIT_SECONDS):
        while "local-3" not in {pod["metadata"]["labels"]["dtf-launch-id"] for pod in bench.pods()}:
            await asyncio.to_thread(bench.pods)
    assert "was evicted through the eviction API" in (pool.directory / "resource-manager.log").read_text()
    assert await stop(manager, signal.SIGTERM) == 0


async def test_after_kill_9_of_the_resource_manager_its_pods_go_on_and_none_is_made_twice(
    rig: tuple[PoolRig, KubernetesBench],
) -> None:
    pool, bench = rig
    manager = await pool.start_manager("--max", "2")
    before = {worker.worker_id: worker.process_id for worker in await pool.workers_until(2)}
    run = await pool.client.start_run("sleepers", commands=[["sleep", "0.1"]] * 20)
    await stop(manager, signal.SIGKILL)
    manager = await pool.start_manager("--max", "2")
    assert (await run.result()).counts.passed == 20
    assert {worker.worker_id: worker.process_id for worker in await pool.workers_until(2)} == before
    assert len(bench.pods()) == 2
    assert await stop(manager, signal.SIGTERM) == 0
