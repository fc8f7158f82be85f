"""Two coordinators on one broker, each with a namespace of its own: nothing of one is seen in the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2, worker_service_pb2
from dtf.client.client import Client
from dtf.client.stack import remote_addresses
from dtf.coordinator.process import Coordinator
from dtf.core.events import run_of
from dtf.ports.subjects import RecordKind
from dtf.settings.loader import load_settings
from dtf.settings.model import NatsSettings
from dtf.settings.project import namespace_dir
from tests.coordinators import PATIENT, create_request, peer_of, running_coordinator, tasks
from tests.integration.coordinator.rig import resumed_worker
from tests.scripted_worker import scripted_worker

pytestmark = pytest.mark.coordinator

WAIT_SECONDS = 60.0
"""A machine that runs other tests too is slow."""


@dataclass(slots=True)
class Realm:
    """A coordinator, its streams and a client."""

    coordinator: Coordinator
    log: JetStreamLog
    telemetry: JetStreamRecords
    client: Client

    async def events(self) -> list[events_pb2.Event]:
        """Everything in its log."""
        found: list[events_pb2.Event] = []
        async for batch in self.log.read(0):
            for stored in batch:
                found.extend(events_pb2.Commit.FromString(stored.payload).events)
        return found


@pytest_asyncio.fixture
async def realms(
    nats_settings: NatsSettings, namespace: str, tmp_path: Path
) -> AsyncIterator[tuple[Realm, Realm]]:
    """Two of them, on one broker."""
    async with AsyncExitStack() as stack:
        found = []
        for name in (f"{namespace}-a", f"{namespace}-b"):
            clock = SystemClock()
            log = await JetStreamLog.open(nats_settings, name, clock)
            stack.push_async_callback(log.close)
            telemetry = await JetStreamRecords.open(nats_settings, RecordKind.TELEMETRY, name, clock)
            stack.push_async_callback(telemetry.close)
            settings = replace(PATIENT, namespace=name)
            coordinator = await stack.enter_async_context(
                running_coordinator(
                    log,
                    namespace_dir(tmp_path, name) / "blobs",
                    settings=settings,
                    telemetry=telemetry,  # type: ignore[arg-type]  # any RecordStream will do
                )
            )
            client = await stack.enter_async_context(Client(peer_of(coordinator)))
            found.append(Realm(coordinator, log, telemetry, client))
        yield found[0], found[1]


async def test_the_same_request_is_another_run_in_each_and_each_log_holds_its_own(
    realms: tuple[Realm, Realm],
) -> None:
    runs = []
    for realm in realms:
        async with asyncio.timeout(WAIT_SECONDS), scripted_worker(peer_of(realm.coordinator)) as worker:
            run = await realm.client.create_run(create_request("the-same-request"))
            await run.submit_many(tasks(3))
            await run.seal()
            await worker.attach()
            await worker.hear_leases(3)
            await worker.pass_all()
            assert (await run.result()).counts.passed == 3
            runs.append(run.run_id)
    for realm, run_id in zip(realms, runs, strict=True):
        events = await realm.events()
        assert {run_of(event) for event in events} - {""} == {run_id}
        assert [found.run_id for found in await realm.client.list_runs()] == [run_id]
        assert len(await realm.client.list_workers(include_gone=True)) == 1


async def test_a_session_of_one_is_unknown_to_the_other(realms: tuple[Realm, Realm]) -> None:
    here, there = realms
    async with scripted_worker(peer_of(here.coordinator), worker_id="worker") as worker:
        await worker.attach()
        async with resumed_worker(worker, peer_of(there.coordinator)) as astray:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await astray.attach()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert await there.client.list_workers() == []


async def test_telemetry_and_blobs_of_one_are_not_the_others(realms: tuple[Realm, Realm]) -> None:
    here, there = realms
    sample = worker_service_pb2.Telemetry(cpu_ratio=0.5)
    async with asyncio.timeout(WAIT_SECONDS), scripted_worker(peer_of(here.coordinator)) as worker:
        await worker.attach()
        await worker.say(telemetry=sample, credits=1)
        async for batch in here.telemetry.follow(0):
            assert worker_service_pb2.TelemetrySample.FromString(batch[0].payload).telemetry == sample
            break
    assert (await there.telemetry.head()).last_sequence == 0
    blob = await here.client.upload_blob(b"x" * 20_000)
    assert await here.client.fetch_blob(blob.digest) == b"x" * 20_000
    with pytest.raises(grpc.aio.AioRpcError):
        await there.client.fetch_blob(blob.digest)


def test_a_client_picks_its_coordinator_by_namespace(tmp_path: Path) -> None:
    (tmp_path / "dtf.toml").write_text('[run.servers]\na = "host-a:7070"\nb = "host-b:7070"\n')
    for name, server in (("a", "host-a:7070"), ("b", "host-b:7070")):
        settings = load_settings(tmp_path, environ={"DTF_COORDINATOR_NAMESPACE": name}, flags={}).settings
        addresses = remote_addresses(settings)
        assert addresses is not None
        assert (addresses.server, addresses.namespace) == (server, name)
    assert remote_addresses(load_settings(tmp_path, environ={}).settings) is None
    named = load_settings(tmp_path, environ={"DTF_SERVER": "host-c:1"}).settings
    assert named.server == "host-c:1"


def test_the_files_of_the_default_namespace_stay_where_they_were() -> None:
    assert namespace_dir(Path("state"), "default") == Path("state")
    assert namespace_dir(Path("state"), "a") != namespace_dir(Path("state"), "b")
