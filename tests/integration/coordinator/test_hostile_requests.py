"""Requests that name what is not there or make no sense: one clear error, and the state stays sound."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from dtf.api.v1 import (
    common_pb2,
    fleet_service_pb2,
    run_service_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from dtf.rpc.channel import Peer
from dtf.rpc.errors import RpcFailure
from tests.coordinators import create_request, tasks
from tests.integration.coordinator.rig import end_of, refusal
from tests.scripted_worker import ScriptedWorker, results, scripted_worker

pytestmark = pytest.mark.coordinator


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("GetRun", run_service_pb2.GetRunRequest(run_id="nope")),
        ("ListTasks", run_service_pb2.ListTasksRequest(run_id="nope")),
        ("CancelRun", run_service_pb2.CancelRunRequest(run_id="nope")),
        ("WatchRun", run_service_pb2.WatchRunRequest(run_id="nope")),
        ("TailLogs", run_service_pb2.TailLogsRequest(run_id="nope")),
        ("TailLogs", run_service_pb2.TailLogsRequest(run_id="../../etc/passwd")),
    ],
)
async def test_an_unknown_run(client: Client, method: str, request_message: Message) -> None:
    call = getattr(client.runs, method)(request_message, metadata=client.metadata)
    if method in {"WatchRun", "TailLogs"}:
        failure = await refusal(call.read())
    else:
        failure = await refusal(call)
    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert str(getattr(request_message, "run_id", "")) in failure.message


@pytest.mark.parametrize("method", ["DrainWorker", "QuarantineWorker", "ReleaseWorker", "ReportWorkerLost"])
async def test_an_unknown_worker(client: Client, method: str) -> None:
    request = getattr(fleet_service_pb2, f"{method}Request")(worker_id="nobody")
    failure = await refusal(getattr(client.fleet, method)(request, metadata=client.metadata))
    assert failure.code is grpc.StatusCode.NOT_FOUND
    assert "nobody" in failure.message


async def submit(client: Client, *requests: run_service_pb2.SubmitTasksRequest) -> list[Any]:
    async def messages() -> AsyncIterator[run_service_pb2.SubmitTasksRequest]:
        for request in requests:
            yield request

    return [answer async for answer in client.runs.SubmitTasks(messages(), metadata=client.metadata)]


def batch(run_id: str, number: int, specs: Sequence[common_pb2.TaskSpec]) -> Any:
    return run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=number, tasks=specs)


@pytest.mark.parametrize(
    ("number", "specs", "code"),
    [
        (2, tasks(1), grpc.StatusCode.ALREADY_EXISTS),
        (0, tasks(1), grpc.StatusCode.INVALID_ARGUMENT),
        (1, [common_pb2.TaskSpec(name="t", template=7)], grpc.StatusCode.INVALID_ARGUMENT),
        (1, [common_pb2.TaskSpec(name="t", payload="x" * 20_000)], grpc.StatusCode.INVALID_ARGUMENT),
        (1, [common_pb2.TaskSpec(name="")], grpc.StatusCode.INVALID_ARGUMENT),
        (1, tasks(5000), grpc.StatusCode.INVALID_ARGUMENT),
        (1, tasks(2000, "n" * 1000), grpc.StatusCode.INVALID_ARGUMENT),
        (1, [common_pb2.TaskSpec(name="t", expected_seconds=math.nan)], grpc.StatusCode.INVALID_ARGUMENT),
        (1, [common_pb2.TaskSpec(name="t", cases=["a"], positions=[1, 2])], grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=[
        "a batch before its turn", "no number", "a template that is not there", "a payload too large",
        "no name", "too many tasks", "too many bytes", "no time", "columns that do not match",
    ],
)  # fmt: skip
async def test_a_batch_that_cannot_be_taken(
    client: Client, number: int, specs: Sequence[common_pb2.TaskSpec], code: grpc.StatusCode
) -> None:
    run = await client.create_run(create_request())
    failure = await refusal(submit(client, batch(run.run_id, number, specs)))
    assert failure.code is code, failure
    assert (await run.refresh()).task_count == 0
    await submit(client, batch(run.run_id, 1, tasks(1)))
    assert (await run.refresh()).task_count == 1


async def test_a_sealed_run_takes_no_more(client: Client) -> None:
    run = await client.create_run(create_request())
    await submit(client, batch(run.run_id, 1, tasks(1)))
    await run.seal()
    failure = await refusal(submit(client, batch(run.run_id, 2, tasks(1))))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_run_no_worker_can_ever_run_is_refused_with_every_fault(client: Client) -> None:
    request = create_request()
    request.suite = ""
    request.templates[0].requirements.resources.cpus = -1
    failure = await refusal(client.runs.CreateRun(request, metadata=client.metadata))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {item.field for item in failure.violations} == {
        "suite",
        "templates[0].requirements.resources.cpus",
    }


async def test_a_page_that_is_too_large_or_a_token_from_elsewhere(client: Client) -> None:
    too_large = run_service_pb2.ListRunsRequest(page_size=1001)
    failure = await refusal(client.runs.ListRuns(too_large, metadata=client.metadata))
    assert [item.field for item in failure.violations] == ["page_size"]
    foreign = fleet_service_pb2.ListWorkersRequest(page_token="AAAAAAAA")
    failure = await refusal(client.fleet.ListWorkers(foreign, metadata=client.metadata))
    assert [item.field for item in failure.violations] == ["page_token"]


async def test_a_watch_from_the_future_or_of_events_that_do_not_exist(client: Client) -> None:
    run = await client.create_run(create_request())
    future = run_service_pb2.WatchRunRequest(run_id=run.run_id, after_sequence=10_000)
    failure = await refusal(client.runs.WatchRun(future, metadata=client.metadata).read())
    assert [item.field for item in failure.violations] == ["after_sequence"]
    unknown = run_service_pb2.WatchRunRequest(run_id=run.run_id, event_types=["task_exploded"])
    failure = await refusal(client.runs.WatchRun(unknown, metadata=client.metadata).read())
    assert [item.field for item in failure.violations] == ["event_types"]


async def attach_with(peer: Peer, message: worker_service_pb2.AttachRequest) -> RpcFailure:
    async with grpc.aio.insecure_channel(peer.target) as channel:
        call = worker_service_pb2_grpc.WorkerServiceStub(channel).Attach(metadata=peer.metadata)
        await call.write(message)
        return await refusal(call.read())


async def test_a_stream_that_does_not_say_whose_it_is(peer: Peer) -> None:
    failure = await attach_with(peer, worker_service_pb2.AttachRequest(credits=4))
    assert [item.field for item in failure.violations] == ["session"]


async def test_a_stream_with_a_session_token_of_another(peer: Peer, worker: ScriptedWorker) -> None:
    handle = worker.handle()
    handle.incarnation += 1
    failure = await attach_with(peer, worker_service_pb2.AttachRequest(session=handle))
    assert failure.reason == "UNAUTHENTICATED"


async def test_a_session_nobody_opened(peer: Peer, worker: ScriptedWorker, coordinator: Coordinator) -> None:
    handle = worker_service_pb2.SessionHandle(
        worker_id="ghost", incarnation=1, session_token=coordinator.desk.sessions.token_of("ghost", 1)
    )
    failure = await attach_with(peer, worker_service_pb2.AttachRequest(session=handle))
    assert failure.reason == "UNKNOWN_SESSION"
    close = worker_service_pb2.CloseSessionRequest(session=handle)
    assert (await refusal(worker.stub.CloseSession(close, metadata=peer.metadata))).reason == "NOT_FOUND"


async def test_a_session_is_not_closed_while_it_holds_leases(client: Client, worker: ScriptedWorker) -> None:
    run = await client.create_run(create_request())
    await run.submit_many(tasks(1))
    await worker.hear_leases(1)
    close = worker_service_pb2.CloseSessionRequest(session=worker.handle())
    failure = await refusal(worker.stub.CloseSession(close, metadata=client.metadata))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "1 lease" in failure.message


async def test_results_without_a_sequence(worker: ScriptedWorker) -> None:
    assert worker.call is not None
    await worker.call.write(worker_service_pb2.AttachRequest(released_fences=[1]))
    failure = await end_of(worker)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "sequence" in failure.message


async def test_messages_out_of_order(worker: ScriptedWorker) -> None:
    await worker.say(sequence=5, released_fences=[1])
    await worker.hear_acknowledged(5)
    await worker.say(sequence=7, released_fences=[1])
    failure = await end_of(worker)
    assert "message 7 came after 5; expected 6" in failure.message


async def test_a_message_said_twice_counts_once(client: Client, worker: ScriptedWorker) -> None:
    run = await client.create_run(create_request())
    await run.submit_many(tasks(2))
    await run.seal()
    leases = await worker.hear_leases(2)
    for _ in range(3):
        await worker.say(sequence=1, results=[results(leases)], credits=10)
    ended = await run.result()
    assert ended.counts == common_pb2.VerdictCounts(passed=2)
    kinds = [seen.event.WhichOneof("event") async for seen in run.watch() if seen.event is not None]
    assert kinds.count("results_accepted") == 1


def _columns(**columns: Any) -> Callable[[str, int], worker_service_pb2.CaseResults]:
    def make(run_id: str, fence: int) -> worker_service_pb2.CaseResults:
        given = {"fences": [fence], "durations_seconds": [0.1], **columns}
        return worker_service_pb2.CaseResults(run_id=run_id, **given)

    return make


@pytest.mark.parametrize(
    "make",
    [
        _columns(durations_seconds=[]),
        _columns(verdicts=[1, 1]),
        _columns(cases=[9]),
        _columns(durations_seconds=[math.nan]),
        _columns(durations_seconds=[-1.0]),
        _columns(verdicts=[77]),
        _columns(verdicts=[common_pb2.VERDICT_FLAKY]),
        _columns(details=[b"x" * 300_000]),
        _columns(details=[b"", b""]),
    ],
    ids=[
        "durations missing", "too many verdicts", "a case that is not there", "no number", "negative time",
        "no verdict", "a verdict only the coordinator gives", "a detail too large", "too many details",
    ],
)  # fmt: skip
async def test_results_that_make_no_sense_are_refused_and_change_nothing(
    client: Client, worker: ScriptedWorker, make: Callable[[str, int], worker_service_pb2.CaseResults]
) -> None:
    run = await client.create_run(create_request())
    await run.submit_many(tasks(1))
    await run.seal()
    [lease] = await worker.hear_leases(1)
    await worker.say(results=[make(run.run_id, lease.fence)])
    failure = await end_of(worker)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT, failure
    await worker.attach(held=[lease.fence])
    await worker.say(sequence=1, results=[results([lease])])
    assert (await run.result()).counts == common_pb2.VerdictCounts(passed=1)


async def test_credits_beyond_all_bounds_are_cut_to_what_a_worker_may_hold(
    client: Client, peer: Peer, coordinator: Coordinator
) -> None:
    async with scripted_worker(peer) as greedy:
        await greedy.attach(credits=2**32 - 1)
        run = await client.create_run(create_request())
        for _ in range(3):
            await run.submit_many(
                [common_pb2.TaskSpec(name=f"t{number}", expected_seconds=1e-6) for number in range(1000)]
            )
        await greedy.hear_leases(500)
        assert (await run.refresh()).leased_count <= coordinator.desk.settings.max_credits
