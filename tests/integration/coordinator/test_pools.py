"""ResourceService: wishes of pools, over gRPC."""

import asyncio

import grpc
import pytest

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.api.v1 import resource_service_pb2, scaling_pb2
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from dtf.ports.subjects import scaling_subject
from tests.integration.coordinator.rig import Crew, refusal
from tests.scripted_worker import WAIT_SECONDS

pytestmark = pytest.mark.coordinator

ScalePoolRequest = resource_service_pb2.ScalePoolRequest


async def scale(client: Client, request: ScalePoolRequest) -> resource_service_pb2.Pool:
    answer = await client.pools.ScalePool(request, metadata=client.metadata)
    return answer.pool


async def pools(client: Client) -> dict[str, resource_service_pb2.Pool]:
    request = resource_service_pb2.ListPoolsRequest()
    answer = await client.pools.ListPools(request, metadata=client.metadata)
    return {pool.name: pool for pool in answer.pools}


async def test_a_pool_is_scaled_paused_and_left_to_its_settings_again(client: Client) -> None:
    wish = (await scale(client, ScalePoolRequest(pool="p", max_workers=8, requested_by="anna"))).wish
    assert (wish.max_workers, wish.HasField("min_workers"), wish.requested_by) == (8, False, "anna")
    wish = (await scale(client, ScalePoolRequest(pool="p", min_workers=2, keep_others=True))).wish
    assert (wish.min_workers, wish.max_workers) == (2, 8)
    wish = (await scale(client, ScalePoolRequest(pool="p", workers=0, keep_others=True))).wish
    assert wish.HasField("workers")
    assert not wish.HasField("max_workers"), "a size takes the place of bounds"
    paused = resource_service_pb2.PausePoolRequest(pool="p", reason="kernel")
    answer = await client.pools.PausePool(paused, metadata=client.metadata)
    assert (answer.pool.wish.is_paused, answer.pool.wish.reason) == (True, "kernel")
    assert (await pools(client))["p"].wish.is_paused
    resumed = resource_service_pb2.ResumePoolRequest(pool="p")
    await client.pools.ResumePool(resumed, metadata=client.metadata)
    assert not (await scale(client, ScalePoolRequest(pool="p"))).HasField("wish")
    assert await pools(client) == {}


async def test_a_dry_run_says_what_would_be_and_leaves_the_log_alone(
    client: Client, coordinator: Coordinator
) -> None:
    before = coordinator.desk.writer.durable_sequence
    rehearsed = await scale(client, ScalePoolRequest(pool="p", workers=3, dry_run=True))
    assert rehearsed.wish.workers == 3
    paused = resource_service_pb2.PausePoolRequest(pool="p", dry_run=True)
    answer = await client.pools.PausePool(paused, metadata=client.metadata)
    assert answer.pool.wish.is_paused
    assert await pools(client) == {}
    assert coordinator.desk.writer.durable_sequence == before
    refused = ScalePoolRequest(pool="p", workers=3, min_workers=1, dry_run=True)
    failure = await refusal(client.pools.ScalePool(refused, metadata=client.metadata))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_pool_that_nothing_is_known_of_is_refused_where_it_must_be_known(
    client: Client, coordinator: Coordinator, workers: Crew
) -> None:
    before = coordinator.desk.writer.durable_sequence
    calls = (
        client.pools.ScalePool(
            ScalePoolRequest(pool="locla", workers=1, must_be_known=True), metadata=client.metadata
        ),
        client.pools.PausePool(
            resource_service_pb2.PausePoolRequest(pool="locla", must_be_known=True), metadata=client.metadata
        ),
        client.pools.ResumePool(
            resource_service_pb2.ResumePoolRequest(pool="locla", must_be_known=True), metadata=client.metadata
        ),
    )
    for call in calls:
        failure = await refusal(call)
        assert failure.code is grpc.StatusCode.NOT_FOUND
        assert "'locla'; no resource manager looks after any" in failure.message
    assert coordinator.desk.writer.durable_sequence == before
    await scale(client, ScalePoolRequest(pool="wished", min_workers=1))
    await scale(client, ScalePoolRequest(pool="wished", min_workers=2, must_be_known=True))
    await workers.hire()
    (hired,) = [worker for worker in coordinator.desk.state.workers.values() if worker.is_present]
    refused = ScalePoolRequest(pool="locla", workers=1, must_be_known=True)
    failure = await refusal(client.pools.ScalePool(refused, metadata=client.metadata))
    assert f"known are: {', '.join(sorted(['wished', hired.pool]))}" in failure.message


async def test_pools_are_those_with_workers_wishes_or_decisions(
    client: Client, workers: Crew, scaling: MemoryRecords, coordinator: Coordinator
) -> None:
    await workers.hire()
    await scale(client, ScalePoolRequest(pool="wished", min_workers=1))
    decision = scaling_pb2.ScalingDecision(
        decision_id="decided/1", pool="decided", desired=4, reason="because"
    )
    await scaling.publish(scaling_subject("default", "decided"), decision.SerializeToString(), "decided/1")
    bell, relay = coordinator.desk.bell, coordinator.desk.scaling
    async with asyncio.timeout(WAIT_SECONDS):
        while "decided" not in relay.latest:
            await bell.wait(bell.next())
    listed = await pools(client)
    assert list(listed) == sorted(listed)
    assert {"wished", "decided"} < set(listed)
    assert listed["decided"].last_decision.reason == "because"
    assert sum(pool.active_count for pool in listed.values()) == 1


async def test_a_wish_survives_the_coordinator(client: Client, log: MemoryLog) -> None:
    """The fixture folds the log anew and compares the hash of the state; here what the log says."""
    await scale(client, ScalePoolRequest(pool="p", workers=5, reason="x" * 5000))
    wish = (await pools(client))["p"].wish
    assert wish.workers == 5
    assert 0 < len(wish.reason) <= 5000
