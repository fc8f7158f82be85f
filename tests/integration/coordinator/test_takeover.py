"""A leader goes, however it goes: a standby leads within seconds, and nothing that was acknowledged or ran is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from bench.takeover_system import NAMESPACE, Program, TakeoverSystem
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, run_service_pb2, run_service_pb2_grpc
from dtf.cli.exit_codes import ExitCode
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import SERVER_WENT
from dtf.settings.model import CoordinatorSettings, NatsSettings, WorkerSettings
from tests.e2e.accounts import LogAccount, read_account

pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(600)]

WAIT_SECONDS = 90.0
PATIENT = CoordinatorSettings(lease_seconds=60.0, leader_lease_seconds=20.0)
"""A leader that is killed is missed at once; who is only slow is not missed."""
SILENT_SECONDS = 3.0
"""After this a leader is missed that stands still, or dies before its standby has looked at it."""
silent_soon = pytest.mark.parametrize("leader_lease_seconds", [SILENT_SECONDS], ids=["silent soon"])
COMMANDS = [["sleep", "0.3"]] * 40
LEAVING = {signal.SIGKILL: -signal.SIGKILL, signal.SIGSTOP: ExitCode.DEPOSED, signal.SIGTERM: ExitCode.OK}
LEASES = {signal.SIGSTOP: SILENT_SECONDS}


@pytest_asyncio.fixture
async def nats(own_nats_server: NatsServer) -> NatsSettings:
    return NatsSettings(url=own_nats_server.url, credentials_file=str(own_nats_server.credentials_file))


@pytest.fixture
def leader_lease_seconds() -> float:
    return PATIENT.leader_lease_seconds


@pytest_asyncio.fixture
async def system(
    nats: NatsSettings, tmp_path: Path, leader_lease_seconds: float
) -> AsyncIterator[TakeoverSystem]:
    settings = replace(PATIENT, leader_lease_seconds=leader_lease_seconds)
    async with TakeoverSystem(tmp_path, nats, coordinator=settings, worker=WorkerSettings(slots=2)) as system:
        yield system


@pytest_asyncio.fixture
async def client(system: TakeoverSystem) -> AsyncIterator[Client]:
    async with Client(system.peer) as client:
        yield client


async def until_accepted(client: Client, run: RunHandle, count: int) -> None:
    """Return when the results of `count` cases are durable."""
    async with asyncio.timeout(WAIT_SECONDS):
        async for watched in run.watch(event_types=["results_accepted"]):
            assert watched.event is not None
            count -= len(watched.event.results_accepted.tasks)
            if count <= 0:
                return


async def account_of(nats: NatsSettings) -> LogAccount:
    """What the whole log says."""
    log = await JetStreamLog.attach(nats, NAMESPACE, SystemClock())
    try:
        return read_account([message async for batch in log.read(0) for message in batch])
    finally:
        await log.close()


def standby_of(system: TakeoverSystem, leader: Program) -> Program:
    """The other one of two."""
    (other,) = [item for item in system.coordinators if item is not None and item is not leader]
    return other


async def check_books(nats: NatsSettings, run: RunHandle, epochs: set[int]) -> None:
    """Every case was run and judged once, by the workers that were there from the beginning."""
    async with asyncio.timeout(WAIT_SECONDS):
        result = await run.result()
    assert result.counts.passed == len(COMMANDS)
    account = await account_of(nats)
    (books,) = account.runs.values()
    assert books.faults() == []
    assert books.losses == 0, "an attempt that still ran was lost"
    assert account.workers_lost == []
    assert account.epochs == epochs


@pytest.mark.parametrize(
    ("number", "leader_lease_seconds"),
    [
        pytest.param(number, LEASES.get(number, PATIENT.leader_lease_seconds), id=number.name)
        for number in LEAVING
    ],
)
async def test_a_standby_takes_over_and_what_runs_goes_on(
    system: TakeoverSystem, client: Client, nats: NatsSettings, number: signal.Signals
) -> None:
    run = await client.start_run("suite", commands=COMMANDS)
    await until_accepted(client, run, 5)
    leader = system.leader
    leader.signal(number)
    await standby_of(system, leader).until_role("leader")
    if number == signal.SIGSTOP:
        leader.signal(signal.SIGCONT)
    assert await leader.ended() == LEAVING[number]
    await check_books(nats, run, {1, 2})


@silent_soon
async def test_a_client_that_submits_meanwhile_is_answered_once_for_each_task(
    system: TakeoverSystem, client: Client, nats: NatsSettings
) -> None:
    request = run_service_pb2.CreateRunRequest(
        suite="suite", templates=[common_pb2.TaskTemplate(command=common_pb2.CommandSpec())]
    )
    run = await client.create_run(request)
    leader = system.leader
    indexes = [await run.submit(task(number)) for number in range(5)]
    leader.signal(signal.SIGKILL)
    async with asyncio.timeout(WAIT_SECONDS):
        indexes += [await run.submit(task(number)) for number in range(5, 10)]
        # Broken while nothing was under way: what fed the old call must not swallow the next submission.
        again = await system.start_coordinator(system.index_of(leader))
        await again.until_role("standby")
        system.leader.signal(signal.SIGKILL)
        await again.until_role("leader")
        indexes += [await run.submit(task(number)) for number in range(10, len(COMMANDS))]
        await run.seal()
    assert indexes == list(range(len(COMMANDS)))
    await check_books(nats, run, {1, 2, 3})


def task(number: int) -> common_pb2.TaskSpec:
    return common_pb2.TaskSpec(name=f"task-{number}", payload='["true"]')


async def test_of_two_standbys_one_leads_and_the_other_stays_for_the_next_time(
    nats: NatsSettings, tmp_path: Path
) -> None:
    async with (
        TakeoverSystem(
            tmp_path, nats, coordinator_count=3, coordinator=PATIENT, worker=WorkerSettings(slots=2)
        ) as system,
        Client(system.peer) as client,
    ):
        run = await client.start_run("suite", commands=COMMANDS)
        for takeover in range(2):
            await until_accepted(client, run, 5 + 10 * takeover)
            before = system.leader
            before.signal(signal.SIGKILL)
            await before.ended()
            async with asyncio.timeout(WAIT_SECONDS):
                epoch = (await client.get_fleet()).epoch
            assert epoch == 2 + takeover
            leaders = [item for item in system.coordinators if item is not None and item.is_leader]
            assert len(leaders) == 1
        await check_books(nats, run, {1, 2, 3})


@silent_soon
async def test_a_standby_that_dies_costs_nothing_and_its_successor_takes_over(
    system: TakeoverSystem, client: Client, nats: NatsSettings
) -> None:
    run = await client.start_run("suite", commands=COMMANDS)
    leader = system.leader
    standby = standby_of(system, leader)
    standby.signal(signal.SIGKILL)
    await standby.ended()
    await until_accepted(client, run, 5)
    again = await system.start_coordinator(system.index_of(standby))
    await again.until_role("standby")
    leader.signal(signal.SIGKILL)
    await again.until_role("leader")
    await check_books(nats, run, {1, 2})


@silent_soon
async def test_a_broker_that_dies_with_the_leader_delays_the_takeover_and_no_more(
    system: TakeoverSystem, client: Client, nats: NatsSettings, own_nats_server: NatsServer
) -> None:
    run = await client.start_run("suite", commands=COMMANDS)
    await until_accepted(client, run, 5)
    leader = system.leader
    standby = standby_of(system, leader)
    leader.signal(signal.SIGKILL)
    await own_nats_server.kill()
    await leader.ended()
    await own_nats_server.start()
    await standby.until_role("leader")
    await check_books(nats, run, {1, 2})


@silent_soon
async def test_a_leader_that_wakes_up_deposed_answers_nothing_that_is_stale(
    system: TakeoverSystem, client: Client
) -> None:
    run = await client.start_run("suite", commands=COMMANDS)
    await until_accepted(client, run, 5)
    leader = system.leader
    peer = system.peer
    old = Peer((peer.addresses[system.index_of(leader)],), peer.token)
    async with open_channel(old, [("grpc.enable_retries", 0)]) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        await channel.channel_ready()
        leader.signal(signal.SIGSTOP)
        request = run_service_pb2.GetRunRequest(run_id=run.run_id)
        asked = [stub.GetRun(request, metadata=peer.metadata, timeout=WAIT_SECONDS) for _ in range(5)]
        await standby_of(system, leader).until_role("leader")
        await client.cancel_run(run.run_id)
        leader.signal(signal.SIGCONT)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [code for code in map(code_of, answers) if code not in SERVER_WENT] == []
    assert await leader.ended() == ExitCode.DEPOSED


def code_of(answer: object) -> object:
    return answer.code() if isinstance(answer, grpc.aio.AioRpcError) else answer


async def test_a_standby_that_is_told_to_stop_leaves_without_having_led(system: TakeoverSystem) -> None:
    standby = standby_of(system, system.leader)
    standby.signal(signal.SIGTERM)
    assert await standby.ended() == ExitCode.OK
    assert standby.roles == ["standby"]
    assert system.leader.is_running
