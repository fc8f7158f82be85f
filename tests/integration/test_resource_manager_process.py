"""`dtf resource-manager` with a real broker, a real coordinator and real workers."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.api.v1 import scaling_pb2
from tests.integration.pool_rig import PoolRig, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS, read_decisions

pytestmark = pytest.mark.resource_manager

OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN
REPLACE = scaling_pb2.SCALING_ACTION_REPLACE


@pytest.fixture
async def rig(own_nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[PoolRig]:
    """Broker and coordinator, and a directory for the rest."""
    (tmp_path / "project").mkdir()
    async with pool_rig(own_nats_server, tmp_path / "project") as made:
        yield made


async def stop(process: asyncio.subprocess.Process, number: signal.Signals) -> int:
    """Signal a process and wait for its end."""
    process.send_signal(number)
    async with asyncio.timeout(WAIT_SECONDS):
        return await process.wait()


async def test_workers_come_with_the_backlog_and_go_when_idle(rig: PoolRig) -> None:
    manager = await rig.start_manager()
    run = await rig.start_gated_run(24)
    await rig.workers_until(3)
    rig.open_gate()
    assert (await run.result()).counts.passed == 24
    await rig.workers_until(1)
    decisions = await read_decisions(rig.records)
    assert max(decision.desired for decision in decisions if decision.action == OUT) == 3
    assert any(decision.action == IN for decision in decisions)
    assert await stop(manager, signal.SIGTERM) == 0
    assert rig.worker_processes() == {}


async def test_a_worker_killed_is_replaced_and_the_run_completes_before_its_leases_expire(
    rig: PoolRig,
) -> None:
    manager = await rig.start_manager("--min", "2", "--max", "2")
    workers = await rig.workers_until(2)
    run = await rig.client.start_run("sleepers", commands=[["sleep", "0.2"]] * 20)
    psutil.Process(workers[0].process_id).kill()
    replaced = await rig.decisions.until(REPLACE)
    assert replaced.reason == f"{workers[0].worker_id} was killed by signal 9"
    assert (await run.result()).counts.passed == 20
    assert await stop(manager, signal.SIGTERM) == 0


async def test_after_kill_9_the_workers_go_on_and_are_taken_up_again(rig: PoolRig) -> None:
    manager = await rig.start_manager("--min", "2", "--max", "2")
    before = {worker.worker_id: worker.process_id for worker in await rig.workers_until(2)}
    run = await rig.client.start_run("sleepers", commands=[["sleep", "0.1"]] * 30)
    await stop(manager, signal.SIGKILL)
    manager = await rig.start_manager("--min", "2", "--max", "2")
    assert (await run.result()).counts.passed == 30
    after = {worker.worker_id: worker.process_id for worker in await rig.workers_until(2)}
    assert after == before
    launched = [launch for decision in await read_decisions(rig.records) for launch in decision.launch_ids]
    assert sorted(launched) == ["local-1", "local-2"]
    assert await stop(manager, signal.SIGTERM) == 0
    assert rig.worker_processes() == {}


async def test_a_worker_that_died_while_the_manager_was_dead_is_replaced(rig: PoolRig) -> None:
    manager = await rig.start_manager("--min", "1", "--max", "1")
    (worker,) = await rig.workers_until(1)
    run = await rig.client.start_run("sleeper", commands=[["sleep", "0.5"]])
    async for watched in run.watch(event_types=["leases_granted"]):
        if watched.event is not None and watched.event.HasField("leases_granted"):
            break
    await stop(manager, signal.SIGKILL)
    process = psutil.Process(worker.process_id)
    process.kill()
    await asyncio.to_thread(psutil.wait_procs, [process], WAIT_SECONDS)
    manager = await rig.start_manager("--min", "1", "--max", "1")
    assert (await run.result()).counts.passed == 1
    assert list(rig.worker_processes()) == ["local-2"]
    assert await stop(manager, signal.SIGTERM) == 0
