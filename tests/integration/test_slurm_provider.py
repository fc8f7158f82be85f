"""Slurm as a provider on a real Slurm: how jobs are made, found, taken away and lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from dtf.adapters.slurm_commands import SlurmAway, SlurmRefusal
from dtf.adapters.slurm_jobs import comment_of
from dtf.adapters.slurm_provider import SlurmProvider
from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, QuotaExceeded
from dtf.settings.providers import SlurmSettings
from tests.slurm_bench import SlurmBench
from tests.slurm_cluster import PROCESSORS, SlurmCluster

pytestmark = pytest.mark.resource_manager

WAIT_SECONDS = 60.0
SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
MakeBench = Callable[..., Any]
LATER = {"begin": "now+1hour"}


@pytest.fixture
async def make(slurm: SlurmCluster) -> AsyncIterator[MakeBench]:
    """Makes benches of the session's Slurm: `await make(program, **settings)`."""
    async with AsyncExitStack() as stack:

        async def make_one(program: str = SLEEPER, **settings: Any) -> SlurmBench:
            bench = SlurmBench(slurm, program, SlurmSettings(**settings))
            stack.push_async_callback(bench.stop)
            await bench.start()
            return bench

        yield make_one


def launch_of(launch_id: str, **needs: Any) -> LaunchRequest:
    """A launch as the resource manager asks for it."""
    return LaunchRequest(launch_id, "local", **needs)


def job_of(instance: Instance) -> str:
    """Its job's number."""
    return instance.handle.removeprefix("job ")


async def exit_of(provider: SlurmProvider) -> Instance:
    """The next exit."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(aiter(provider.exits()))


async def interruption_of(provider: SlurmProvider, launch_id: str) -> str:
    """What is announced of a launch, once it is."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            for instance in await provider.list_instances():
                if instance.launch_id == launch_id and instance.interruption:
                    assert instance.state is InstanceState.RUNNING
                    return instance.interruption


@pytest.mark.parametrize("partition", ["low", "lowest"], ids=["with grace", "at once"])
async def test_a_preemption_is_announced_where_there_is_time_and_told(
    make: MakeBench, partition: str
) -> None:
    bench = await make(STUBBORN, spot_partition=partition)
    running = await bench.provider.launch(launch_of("local-1", cpus=PROCESSORS - 1, is_spot=True))
    await bench.until_up("local-1")
    wants_all = ("--partition=high", f"--cpus-per-task={PROCESSORS - 1}", "--mem=100M", "--output=/dev/null")
    rival = await bench.run("sbatch", "--parsable", *wants_all, script="#!/bin/sh\nexec sleep 600\n")
    if partition == "low":
        assert "Slurm preempts it since " in await interruption_of(bench.provider, "local-1")
        await bench.run("scancel", job_of(running))
    else:
        exited = await exit_of(bench.provider)
        assert exited.reason == "was preempted for a job that goes before it (PREEMPTED)"
        assert not exited.is_clean
    await bench.run("scancel", rival.strip())


async def test_the_end_of_the_time_limit_is_announced(make: MakeBench) -> None:
    bench = await make(time_limit="1", time_limit_grace_seconds=60)
    running = await bench.provider.launch(launch_of("local-1"))
    assert "Slurm ends it at its time limit, 20" in await interruption_of(bench.provider, "local-1")
    await bench.run("scancel", job_of(running))


async def test_a_lost_node_is_named(make: MakeBench, slurm: SlurmCluster) -> None:
    bench = await make()
    await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    await bench.run("scontrol", "update", f"nodename={slurm.node}", "state=down", "reason=tests")
    exited = await exit_of(bench.provider)
    await asyncio.to_thread(slurm.resume_node)
    assert exited.reason == f"was lost with its node {slurm.node} (NODE_FAIL)"


