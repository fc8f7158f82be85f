"""Sessions of workers: resumed, replaced, drained, lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.api.v1 import (
    common_pb2,
    fleet_service_pb2,
    worker_service_pb2,
)
from dtf.client.client import Client
from dtf.coordinator import announcer
from dtf.coordinator.commits import Outcome, Settle
from dtf.coordinator.session_hub import SessionHub
from dtf.core.run.commands import Command, ReportResults
from dtf.rpc.errors import NotLeading, parse
from tests.coordinators import create_request, peer_of, running_coordinator, tasks
from tests.fakes import FakeClock
from tests.integration.coordinator.rig import Crew, end_of, failure_of, resumed_worker, start_run
from tests.scripted_worker import WAIT_SECONDS, ScriptedWorker, results, scripted_worker

pytestmark = pytest.mark.coordinator


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


async def test_an_idle_worker_hears_of_a_pytest_run_before_its_first_task(
    client: Client, workers: Crew
) -> None:
    worker = await workers.hire()
    template = common_pb2.TaskTemplate(pytest=common_pb2.PytestSpec(root_dir="/x", working_dir="/x"))
    request = create_request("r")
    del request.templates[:]
    request.templates.append(template)
    run = await client.create_run(request)
    heard = [context async for context in contexts_until(worker, run.run_id)]
    assert heard == [run.run_id]
    await run.submit_many(tasks(1))
    await worker.hear_leases(1)


async def contexts_until(worker: ScriptedWorker, run_id: str) -> AsyncIterator[str]:
    """Runs a worker hears of, up to `run_id`."""
    while True:
        for context in (await worker.hear()).contexts:
            yield context.run_id
            if context.run_id == run_id:
                return


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


async def test_a_message_lost_on_the_way_to_the_next_coordinator_is_no_report(
    log: MemoryLog, tmp_path: Path
) -> None:
    """A stream that begins behind what the worker said it would is refused: nothing is acknowledged unheard."""
    async with AsyncExitStack() as stack:
        async with running_coordinator(log, tmp_path) as first:
            worker = await stack.enter_async_context(scripted_worker(peer_of(first)))
        async with running_coordinator(log, tmp_path) as second:
            resumed = await stack.enter_async_context(resumed_worker(worker, peer_of(second)))
            resumed.first_sequence = 4
            await resumed.attach()
            await resumed.say(sequence=5, released_fences=[1])
            assert "message 5 came after 3; expected 4" in (await end_of(resumed)).message
            await resumed.attach()
            await resumed.say(sequence=4, released_fences=[1])
            await resumed.hear_acknowledged(4)


async def test_what_fails_behind_a_newer_stream_is_said_again_on_it(
    log: MemoryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newer stream repeated a message that was being decided, and was passed over: then that failed."""
    async with (
        running_coordinator(log, tmp_path) as coordinator,
        scripted_worker(peer_of(coordinator)) as worker,
    ):
        await worker.attach()
        writer = coordinator.desk.writer
        undecided: asyncio.Queue[Settle] = asyncio.Queue()
        post = writer.post

        def hold_reports(command: Command, settle: Settle | None = None, **how: Any) -> None:
            if isinstance(command, ReportResults):
                assert settle is not None
                undecided.put_nowait(settle)
            else:
                post(command, settle, **how)

        with monkeypatch.context() as patch:
            patch.setattr(writer, "post", hold_reports)
            await worker.say(sequence=1, released_fences=[1])
            told = await undecided.get()
            await worker.attach()
            await worker.say(sequence=1, released_fences=[1])
            await worker.say(sequence=2, released_fences=[2])
            later = await undecided.get()
            told(Outcome(0, (), NotLeading("the log does not answer")))
            later(Outcome(1, (), None))
        assert "the log does not answer" in (await end_of(worker)).message
        assert worker.acknowledged == 0
        await worker.attach()
        await worker.say(sequence=1, released_fences=[1])
        await worker.hear_acknowledged(1)


@pytest.mark.parametrize("failing", ["leases_granted", "tell_exhausted"])
async def test_a_worker_that_could_not_be_told_is_told_when_it_attaches_again(
    client: Client, workers: Crew, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """A fault of the coordinator's costs a stream, and never leaves a lease that nobody knows of."""
    worker = await workers.hire()
    faults = [KeyError("a fault")]

    def fail_once(*_arguments: object) -> None:
        if faults:
            raise faults.pop()

    with monkeypatch.context() as patch:
        if failing == "leases_granted":
            patch.setitem(announcer._TELL, "leases_granted", fail_once)
        else:
            patch.setattr(announcer.Announcer, "tell_exhausted", fail_once)
        run = await start_run(client, 2)
        await end_of(worker)
    assert not faults
    await worker.attach()
    await worker.hear_leases(2)
    await worker.pass_all()
    assert (await run.result()).counts.passed == 2


async def test_a_stream_that_cannot_be_brought_up_to_date_ends(
    client: Client, workers: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attached worker that is not served would send heartbeats and wait for ever."""
    run = await start_run(client, 2)
    worker = await workers.hire(attach=False)

    def fail(*_arguments: object) -> None:
        raise KeyError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(SessionHub, "_bring_up_to_date", fail)
        with pytest.raises(grpc.aio.AioRpcError, match="Attach again"):
            await worker.attach()
    await worker.attach()
    await worker.hear_leases(2)
    await worker.pass_all()
    assert (await run.result()).counts.passed == 2


async def test_a_worker_hears_of_the_end_of_a_run_that_it_knows_from_an_earlier_stream(
    client: Client, workers: Crew
) -> None:
    """Its warm processes wait for that word; what it holds, and so the context, is not told again."""
    worker = await workers.hire()
    run = await start_run(client, 1)
    await worker.hear_leases(1)
    await worker.detach()
    await worker.attach(known_runs=[run.run_id])
    await worker.pass_all()
    while not worker.ended_runs:
        await worker.hear()
    assert worker.ended_runs == [run.run_id]
    assert worker.contexts == [run.run_id]


async def test_a_worker_hears_of_runs_that_ended_while_it_was_away(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    await worker.hear_leases(1)
    await worker.pass_all()
    await run.result()
    late = await workers.hire(attach=False)
    await late.attach(known_runs=[run.run_id, "gone"])
    while len(late.ended_runs) < 2:
        await late.hear()
    assert sorted(late.ended_runs) == sorted([run.run_id, "gone"])


async def test_a_worker_of_a_coordinator_that_stops_is_sent_to_the_next(tmp_path: Path) -> None:
    async with running_coordinator(MemoryLog(), tmp_path) as coordinator, AsyncExitStack() as stack:
        worker = await stack.enter_async_context(scripted_worker(peer_of(coordinator)))
        await worker.attach()
        await coordinator.stop()
        failure = await end_of(worker)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_LEADING")
