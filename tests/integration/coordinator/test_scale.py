"""The mechanisms that let one coordinator serve a large fleet, many watchers and hasty clients, in small."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from bench.simulated_fleet import SimulatedFleet
from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import common_pb2, run_service_pb2, run_service_pb2_grpc
from dtf.client import submission
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.client.submission import SubmissionFailed
from dtf.coordinator import dispatcher, intake
from dtf.coordinator.process import Coordinator
from dtf.pytest_plugin.link import MAX_TASKS_PER_MESSAGE, Link
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import RpcFailure, parse
from tests.coordinators import SETTINGS, create_request, peer_of, running_coordinator, tasks
from tests.fakes import FakeClock
from tests.integration.coordinator.rig import Crew, start_run

pytestmark = pytest.mark.coordinator

WAIT_SECONDS = 60.0
"""A machine that runs other tests too is slow."""
HASTY = 64
LARGE = 50
"""Tasks of 16 KB in one message."""


async def until_ended(client: Client, run_id: str) -> run_service_pb2.Run:
    """The run once it has ended."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await (await client.attach(run_id)).result()


# -- heartbeats


async def test_attached_workers_are_told_a_longer_interval_when_the_fleet_grows(
    log: MemoryLog, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, heartbeats_per_second=1.0)
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(running_coordinator(log, tmp_path, settings=settings))
        crew = Crew(peer_of(coordinator), stack)
        first = await crew.hire(attach=False)
        assert first.session.heartbeat_seconds == 1.0
        await first.attach()
        others = [await crew.hire() for _ in range(5)]
        assert others[-1].session.heartbeat_seconds >= 6.0
        assert others[-1].session.lease_seconds >= 4 * others[-1].session.heartbeat_seconds
        await first.say(credits=64)
        heard = await first.hear()
        assert heard.heartbeat_seconds == coordinator.desk.sessions.heartbeat_seconds >= 6.0


async def test_a_large_fleet_says_what_it_may_a_second_and_nobody_is_lost(
    log: MemoryLog, tmp_path: Path
) -> None:
    clock = FakeClock()
    settings = replace(SETTINGS, heartbeats_per_second=10.0)
    async with (
        running_coordinator(log, tmp_path, settings=settings, clock=clock) as coordinator,
        SimulatedFleet(coordinator.desk, clock) as fleet,
    ):
        await fleet.grow(200)
        interval = coordinator.desk.sessions.heartbeat_seconds
        assert interval >= 20.0
        await clock.advance(2 * interval)
        before = fleet.message_count
        await clock.advance(4 * interval)
        rate = (fleet.message_count - before) / (4 * interval)
        assert 0 < rate <= 10.0 * 1.1
        assert len(coordinator.desk.sessions) == 200


async def test_a_worker_that_hangs_is_lost_after_the_heartbeats_it_may_miss(
    log: MemoryLog, tmp_path: Path
) -> None:
    clock = FakeClock()
    settings = replace(SETTINGS, heartbeats_per_second=1.0)
    async with running_coordinator(log, tmp_path, settings=settings, clock=clock) as coordinator:
        sessions = coordinator.desk.sessions
        async with SimulatedFleet(coordinator.desk, clock) as fleet:
            await fleet.grow(20)
            interval = sessions.heartbeat_seconds
            await clock.advance(2 * interval)
            hung = fleet.workers[0]
            hung.is_hung = True
            await clock.advance(3 * interval)
            assert sessions.get(hung.opened.worker_id) is not None, "it may miss several"
            await clock.advance(3 * interval)
            assert sessions.get(hung.opened.worker_id) is None
            assert len(sessions) == 19


async def test_a_worker_whose_stream_broke_is_lost_though_the_fleets_heartbeats_are_far_apart(
    log: MemoryLog, tmp_path: Path
) -> None:
    clock = FakeClock()
    settings = replace(SETTINGS, heartbeats_per_second=1.0)
    async with running_coordinator(log, tmp_path, settings=settings, clock=clock) as coordinator:
        sessions = coordinator.desk.sessions
        async with SimulatedFleet(coordinator.desk, clock) as fleet:
            await fleet.grow(20)
            interval = sessions.heartbeat_seconds
            await clock.advance(2 * interval)
            fleet.workers[0].stream.finish()
            fleet.workers[0].is_hung = True
            await clock.advance(0.8 * interval)
            assert len(sessions) == 20, "the whole fleet must have the time to come back"
            await clock.advance(interval)
            assert len(sessions) == 19


# -- many workers


async def test_hundreds_of_simulated_workers_run_every_task_once(
    coordinator: Coordinator, client: Client
) -> None:
    async with SimulatedFleet(coordinator.desk, coordinator.desk.clock) as fleet:
        await fleet.grow(600)
        run = await start_run(client, 3000)
        ended = await until_ended(client, run.run_id)
        assert ended.counts.passed == 3000
        assert sum(worker.passed_count for worker in fleet.workers) == 3000
        assert sum(1 for worker in fleet.workers if worker.passed_count) > dispatcher.FEW_OFFERS


