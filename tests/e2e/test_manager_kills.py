"""kill -9 of the resource manager between any two of its steps: no worker is left over, none launched twice."""

import asyncio
import random
import signal
from pathlib import Path

import psutil
import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.api.v1 import resource_service_pb2
from tests.integration.pool_rig import QUICK, PoolRig, kill, pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS, read_decisions

pytestmark = pytest.mark.resource_manager

STEPS = (
    "before save",
    "after save",
    "before launch",
    "after launch",
    "before publish",
    "after publish",
    "before drain",
    "after drain",
    "before forget",
    "after forget",
)


SHRINKING = ("drain", "forget")


@pytest.mark.parametrize("seed", [5])
async def test_kills_between_steps_leave_nothing_over_and_double_nothing(
    own_nats_server: NatsServer, tmp_path: Path, seed: int
) -> None:
    steps = list(STEPS)
    random.Random(seed).shuffle(steps)
    async with pool_rig(own_nats_server, tmp_path, QUICK) as rig:
        run = await rig.client.start_run("busy", commands=[["sleep", "0.3"]] * 20, infrastructure_retries=0)
        for step in steps:
            active = len(await rig.active_workers())
            if step.endswith(SHRINKING) and not active:
                active = 2
                await resize(rig, active)
                await kill_when_grown(rig, active)
            does_grow = not step.endswith(SHRINKING) and active < 3
            await resize(rig, active + 2 if does_grow else active - 1)
            manager = await rig.start_mortal_manager(step)
            async with asyncio.timeout(WAIT_SECONDS):
                assert await manager.wait() == -signal.SIGKILL, step
        await resize(rig, 1)
        last = await rig.start_manager()
        assert (await run.result()).counts.passed == 20
        (worker,) = await rig.workers_until(1)
        others = [process for name, process in rig.worker_processes().items() if name != worker.launch_id]
        await asyncio.to_thread(psutil.wait_procs, others, WAIT_SECONDS)
        assert list(rig.worker_processes()) == [worker.launch_id]
        last.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await last.wait() == 0
        assert rig.worker_processes() == {}
        decisions = await read_decisions(rig.records)
        launched = [launch for each in decisions for launch in each.launch_ids if each.desired]
        assert sorted(set(launched)) == sorted(launched)
        code, said = await rig.command("check", "--scaling")
        assert code == 0, said
        assert all(each.incarnation == 1 for each in await rig.client.list_workers(include_gone=True))


async def resize(rig: PoolRig, workers: int) -> None:
    """Wish for so many workers, whatever there is to do."""
    request = resource_service_pb2.ScalePoolRequest(pool="local", workers=workers, requested_by="test")
    await rig.client.pools.ScalePool(request, metadata=rig.client.metadata, timeout=WAIT_SECONDS)


async def kill_when_grown(rig: PoolRig, workers: int) -> None:
    """Have a manager without a fate make so many workers."""
    manager = await rig.start_manager()
    await rig.workers_until(workers)
    await kill(manager)
