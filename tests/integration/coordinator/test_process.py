"""`dtf coordinator` on a real broker: killed at any moment it loses nothing that was acknowledged."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.client.client import Client
from dtf.client.run import WatchedEvent
from dtf.core.chain import ChainReader
from dtf.rpc.errors import SERVER_WENT, parse
from dtf.settings.model import NatsSettings
from tests.coordinators import create_request, tasks
from tests.integration.coordinator.program import CoordinatorProgram
from tests.ports import kept_address
from tests.scripted_worker import results, scripted_worker

pytestmark = pytest.mark.coordinator


@pytest.fixture
def program(nats_settings: NatsSettings, namespace: str, tmp_path: Path) -> CoordinatorProgram:
    return CoordinatorProgram(nats_settings, namespace, tmp_path)


@pytest.fixture
def address() -> Iterator[str]:
    """Where nobody listens but who is told to."""
    with kept_address() as kept:
        yield kept


async def commits_of(log: JetStreamLog) -> list[events_pb2.Commit]:
    """Every commit of the log, which must be one whole chain."""
    chain = ChainReader()
    commits = []
    async for batch in log.read(0):
        for stored in batch:
            commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
            if commit is not None:
                commits.append(commit)
    return commits


async def test_killed_while_tasks_are_submitted_it_loses_nothing_acknowledged(
    program: CoordinatorProgram, event_log: JetStreamLog, address: str
) -> None:
    acknowledged: list[int] = []
    async with program.running("--listen", address) as first, Client(first.peer) as client:
        run = await client.create_run(create_request())
        call = client.runs.SubmitTasks(metadata=client.metadata)

        async def send() -> None:
            for batch in range(1, 5000):
                await call.write(
                    run_service_pb2.SubmitTasksRequest(run_id=run.run_id, batch=batch, tasks=tasks(10))
                )

        async def hear() -> None:
            while len(acknowledged) < 40:
                answer = await call.read()
                assert isinstance(answer, run_service_pb2.SubmitTasksResponse)
                acknowledged.append(answer.batch)
            await first.kill()

        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_until_broken(send()))
            await hear()
            sending.cancel()
    async with program.running("--listen", address) as second, Client(second.peer) as client:
        found = await client.get_run(run.run_id)
        assert (await client.get_fleet()).epoch == 2
        assert found.task_count >= 10 * len(acknowledged)
        batches = [
            event.tasks_submitted.batch
            for commit in await commits_of(event_log)
            for event in commit.events
            if event.HasField("tasks_submitted")
        ]
        assert batches == list(range(1, len(batches) + 1)), "each batch once, in order"
        assert set(acknowledged) <= set(batches)
        assert found.task_count == 10 * len(batches)


async def _until_broken(sending: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await sending


async def test_killed_while_results_come_in_every_case_is_accepted_once(
    program: CoordinatorProgram, event_log: JetStreamLog, address: str
) -> None:
    async with program.running("--listen", address) as first, Client(first.peer) as client:
        run = await client.create_run(create_request())
        await run.submit_many(tasks(200))
        await run.seal()
        async with scripted_worker(first.peer) as worker:
            await worker.attach(credits=16)
            leases = await worker.hear_leases(1)
            await worker.say(results=[results(leases)], credits=16)
            await worker.hear_acknowledged(1)
            unheard = list(worker.held.values())
            if unheard:
                await worker.say(results=[results(unheard)], credits=16)
            await first.kill()
            async with program.running("--listen", address) as second, Client(second.peer) as again:
                await again.channel.channel_ready()
                await worker.attach(credits=16, held=[lease.fence for lease in unheard])
                if unheard:
                    await worker.say(sequence=2, results=[results(unheard)], credits=16)
                    await worker.hear_acknowledged(2)
                while (await again.get_run(run.run_id)).state != common_pb2.RUN_STATE_FINISHED:
                    if worker.held:
                        await worker.pass_all(credits=16)
                    else:
                        await worker.hear()
                assert (await again.get_run(run.run_id)).counts.passed == 200
    accepted = [
        (task, fence)
        for commit in await commits_of(event_log)
        for event in commit.events
        for task, fence in zip(event.results_accepted.tasks, event.results_accepted.fences, strict=True)
    ]
    assert sorted(task for task, _fence in accepted) == list(range(200))


async def test_told_to_stop_it_ends_in_good_order_and_sends_everybody_away(
    program: CoordinatorProgram,
) -> None:
    async with program.running() as coordinator, Client(coordinator.peer) as client:
        run = await client.create_run(create_request())
        watching = client.runs.WatchRun(
            run_service_pb2.WatchRunRequest(run_id=run.run_id), metadata=client.metadata
        )
        await watching.read()
        async with scripted_worker(coordinator.peer) as worker:
            await worker.attach()
            assert await coordinator.stop() == ExitCode.OK
            with pytest.raises(grpc.aio.AioRpcError) as sent_away:
                await worker.hear()
            assert sent_away.value.code() in SERVER_WENT
            # The process may be gone before its reason has come through; what is said in it is tested in-process.
            assert parse(sent_away.value).reason in ("NOT_LEADING", "")
        with pytest.raises(grpc.aio.AioRpcError) as sent_away:
            await watching.read()
        assert sent_away.value.code() in SERVER_WENT


async def test_a_second_coordinator_deposes_the_first_which_says_so_and_ends(
    program: CoordinatorProgram, event_log: JetStreamLog
) -> None:
    async with program.running() as first, program.running() as second:
        async with Client(first.peer) as client:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.runs.CreateRun(create_request("late"), metadata=client.metadata)
            assert refused.value.code() in SERVER_WENT
        _output, errors = await first.process.communicate()
        assert first.process.returncode == ExitCode.DEPOSED
        # It learns of it from the log or, where that is quicker, from the lease.
        told = ("error: another coordinator leads since message 2", "is leading with epoch 2")
        assert any(text in errors.decode() for text in told)
        async with Client(second.peer) as client:
            assert await client.list_runs() == []
            await client.create_run(create_request("late"))
    commits = await commits_of(event_log)
    assert [commit.epoch for commit in commits] == [1, 2, 2]


async def test_a_port_in_use_is_one_clear_error_and_deposes_nobody(
    program: CoordinatorProgram, event_log: JetStreamLog
) -> None:
    async with program.running() as first:
        code, lines = await program.fails("--listen", first.address)
        assert code == ExitCode.USAGE
        assert lines[0].startswith(f"error: cannot listen on {first.address}: the port is taken")
        assert not any("Traceback" in line for line in lines)
        async with Client(first.peer) as client:
            await client.create_run(create_request())
    assert len(await commits_of(event_log)) == 2
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        code, _lines = await program.fails("--listen", f"127.0.0.1:{stranger.getsockname()[1]}")
        assert code == ExitCode.USAGE
    assert len(await commits_of(event_log)) == 2


async def test_it_refuses_to_listen_beyond_loopback_without_tls(program: CoordinatorProgram) -> None:
    absent = replace(program.nats, url="nats://127.0.0.1:1", connect_timeout_seconds=600.0)
    (program.directory / "dtf.toml").write_text('[coordinator]\ntls = "off"\n')
    code, lines = await replace(program, nats=absent).fails("--listen", "0.0.0.0:0")
    assert code == ExitCode.USAGE, "it needs no broker to know"
    assert lines[0].startswith("error: refusing to listen on 0.0.0.0:0, beyond loopback, without TLS")


async def test_a_broker_that_is_not_there_is_named(program: CoordinatorProgram, address: str) -> None:
    url = f"nats://{address}"
    absent = replace(program.nats, url=url, connect_timeout_seconds=0.5)
    code, lines = await replace(program, nats=absent).fails()
    assert code == ExitCode.UNAVAILABLE
    assert url.removeprefix("nats://") in lines[0]


async def test_a_strangers_message_ends_the_reign_and_the_next_one_passes_it_over(
    program: CoordinatorProgram, event_log: JetStreamLog
) -> None:
    async with program.running() as first:
        async with Client(first.peer) as client:
            run = await client.create_run(create_request())
            await event_log.append(
                b"not a commit",
                message_id="stranger",
                previous_message_id=None,
                expected_last_sequence=None,
                headers={},
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.runs.CreateRun(create_request("b"), metadata=client.metadata)
            assert refused.value.code() in SERVER_WENT
        _output, errors = await first.process.communicate()
        assert first.process.returncode == ExitCode.UNAVAILABLE
        assert "is a stranger's; start again" in errors.decode()
    async with program.running() as second, Client(second.peer) as client:
        assert [found.run_id for found in await client.list_runs()] == [run.run_id]
        await client.create_run(create_request("b"))
        seen = [watched async for watched in _created(client)]
        assert len(seen) == 2


async def _created(client: Client) -> AsyncIterator[WatchedEvent]:
    count = 0
    request = run_service_pb2.WatchRunRequest(event_types=["run_created"])
    async for watched in client.watch(request):
        yield watched
        count += 1
        if count == 2:
            return


async def test_a_broker_killed_under_load_costs_nothing_but_time(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = NatsSettings(url=own_nats_server.url, credentials_file=str(own_nats_server.credentials_file))
    program = CoordinatorProgram(settings, "broken", tmp_path)
    async with program.running() as coordinator, Client(coordinator.peer) as client:
        run = await client.create_run(create_request())
        await run.submit_many(tasks(10))
        await own_nats_server.kill()
        async with asyncio.TaskGroup() as group:
            submitting = group.create_task(run.submit_many(tasks(500, "late")))
            await own_nats_server.start()
            await submitting
        assert (await run.refresh()).task_count == 510
        assert (await client.get_fleet()).refusing_reason == ""
        assert (await client.get_fleet()).epoch == 1, "the same reign goes on"
    log = await JetStreamLog.open(settings, "broken", SystemClock())
    names = [
        name
        for commit in await commits_of(log)
        for event in commit.events
        for name in event.tasks_submitted.names
    ]
    assert len(names) == len(set(names)) == 510
    await log.close()