async def test_a_task_that_only_one_of_a_large_idle_fleet_can_run_finds_it(
    coordinator: Coordinator, client: Client, workers: Crew
) -> None:
    async with SimulatedFleet(coordinator.desk, coordinator.desk.clock) as fleet:
        await fleet.grow(2 * dispatcher.FEW_OFFERS + 10)
        only = await workers.hire(labels={"gpu": "yes"})
        request = create_request("r")
        request.templates[0].requirements.labels["gpu"] = "yes"
        run = await client.create_run(request)
        await run.submit_many(tasks(1))
        await only.hear_leases(1)


# -- watchers


async def test_many_watchers_hear_everything_in_order(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await client.create_run(create_request("watched"))

    async def heard() -> list[int]:
        return [seen.sequence async for seen in (await client.attach(run.run_id)).watch()]

    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        watches = [group.create_task(heard()) for _ in range(30)]
        for _ in range(10):
            await run.submit_many(tasks(2))
        await run.seal()
        while (await run.refresh()).finished_count < 20:
            await worker.hear_leases(1)
            await worker.pass_all()
    sequences = watches[0].result()
    assert sequences == sorted(sequences)
    assert len(sequences) >= 14
    assert all(watch.result() == sequences for watch in watches)


async def test_a_watcher_that_does_not_read_holds_nobody_up_and_reads_the_log_later(
    coordinator: Coordinator, client: Client, peer: Peer
) -> None:
    coordinator.desk.feed._max_bytes = 2**20
    run = await client.create_run(create_request("watched"))
    async with open_channel(peer, [("grpc.http2.bdp_probe", 0)]) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        request = run_service_pb2.WatchRunRequest(run_id=run.run_id)
        call = stub.WatchRun(request, metadata=peer.metadata)
        first = await call.read()
        assert isinstance(first, run_service_pb2.WatchRunResponse)
        big = [common_pb2.TaskSpec(name=f"t{n}", payload=f'"{"x" * 8000}"') for n in range(4000)]
        async with asyncio.timeout(WAIT_SECONDS):
            await run.submit_many(big)  # 32 MB of events pass it by
            await run.cancel()
        assert coordinator.desk.audience.count == 1
        assert coordinator.desk.feed._bytes <= 2**20
        sequences = [commit.log_sequence for commit in first.commits]
        submitted = 0
        while (response := await call.read()) is not grpc.aio.EOF:
            assert isinstance(response, run_service_pb2.WatchRunResponse)
            for commit in response.commits:
                sequences.append(commit.log_sequence)
                submitted += sum(len(event.tasks_submitted.names) for event in commit.events)
    assert sequences == sorted(set(sequences)), "each commit once, in order"
    assert submitted == len(big)


# -- flow control


async def flood(peer: Peer, run_id: str, number: int) -> RpcFailure | int:
    """A client without manners: one stream, one large message; how it ended, or the tasks it got in."""
    spec = common_pb2.TaskSpec(name="large", payload='"' + "x" * 16_000 + '"')
    message = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=number, tasks=[spec] * LARGE)
    async with open_channel(peer) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        call = stub.SubmitTasks(metadata=peer.metadata)
        try:
            await call.write(message)
            await call.done_writing()
            response = await call.read()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            response = grpc.aio.EOF
        if response is not grpc.aio.EOF:
            assert isinstance(response, run_service_pb2.SubmitTasksResponse)
            return response.task_count
        trailers = await call.trailing_metadata()
        return parse(
            grpc.aio.AioRpcError(
                await call.code(), grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), await call.details()
            )
        )


async def test_a_flood_is_refused_with_a_time_to_try_again_while_what_is_held_stays_bounded(
    coordinator: Coordinator, client: Client, peer: Peer, log: MemoryLog
) -> None:
    desk = coordinator.desk
    desk.intake._max_taken_bytes = desk.intake._max_waiting_bytes = 4 * 2**20
    run = await client.create_run(create_request("flooded"))
    log.hold_acknowledgements()
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        floods = [group.create_task(flood(peer, run.run_id, 1)) for _ in range(HASTY)]
        while desk.intake.refused_count + desk.intake.waiting_bytes // 800_000 < HASTY - 6:
            await asyncio.wait(floods, timeout=0.05)
            assert desk.intake.taken_bytes <= 4 * 2**20
            assert desk.intake.waiting_bytes <= 4 * 2**20
        log.release_acknowledgements()
    ends = [task.result() for task in floods]
    refused = [end for end in ends if isinstance(end, RpcFailure)]
    assert len(refused) >= HASTY - 12
    assert {(end.code, end.reason) for end in refused} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")}
    assert all(end.retry_after_seconds == intake.RETRY_SECONDS for end in refused)
    assert {end for end in ends if isinstance(end, int)} == {LARGE}
    assert desk.intake.taken_bytes == desk.intake.waiting_bytes == 0