async def test_a_job_that_another_cancels_is_not_taken_for_a_clean_end(make: MakeBench) -> None:
    bench = await make(STUBBORN)
    running = await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    await bench.run("scancel", "--signal=KILL", job_of(running))
    exited = await exit_of(bench.provider)
    assert not exited.is_clean
    assert "was cancelled by another than this resource manager" in exited.reason


async def test_a_launch_that_waits_leaves_the_queue_when_it_is_ended(make: MakeBench) -> None:
    bench = await make(options=LATER)
    waiting = await bench.provider.launch(launch_of("local-1"))
    assert waiting.state is InstanceState.RUNNING
    await bench.provider.terminate("local-1", grace_seconds=30)
    exited = await exit_of(bench.provider)
    assert (exited.reason, exited.is_clean) == ("was ended before it started", True)


async def test_a_launch_that_waits_too_long_is_given_up_with_what_it_waits_for(make: MakeBench) -> None:
    bench = await make(options=LATER, pending_patience_seconds=1)
    await bench.provider.launch(launch_of("local-1"))
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("was given up: for 1 s it was not started (BeginTime)")
    assert not exited.is_clean


async def test_while_a_launch_waits_for_a_limit_more_are_refused_as_over_quota(make: MakeBench) -> None:
    bench = await make(partition="short", time_limit="10")
    await bench.provider.launch(launch_of("local-1"))
    with pytest.raises(QuotaExceeded, match=r"waits for a limit already: PartitionTimeLimit"):
        async with asyncio.timeout(WAIT_SECONDS):
            for number in range(2, 100):
                await bench.provider.launch(launch_of(f"local-{number}"))


async def test_what_slurm_refuses_is_said_in_its_words_and_is_not_listed(make: MakeBench) -> None:
    bench = await make(partition="absent")
    with pytest.raises(SlurmRefusal, match="invalid partition specified: absent"):
        await bench.provider.launch(launch_of("local-1"))
    assert await bench.provider.list_instances() == []


async def test_launches_that_come_at_once_share_an_array_and_are_told_apart(make: MakeBench) -> None:
    bench = await make("import os, sys; sys.exit(int(os.environ['DTF_WORKER_LAUNCH_ID'].split('-')[1]))")
    ids = [f"local-{number}" for number in range(1, 7)]
    async with asyncio.TaskGroup() as tasks:
        for launch_id in ids:
            tasks.create_task(bench.provider.launch(launch_of(launch_id)))
    exits = {}
    async with asyncio.timeout(WAIT_SECONDS):
        async for exited in bench.provider.exits():
            exits[exited.launch_id] = exited
            if len(exits) == len(ids):
                break
    assert {exited.launch_id: exited.reason for exited in exits.values()} == {
        f"local-{number}": f"exited with code {number}" for number in range(1, 7)
    }
    arrays = {job_of(exited).partition("_")[0] for exited in exits.values()}
    assert len(arrays) < len(ids), "the first goes at once; those that come meanwhile go together"


async def test_tasks_of_an_array_are_ended_one_by_one(make: MakeBench) -> None:
    bench = await make()
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 5):
            tasks.create_task(bench.provider.launch(launch_of(f"local-{number}")))
    for number in range(1, 5):
        await bench.until_up(f"local-{number}")
    await bench.provider.terminate("local-3", grace_seconds=30)
    exited = await exit_of(bench.provider)
    assert (exited.launch_id, exited.reason) == ("local-3", "exited with code 0")
    assert "_" in exited.handle
    running = [i.launch_id for i in await bench.provider.list_instances() if i.state is InstanceState.RUNNING]
    assert running == ["local-1", "local-2", "local-4"]


