"""A client whose coordinator is told to stop in the midst of its streams, and is there again."""

import asyncio
import threading
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.run import RunHandle
from tests.integration.worker_rig import PATIENCE_SECONDS, running

TEMPLATE = common_pb2.TaskTemplate(command=common_pb2.CommandSpec(argv=["true"]))

pytestmark = pytest.mark.coordinator


async def _seen_to_the_end(run: RunHandle, seen_first: asyncio.Event) -> list[str]:
    """Every event that the run has, as it comes."""
    kinds: list[str] = []
    async for watched in run.watch():
        assert watched.event is not None
        kinds.append(watched.event.WhichOneof("event") or "")
        seen_first.set()
    return kinds


async def test_streams_that_a_stopping_coordinator_ends_go_on_with_the_next_one(tmp_path: Path) -> None:
    request = run_service_pb2.CreateRunRequest(suite="restarts", templates=[TEMPLATE])
    async with running(tmp_path) as rig, rig.client() as client, asyncio.TaskGroup() as group:
        run = await client.create_run(request)
        assert await run.submit(common_pb2.TaskSpec(name="one")) == 0
        seen_first = asyncio.Event()
        watching = group.create_task(_seen_to_the_end(run, seen_first))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await seen_first.wait()
            for index in (1, 2):
                await rig.stop_coordinator()
                await rig.start_coordinator()
                assert await run.submit(common_pb2.TaskSpec(name="another")) == index
            await run.cancel()
            kinds = await watching
    assert kinds.count("tasks_submitted") == 3 and kinds[-1] == "run_finished"


async def test_calls_that_meet_a_coordinator_while_it_closes_are_made_again(tmp_path: Path) -> None:
    stopped = asyncio.Event()
    async with running(tmp_path) as rig, rig.client() as client:

        async def create_until_stopped() -> list[str]:
            made: list[str] = []
            while not stopped.is_set():
                request = run_service_pb2.CreateRunRequest(suite="restarts", templates=[TEMPLATE])
                made.append((await client.create_run(request)).run_id)
            return made

        async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            creating = [group.create_task(create_until_stopped()) for _ in range(20)]
            for _ in range(5):
                await asyncio.to_thread(threading.Event().wait, 0.1)  # calls are under way
                await rig.stop_coordinator()
                await rig.start_coordinator()
            stopped.set()
        made = [run_id for task in creating for run_id in task.result()]
        logged = [event.run_created.run_id for event in rig.events("run_created")]
    assert len(made) >= len(creating)
    assert sorted(made) == sorted(logged), "a call was lost, or made two runs"
