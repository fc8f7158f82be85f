"""The coordinator's services over real gRPC, on a log in memory, with workers that do as told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.api.v1 import (
    common_pb2,
    fleet_service_pb2,
    run_service_pb2,
    scaling_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.coordinator.process import Coordinator
from dtf.coordinator.run_service import MAX_UNANSWERED
from dtf.core.run.invariants import check
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import parse
from tests.coordinators import create_request, peer_of, running_coordinator, tasks, verified
from tests.fakes import FakeClock
from tests.scripted_worker import WAIT_SECONDS, ScriptedWorker, results, scripted_worker

pytestmark = pytest.mark.coordinator
FAILED = common_pb2.VERDICT_FAILED


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def telemetry() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def scaling() -> MemoryRecords:
    return MemoryRecords()


@pytest_asyncio.fixture
async def coordinator(
    log: MemoryLog, telemetry: MemoryRecords, scaling: MemoryRecords, tmp_path: Path
) -> AsyncIterator[Coordinator]:
    async with running_coordinator(log, tmp_path, telemetry=telemetry, scaling=scaling) as running:
        yield running
        assert check(running.desk.state) == []
    verified(log)


@pytest.fixture
def peer(coordinator: Coordinator) -> Peer:
    return peer_of(coordinator)


@pytest_asyncio.fixture
async def client(peer: Peer) -> AsyncIterator[Client]:
    async with Client(peer) as connected:
        yield connected


@pytest_asyncio.fixture
async def workers(peer: Peer) -> AsyncIterator["Crew"]:
    async with AsyncExitStack() as stack:
        yield Crew(peer, stack)


class Crew:
    """Scripted workers that leave with the test."""

    def __init__(self, peer: Peer, stack: AsyncExitStack) -> None:
        self._peer = peer
        self._stack = stack

    async def hire(self, *, credits: int = 64, attach: bool = True, **fields: object) -> ScriptedWorker:
        worker = await self._stack.enter_async_context(
            scripted_worker(self._peer, **fields)  # type: ignore[arg-type]  # a test's own fields
        )
        if attach:
            await worker.attach(credits=credits)
        return worker


async def start_run(client: Client, count: int = 3, **fields: object) -> RunHandle:
    run = await client.create_run(create_request("r", **fields))
    await run.submit_many(tasks(count))
    await run.seal()
    return run


async def failure_of(worker: ScriptedWorker) -> str:
    """The reason a stream ends with."""
    try:
        while True:
            await worker.hear()
    except grpc.aio.AioRpcError as error:
        return parse(error).reason


# -- runs


async def test_a_run_goes_from_submission_to_its_end(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 3)
    leases = await worker.hear_leases(3)
    assert [lease.name for lease in leases] == ["task-0", "task-1", "task-2"]
    assert worker.contexts == [run.run_id]
    await worker.say(results=[results(leases[:2]), results(leases[2:], FAILED)], credits=64)
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
    client: Client, log: MemoryLog, coordinator: Coordinator
) -> None:
    run = await client.create_run(create_request())
    log.hold_acknowledgements()
    call = client.runs.SubmitTasks(metadata=client.metadata)
    for batch in range(1, 301):
        request = run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=batch, tasks=tasks(1))
        await call.write(request)
    queued = coordinator.desk.writer._queue
    async with asyncio.timeout(WAIT_SECONDS):
        while len(queued) < MAX_UNANSWERED:
            await client.get_fleet()
    for _ in range(20):
        await client.get_fleet()
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


# -- watching


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
    reported = results(leases, FAILED)
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


# -- sessions


async def test_a_broken_stream_is_resumed_without_running_anything_twice(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire()
    run = await start_run(client, 4)
    leases = await worker.hear_leases(4)
    await worker.detach()
    lost_on_the_way = worker.held.pop(leases[3].fence)
    await worker.attach()
    again = await worker.hear_leases(4)
    assert [lease.fence for lease in again] == [lease.fence for lease in leases]
    assert worker.held[lost_on_the_way.fence].attempt == 1
    assert worker.cancelled == []
    await worker.pass_all()
    assert (await run.result()).counts.passed == 4
    assert {task.attempts async for task in client.list_tasks(run.run_id)} == {1}


async def test_a_lease_the_worker_should_not_have_is_cancelled_when_it_attaches(workers: Crew) -> None:
    worker = await workers.hire(attach=False)
    await worker.attach(held=[4711])
    while not worker.cancelled:
        await worker.hear()
    assert worker.cancelled == [4711]


async def test_a_report_sent_again_on_a_new_stream_counts_once(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 2)
    leases = await worker.hear_leases(2)
    await worker.say(results=[results(leases)], credits=64)
    await worker.hear_acknowledged(1)
    await worker.detach()
    await worker.attach(held=[])
    await worker.say(sequence=1, results=[results(leases)], credits=64)
    assert (await run.result()).counts.passed == 2
    assert worker.acknowledged == 1
    task_list = [task async for task in client.list_tasks(run.run_id)]
    assert [task.attempts for task in task_list] == [1, 1]


async def test_a_second_stream_takes_the_first_ones_place(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    first = worker.call
    await worker.attach()
    second, worker.call = worker.call, first
    assert await failure_of(worker) == "SESSION_REPLACED"
    worker.call = second
    run = await start_run(client, 1)
    await worker.hear_leases(1)
    await worker.pass_all()
    assert (await run.result()).counts.passed == 1


async def test_an_old_incarnation_is_told_to_open_a_new_session(workers: Crew) -> None:
    old = await workers.hire(worker_id="w")
    new = await workers.hire(worker_id="w")
    assert new.session.incarnation > old.session.incarnation
    assert await failure_of(old) == "STALE_SESSION"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await old.attach()
    assert parse(refused.value).reason == "STALE_SESSION"


async def test_a_new_incarnation_gets_what_the_old_one_held(client: Client, workers: Crew) -> None:
    old = await workers.hire(worker_id="w")
    run = await start_run(client, 2)
    await old.hear_leases(2)
    new = await workers.hire(worker_id="w")
    leases = await new.hear_leases(2)
    assert {lease.attempt for lease in leases} == {2}
    await new.pass_all()
    assert (await run.result()).counts.passed == 2


async def test_a_draining_worker_keeps_what_it_has_and_gets_nothing_new(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire(credits=1)
    run = await start_run(client, 2)
    await worker.hear_leases(1)
    request = fleet_service_pb2.DrainWorkerRequest(worker_id=worker.worker_id, requested_by="me")
    answer = await client.fleet.DrainWorker(request, metadata=client.metadata)
    assert answer.worker.state == common_pb2.WORKER_STATE_DRAINING
    while not worker.is_draining:
        await worker.hear()
    await worker.pass_all(credits=0)
    close = worker_service_pb2.CloseSessionRequest(session=worker.handle(), reason="drained")
    await worker.stub.CloseSession(close, metadata=worker.peer.metadata)
    assert (await run.refresh()).queued_count == 1
    gone = await client.list_workers(include_gone=True)
    assert [w.state for w in gone] == [common_pb2.WORKER_STATE_LEFT]
    assert await client.list_workers() == []


async def test_a_worker_asked_to_stop_drains_by_itself(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    await worker.say(state=common_pb2.WORKER_STATE_DRAINING, credits=0)
    while not worker.is_draining:
        await worker.hear()
    assert [w.state for w in await client.list_workers()] == [common_pb2.WORKER_STATE_DRAINING]


async def test_a_quarantined_worker_loses_what_it_holds_until_it_is_released(
    client: Client, workers: Crew
) -> None:
    bad, good = await workers.hire(credits=2), await workers.hire(attach=False)
    run = await start_run(client, 2)
    leases = await bad.hear_leases(2)
    await client.fleet.QuarantineWorker(
        fleet_service_pb2.QuarantineWorkerRequest(worker_id=bad.worker_id, requested_by="me", reason="odd"),
        metadata=client.metadata,
    )
    while len(bad.cancelled) < 2:
        await bad.hear()
    assert sorted(bad.cancelled) == [lease.fence for lease in leases]
    await good.attach()
    await good.hear_leases(2)
    await good.pass_all()
    assert (await run.result()).counts.passed == 2
    await client.fleet.ReleaseWorker(
        fleet_service_pb2.ReleaseWorkerRequest(worker_id=bad.worker_id, requested_by="me"),
        metadata=client.metadata,
    )
    states = {w.worker_id: w.state for w in await client.list_workers()}
    assert states[bad.worker_id] == common_pb2.WORKER_STATE_ACTIVE


async def test_a_stale_result_is_refused_and_its_worker_told_to_drop_it(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    [lease] = await worker.hear_leases(1)
    await worker.say(
        results=[
            worker_service_pb2.CaseResults(
                run_id=run.run_id, fences=[lease.fence + 100], durations_seconds=[0.1]
            )
        ],
        credits=63,
    )
    while not worker.cancelled:
        await worker.hear()
    assert worker.cancelled == [lease.fence + 100]
    await worker.pass_all()
    assert (await run.result()).counts.passed == 1


async def test_idle_workers_get_what_waits_elsewhere(client: Client, workers: Crew) -> None:
    full = await workers.hire()
    run = await start_run(client, 6)
    await full.hear_leases(6)
    idle = await workers.hire()
    while not full.revoked:
        await full.hear()
    assert len(full.revoked) == 3
    for fence in full.revoked:
        del full.held[fence]
    await full.say(released_fences=full.revoked, credits=61)
    taken = await idle.hear_leases(3)
    assert {lease.attempt for lease in taken} == {1}, "a lease given back unstarted is no attempt"
    await full.pass_all()
    await idle.pass_all()
    assert (await run.result()).counts.passed == 6


async def test_a_worker_with_its_last_lease_hears_that_no_successor_comes(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    await worker.hear_leases(1)
    while run.run_id not in worker.exhausted:
        await worker.hear()


async def test_credits_said_before_a_grant_arrived_are_not_granted_twice(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire(credits=4)
    run = await client.create_run(create_request())
    await run.submit_many(tasks(20))
    await worker.hear_leases(4)
    for _ in range(5):
        await worker.say(credits=4)
    await run.submit_many(tasks(1))
    await client.get_run(run.run_id)
    assert (await run.refresh()).leased_count == 4


async def test_telemetry_is_published(workers: Crew, telemetry: MemoryRecords) -> None:
    worker = await workers.hire(pool="blue")
    await worker.say(telemetry=worker_service_pb2.Telemetry(cpu_ratio=0.5), credits=1)
    async with asyncio.timeout(WAIT_SECONDS):
        async for batch in telemetry.follow(0):
            sample = worker_service_pb2.TelemetrySample.FromString(batch[0].payload)
            break
    assert (sample.worker_id, sample.pool, sample.telemetry.cpu_ratio) == (worker.worker_id, "blue", 0.5)


async def test_a_silent_worker_is_lost_and_its_work_goes_to_another(
    log: MemoryLog, tmp_path: Path, clock: FakeClock
) -> None:
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(running_coordinator(log, tmp_path, clock=clock))
        peer = peer_of(coordinator)
        client = await stack.enter_async_context(Client(peer))
        silent = await stack.enter_async_context(scripted_worker(peer))
        await silent.attach()
        run = await start_run(client, 2)
        await silent.hear_leases(2)
        await clock.advance(9)
        assert coordinator.desk.sessions.get(silent.worker_id) is not None
        await clock.advance(2)
        assert await failure_of(silent) == "STALE_SESSION"
        other = await stack.enter_async_context(scripted_worker(peer))
        await other.attach()
        leases = await other.hear_leases(2)
        assert {lease.attempt for lease in leases} == {2}
        await other.pass_all()
        assert (await run.result()).counts.passed == 2


async def test_a_restarted_coordinator_goes_on_with_the_sessions_there_are(
    log: MemoryLog, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        async with running_coordinator(log, tmp_path) as first:
            async with Client(peer_of(first)) as client:
                run_id = (await start_run(client, 3)).run_id
            worker = await stack.enter_async_context(scripted_worker(peer_of(first)))
            await worker.attach()
            leases = await worker.hear_leases(3)
            await worker.say(results=[results(leases[:1])], credits=62)
            await worker.hear_acknowledged(1)
        async with running_coordinator(log, tmp_path) as second:
            peer = peer_of(second)
            resumed = await stack.enter_async_context(resumed_worker(worker, peer))
            await resumed.attach(held=[lease.fence for lease in leases])
            await resumed.say(sequence=2, results=[results(leases[1:])], credits=64)
            async with Client(peer) as client:
                ended = await (await client.attach(run_id)).result()
            assert ended.counts.passed == 3
            assert resumed.held == {}, "nothing was assigned a second time"
            assert second.desk.writer.epoch == 2


@asynccontextmanager
async def resumed_worker(worker: ScriptedWorker, peer: Peer) -> AsyncIterator[ScriptedWorker]:
    """The same session at another coordinator."""
    async with open_channel(peer) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        yield ScriptedWorker(peer, stub, worker.session)


# -- blobs and output


async def test_a_blob_comes_back_as_it_was_sent(client: Client) -> None:
    data = bytes(range(256)) * 3000
    blob = await client.upload_blob(data)
    assert await client.fetch_blob(blob.digest) == data
    assert (await client.upload_blob(b"")).size_bytes == 0


async def test_output_is_tailed_while_it_grows_until_the_run_ends(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    [lease] = await worker.hear_leases(1)
    target = worker_service_pb2.OutputTarget(run_id=run.run_id, task=0, attempt=1, fence=lease.fence)

    async def upload(offset: int, data: bytes) -> None:
        async def pieces() -> AsyncIterator[worker_service_pb2.UploadOutputRequest]:
            yield worker_service_pb2.UploadOutputRequest(output=target, offset_bytes=offset, data=data)

        answer = await worker.stub.UploadOutput(pieces(), metadata=worker.peer.metadata)
        assert answer.stored_bytes == len(data)

    await upload(0, b"one ")
    tail = client.tail_logs(run.run_id, follow=True)
    assert (await anext(tail)).data == b"one "
    await upload(4, b"two")
    await upload(4, b"two")
    assert (await anext(tail)).data == b"two"
    await worker.pass_all()
    with pytest.raises(StopAsyncIteration):
        await anext(tail)
    whole = b"".join([piece.data async for piece in client.tail_logs(run.run_id, task=0)])
    assert whole == b"one two"


# -- the fleet


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
