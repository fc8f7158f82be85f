"""Watching runs."""

import asyncio

import pytest

from dtf.adapters.memory_log import MemoryRecords
from dtf.api.v1 import (
    common_pb2,
    run_service_pb2,
    scaling_pb2,
)
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from tests.coordinators import create_request, tasks
from tests.integration.coordinator.rig import Crew, start_run
from tests.scripted_worker import WAIT_SECONDS, results

pytestmark = pytest.mark.coordinator


async def test_a_watch_is_resumed_by_sequence_and_filtered(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 4)
    await worker.hear_leases(4)
    await worker.pass_all()
    await run.result()
    everything = [(seen.sequence, seen.event) async for seen in run.watch()]
    kinds = [event.WhichOneof("event") for _sequence, event in everything if event is not None]
    assert kinds[0] == "run_created"
    assert kinds[-1] == "run_finished"
    assert {"tasks_submitted", "leases_granted", "results_accepted"} <= set(kinds)
    middle = everything[2][0]
    resumed = [(seen.sequence, seen.event) async for seen in run.watch(after_sequence=middle)]
    assert resumed == [(sequence, event) for sequence, event in everything if sequence > middle]
    only = [seen.event async for seen in run.watch(event_types=["results_accepted"])]
    assert [event.WhichOneof("event") for event in only if event is not None] == [
        "results_accepted",
        "run_finished",
    ]


async def test_a_watcher_hears_only_its_run_and_the_whole_fleet_if_it_names_none(
    client: Client, workers: Crew
) -> None:
    run = await client.create_run(create_request("one"))
    await client.create_run(create_request("two"))
    await workers.hire()
    everything = client.runs.WatchRun(
        run_service_pb2.WatchRunRequest(), metadata=client.metadata, timeout=WAIT_SECONDS
    )
    kinds: list[str | None] = []
    async for response in everything:
        kinds += [event.WhichOneof("event") for commit in response.commits for event in commit.events]
        if "worker_registered" in kinds:
            break
    assert kinds.count("run_created") == 2
    await run.cancel()
    mine = [seen.event async for seen in run.watch()]
    assert {event.run_created.run_id for event in mine if event is not None} <= {run.run_id, ""}


async def test_details_can_be_left_out(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    leases = await worker.hear_leases(1)
    reported = results(leases, common_pb2.VERDICT_FAILED)
    reported.details.append(b"\x1a\x05wrong")
    await worker.say(results=[reported], credits=64)
    await run.result()
    bare = [seen.event async for seen in run.watch(omit_details=True, event_types=["results_accepted"])]
    whole = [seen.event async for seen in run.watch(event_types=["results_accepted"])]
    assert bare[0] is not None
    assert whole[0] is not None
    assert list(bare[0].results_accepted.details) == []
    assert list(whole[0].results_accepted.details) == [b"\x1a\x05wrong"]
    assert bare[0].results_accepted.fences == whole[0].results_accepted.fences


async def test_scaling_decisions_are_relayed(client: Client, scaling: MemoryRecords) -> None:
    run = await client.create_run(create_request())
    decision = scaling_pb2.ScalingDecision(
        decision_id="local-1", pool="local", desired=2, now_unix_nanos=2**62, reason="backlog"
    )
    seen = run.watch(include_scaling=True)
    await anext(seen)
    await scaling.publish("dtf.test.scaling.local", decision.SerializeToString())
    async with asyncio.timeout(WAIT_SECONDS):
        async for watched in seen:
            if watched.scaling is not None:
                break
    assert watched.scaling == decision


async def test_a_watcher_that_fell_behind_reads_the_log(client: Client, coordinator: Coordinator) -> None:
    run = await client.create_run(create_request())
    coordinator.desk.feed._max_commits = 2
    for _ in range(10):
        await run.submit_many(tasks(1))
    await run.cancel()
    sequences = [seen.sequence async for seen in run.watch()]
    assert len(set(sequences)) == 12
    assert sequences == sorted(sequences)
