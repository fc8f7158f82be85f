"""Runs and the fleet, as clients see them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import (
    common_pb2,
    fleet_service_pb2,
    run_service_pb2,
    worker_service_pb2,
)
from dtf.client.client import Client
from dtf.client.submission import SubmissionFailed
from dtf.coordinator.process import Coordinator
from dtf.coordinator.run_service import MAX_UNANSWERED
from dtf.rpc.errors import parse
from tests.coordinators import create_request, tasks
from tests.integration.coordinator.rig import Crew, start_run
from tests.scripted_worker import WAIT_SECONDS, results

pytestmark = pytest.mark.coordinator


async def test_a_run_goes_from_submission_to_its_end(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 3)
    leases = await worker.hear_leases(3)
    assert [lease.name for lease in leases] == ["task-0", "task-1", "task-2"]
    assert worker.contexts == [run.run_id]
    await worker.say(
        results=[results(leases[:2]), results(leases[2:], common_pb2.VERDICT_FAILED)], credits=64
    )
    ended = await run.result()
    assert (ended.state, ended.counts.passed, ended.counts.failed) == (common_pb2.RUN_STATE_FINISHED, 2, 1)
    await worker.hear_acknowledged(1)
    while run.run_id not in worker.ended_runs:
        await worker.hear()


async def test_the_same_request_id_creates_one_run(client: Client) -> None:
    first = await client.create_run(create_request("once"))
    second = await client.create_run(create_request("once"))
    assert first.run_id == second.run_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create_run(create_request("once", revision="other"))
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(await client.list_runs()) == 1


async def test_a_batch_sent_again_is_answered_and_not_repeated(client: Client) -> None:
    run = await client.create_run(create_request())
    first = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=1, tasks=tasks(2))
    second = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=2, tasks=tasks(3), seal=True)

    async def messages() -> AsyncIterator[run_service_pb2.SubmitTasksRequest]:
        for message in (first, second, first, second):
            yield message

    answers = [answer async for answer in client.runs.SubmitTasks(messages(), metadata=client.metadata)]
    assert [(a.batch, a.first_task, a.task_count) for a in answers] == [
        (1, 0, 2), (2, 2, 3), (1, 0, 2), (2, 2, 3),
    ]  # fmt: skip
    assert answers[0].log_sequence == answers[2].log_sequence
    assert (await run.refresh()).task_count == 5


async def test_a_submitter_that_is_too_fast_is_paced(
    client: Client, log: MemoryLog, coordinator: Coordinator, channel: grpc.aio.Channel
) -> None:
    run = await client.create_run(create_request())
    health_stub: Any = health_pb2_grpc.HealthStub
    health, probe = health_stub(channel), health_pb2.HealthCheckRequest()
    log.hold_acknowledgements()
    call = client.runs.SubmitTasks(metadata=client.metadata)
    for batch in range(1, 301):
        request = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=batch, tasks=tasks(1))
        await call.write(request)
    queued = coordinator.desk.writer._queue
    async with asyncio.timeout(WAIT_SECONDS):
        while len(queued) < MAX_UNANSWERED:
            await health.Check(probe)
    for _ in range(20):
        await health.Check(probe)
        assert len(queued) <= MAX_UNANSWERED + 2, "the rest is not even read"
    log.release_acknowledgements()
    answers: list[Any] = [await call.read() for _ in range(300)]
    assert [answer.batch for answer in answers] == list(range(1, 301))
    await call.done_writing()


async def test_runs_and_tasks_are_listed_page_by_page(client: Client) -> None:
    for number in range(5):
        await client.create_run(create_request(f"r{number}", priority=number))
    request = run_service_pb2.ListRunsRequest(page_size=2)
    priorities: list[int] = []
    while True:
        page = await client.runs.ListRuns(request, metadata=client.metadata)
        assert len(page.runs) <= 2
        priorities += [run.priority for run in page.runs]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert priorities == [4, 3, 2, 1, 0]
    run = await client.create_run(create_request("tasks"))
    await run.submit_many(tasks(7))
    asked = run_service_pb2.ListTasksRequest(run_id=run.run_id, page_size=3)
    first = await client.runs.ListTasks(asked, metadata=client.metadata)
    asked.page_token = first.next_page_token
    second = await client.runs.ListTasks(asked, metadata=client.metadata)
    assert [task.task for task in [*first.tasks, *second.tasks]] == [0, 1, 2, 3, 4, 5]
    asked.state = common_pb2.TASK_STATE_FINISHED
    with pytest.raises(grpc.aio.AioRpcError, match="page_token"):
        await client.runs.ListTasks(asked, metadata=client.metadata)


async def test_cancelling_stops_what_runs_and_ends_the_run(client: Client, workers: Crew) -> None:
    worker = await workers.hire(credits=2)
    run = await start_run(client, 5)
    leases = await worker.hear_leases(2)
    await run.cancel("enough")
    while len(worker.cancelled) < 2:
        await worker.hear()
    assert sorted(worker.cancelled) == [lease.fence for lease in leases]
    await worker.say(
        ends=[
            worker_service_pb2.AttemptEnd(fence=fence, outcome=common_pb2.OUTCOME_CANCELLED)
            for fence in worker.cancelled
        ],
        credits=2,
    )
    ended = await run.result()
    assert ended.state == common_pb2.RUN_STATE_CANCELLED
    assert ended.counts == common_pb2.VerdictCounts()


async def test_the_fleet_at_a_glance(client: Client, workers: Crew, log: MemoryLog) -> None:
    await workers.hire(credits=1)
    await client.create_run(create_request())
    glance = await client.get_fleet()
    assert glance.namespace == "test"
    assert (glance.epoch, glance.active_run_count, dict(glance.workers)) == (1, 1, {"active": 1})
    assert glance.log_sequence == len(log.commits)
    assert glance.log_hash == log.commits[-1].message_id
    assert glance.refusing_reason == ""


async def test_workers_are_listed_page_by_page_with_the_present_first(client: Client, workers: Crew) -> None:
    crew = [await workers.hire(worker_id=f"w{number}", attach=False) for number in range(4)]
    close = worker_service_pb2.CloseSessionRequest(session=crew[0].handle())
    await crew[0].stub.CloseSession(close, metadata=client.metadata)
    request = fleet_service_pb2.ListWorkersRequest(page_size=3, include_gone=True)
    first = await client.fleet.ListWorkers(request, metadata=client.metadata)
    request.page_token = first.next_page_token
    second = await client.fleet.ListWorkers(request, metadata=client.metadata)
    assert [w.worker_id for w in first.workers] == ["w1", "w2", "w3"]
    assert [w.worker_id for w in second.workers] == ["w0"]
    assert second.next_page_token == ""


async def test_a_full_log_is_told_by_the_glance_and_by_every_refused_submission(
    client: Client, log: MemoryLog
) -> None:
    run = await client.create_run(create_request())
    log.set_max_bytes(1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.create_run(create_request("b"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert parse(refused.value).reason == "LOG_FULL"
    assert "room" in (await client.get_fleet()).refusing_reason
    log.set_max_bytes(2**30)
    async with asyncio.timeout(WAIT_SECONDS):
        while (await client.get_fleet()).refusing_reason:
            pass
    await run.submit_many(tasks(1))
    again = await client.create_run(create_request("b"))
    assert {found.run_id for found in await client.list_runs()} == {run.run_id, again.run_id}


async def test_a_run_whose_tasks_are_refused_does_not_stay_active(client: Client) -> None:
    with pytest.raises(SubmissionFailed, match=r"^the tasks cannot be submitted: tasks\[1\]") as refused:
        await client.start_run("suite", commands=[["true"], ["true", "x" * 5000]])
    assert "\n" not in str(refused.value)
    (run,) = await client.list_runs()
    assert run.state == common_pb2.RUN_STATE_CANCELLED