async def test_a_run_that_is_refused_for_now_is_created_and_filled_when_the_coordinator_said(
    coordinator: Coordinator, client: Client, peer: Peer, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the asyncio client and by pytest's, both of which somebody waits for."""
    monkeypatch.setattr(intake, "RETRY_SECONDS", 0.05)
    desk = coordinator.desk
    before = await client.create_run(create_request("before"))
    desk.intake._max_taken_bytes, desk.intake._max_waiting_bytes = 1, 0
    log.hold_acknowledgements()
    link = Link(peer)
    try:
        async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
            group.create_task(before.submit(tasks(1)[0]))
            while not desk.intake.taken_bytes:
                await asyncio.wait([group.create_task(before.refresh())], timeout=0.05)
            created = group.create_task(client.create_run(create_request("asyncio")))
            by_pytest = group.create_task(asyncio.to_thread(link.create_run, create_request("blocking")))
            while desk.intake.refused_count < 4:
                await asyncio.wait([created, by_pytest], timeout=0.05)
            log.release_acknowledgements()
            refused, run_id = desk.intake.refused_count, (await by_pytest).run_id
            await created
            log.hold_acknowledgements()
            two_messages = tasks(MAX_TASKS_PER_MESSAGE + 1)
            submitted = group.create_task(asyncio.to_thread(link.submit, run_id, two_messages))
            while desk.intake.refused_count <= refused:
                await asyncio.wait([submitted], timeout=0.05)
            desk.intake._max_taken_bytes = 2**20
            log.release_acknowledgements()
    finally:
        link.close()
    counts = [run.task_count for run in desk.state.runs.values()]
    assert sorted(counts) == [0, 1, len(two_messages)]


async def test_a_stream_beyond_those_that_clients_may_have_is_refused_and_says_what_to_do(
    log: MemoryLog, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, max_client_streams=2)
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(running_coordinator(log, tmp_path, settings=settings))
        async with Client(peer_of(coordinator)) as client, asyncio.timeout(WAIT_SECONDS):
            run = await client.create_run(create_request("watched"))
            request = run_service_pb2.WatchRunRequest(run_id=run.run_id)
            open_ones = [client.runs.WatchRun(request, metadata=client.metadata) for _ in range(2)]
            for call in open_ones:
                assert await call.read() is not grpc.aio.EOF, "each is served"
            with pytest.raises(SubmissionFailed, match=r"2 streams open.*max_client_streams") as refused:
                await run.submit(tasks(1)[0])
            cause = refused.value.__cause__
            assert isinstance(cause, grpc.aio.AioRpcError)
            assert (cause.code(), parse(cause).reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "TOO_MANY_STREAMS",
            )
            open_ones[0].cancel()
            again = await client.get_run(run.run_id)
            while True:
                try:
                    await RunHandle(client, again).submit(tasks(1)[0])
                    break
                except SubmissionFailed as still:
                    assert "streams open" in str(still), "until the coordinator knows that one ended"


async def test_a_client_faster_than_the_log_is_paced_and_loses_nothing(
    coordinator: Coordinator, client: Client, log: MemoryLog
) -> None:
    run = await client.create_run(create_request("paced"))
    log.hold_acknowledgements()
    count = submission.ROOM_TASKS * 4
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        submits = [group.create_task(run.submit(spec)) for spec in tasks(count)]
        stream = run._stream()
        while len(stream._unanswered) < submission.WINDOW or stream._room.tasks < submission.ROOM_TASKS:
            await asyncio.wait(submits, timeout=0.05)
        assert stream._room.tasks == submission.ROOM_TASKS
        assert coordinator.desk.intake.taken_bytes <= intake.MAX_TAKEN_BYTES
        log.release_acknowledgements()
    assert sorted(submit.result() for submit in submits) == list(range(count))
    assert (await run.refresh()).task_count == count


async def test_a_client_that_is_sent_away_comes_back_and_loses_nothing(
    coordinator: Coordinator, client: Client, peer: Peer, log: MemoryLog
) -> None:
    desk = coordinator.desk
    desk.intake._max_taken_bytes = desk.intake._max_waiting_bytes = 2**20
    runs = [await client.create_run(create_request(f"run-{number}")) for number in range(4)]
    payload = '"' + "x" * 16_000 + '"'
    big = [common_pb2.TaskSpec(name=f"t{n}", payload=payload) for n in range(180)]
    log.hold_acknowledgements()
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run.submit_many(big))
        while not desk.intake.refused_count:
            await _moment()
        log.release_acknowledgements()
    assert [(await run.refresh()).task_count for run in runs] == [180] * 4


async def _moment() -> None:
    """Let others run."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    await event.wait()


async def test_the_fleet_at_a_glance_counts_only_what_is_durable(client: Client, log: MemoryLog) -> None:
    run = await client.create_run(create_request("counted"))
    log.hold_acknowledgements()
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        submitting = group.create_task(run.submit_many(tasks(5)))
        while not log._held:
            await _moment()
        seen = await client.get_fleet()
        assert (seen.active_run_count, seen.queued_count) == (0, 0), "the last glance that was durable"
        assert seen.log_sequence < len(log.commits)
        assert not submitting.done()
        log.release_acknowledgements()
    assert (await client.get_fleet()).queued_count == 5