async def test_the_join_token_reaches_its_worker_and_is_shown_by_nothing(make: MakeBench) -> None:
    bench = await make()

    def environment(request: LaunchRequest) -> Mapping[str, str]:
        return {"DTF_JOIN_TOKEN": f"dtfjoin1_secret-of-{request.launch_id}"}

    provider = bench.new_provider(environment=environment)
    async with asyncio.TaskGroup() as tasks:
        for number in range(1, 4):
            tasks.create_task(provider.launch(launch_of(f"local-{number}")))
    for instance in await provider.list_instances():
        process = await bench.process_of(instance)
        told = {name: value for name, value in process.environ().items() if "secret" in value}
        assert told == {"DTF_JOIN_TOKEN": f"dtfjoin1_secret-of-{instance.launch_id}"}
        shown = await bench.run("scontrol", "show", "job", "--details", job_of(instance))
        array = job_of(instance).partition("_")[0]
        shown += await bench.run("scontrol", "write", "batch_script", array, "-")
        assert "local-" in shown
        assert "secret" not in shown + " ".join(process.cmdline())


async def test_a_second_job_of_a_launch_is_cancelled(make: MakeBench) -> None:
    bench = await make()
    first = await bench.provider.launch(launch_of("local-1"))
    comment = comment_of(bench.owner, first.launched_at_ns, ["local-1"])
    options = (f"--comment={comment}", "--mem=100M", "--output=/dev/null", "--begin=now+1hour")
    second = await bench.run("sbatch", "--parsable", *options, script="#!/bin/sh\nexec sleep 600\n")
    assert await bench.provider.list_instances() == [first]
    assert await bench.run("squeue", "--noheader", "--jobs", second.strip()) == ""


async def test_jobs_of_others_are_neither_listed_nor_touched(make: MakeBench) -> None:
    bench, other = await make(), await make()
    theirs = await other.provider.launch(launch_of("local-1"))
    assert await bench.provider.list_instances() == []
    ours = await bench.provider.launch(launch_of("local-1"))
    assert ours.handle != theirs.handle
    await bench.provider.terminate("local-1", grace_seconds=30)
    await exit_of(bench.provider)
    assert [i.state for i in await other.provider.list_instances()] == [InstanceState.RUNNING]


async def test_while_slurmctld_is_away_it_is_said_and_what_ended_meanwhile_is_told_afterwards(
    make: MakeBench, slurm: SlurmCluster, caplog: pytest.LogCaptureFixture
) -> None:
    bench = await make()
    await bench.provider.launch(launch_of("local-1"))
    running = await bench.provider.launch(launch_of("local-2"))
    process = await bench.process_of(running)
    hasty = bench.new_provider(patience_seconds=0)
    await hasty.start()
    await asyncio.to_thread(slurm.stop_controller)
    try:
        with pytest.raises(SlurmAway, match="slurmctld does not answer"):
            await hasty.list_instances()
        with pytest.raises(SlurmAway):
            await hasty.launch(launch_of("local-3"))
        with caplog.at_level(logging.WARNING, "dtf.slurm"):
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(exit_of(hasty))
                while "workers cannot be watched" not in caplog.text:
                    await asyncio.to_thread(process.is_running)
                process.kill()
                await asyncio.to_thread(slurm.start_controller)
                exited = await watch
    finally:
        if "slurmctld" not in slurm.running:
            await asyncio.to_thread(slurm.start_controller)
    assert (exited.launch_id, exited.reason) == ("local-2", "was killed by signal 9")
    assert [i.launch_id for i in await hasty.list_instances()] == ["local-1", "local-2"]


async def test_a_job_that_slurmctld_forgot_is_told_as_lost(make: MakeBench, slurm: SlurmCluster) -> None:
    bench = await make(options=LATER)
    await bench.provider.launch(launch_of("local-1"))
    await asyncio.to_thread(slurm.stop_controller)
    await asyncio.to_thread(slurm.start_controller, "-c")
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("is no longer known to slurmctld")
    await bench.provider.forget("local-1")
    again = await bench.provider.launch(launch_of("local-2"))
    assert [i.launch_id for i in await bench.provider.list_instances()] == ["local-2"], again
