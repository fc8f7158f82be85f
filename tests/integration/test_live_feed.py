"""The live feed: one line of JSON an event, for whoever listens on core NATS."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.live_feed import LiveFeed
from dtf.adapters.nats_configuration import read_credentials
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, events_pb2
from dtf.settings.model import NatsSettings
from tests.commits import CommitWriter, run_created, run_finished, worker_left
from tests.fakes import FakeClock


class Listener:
    """What somebody hears on a subject."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    async def receive(self, message: Msg) -> None:
        self.lines.put_nowait((message.subject, json.loads(message.data)))

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(60):
            return await self.lines.get()


@pytest_asyncio.fixture
async def person(nats_server: NatsServer) -> AsyncIterator[Client]:
    user, password = read_credentials(nats_server.credentials_file)
    client = await nats.connect(nats_server.url, user=user, password=password)
    yield client
    await client.close()


@pytest_asyncio.fixture
async def reader(
    nats_settings: NatsSettings, namespace: str, event_log: JetStreamLog
) -> AsyncIterator[JetStreamLog]:
    log = await JetStreamLog.attach(nats_settings, namespace, SystemClock())
    yield log
    await log.close()


@pytest.fixture
def feed(reader: JetStreamLog, nats_settings: NatsSettings, namespace: str, clock: FakeClock) -> LiveFeed:
    return LiveFeed(reader, nats_settings, namespace, clock, max_lines_per_second=10)


async def test_each_event_is_a_line_on_the_subject_of_its_run_and_type(
    feed: LiveFeed, event_log: JetStreamLog, person: Client, namespace: str
) -> None:
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.>", cb=heard.receive)
    await person.flush()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(run_created("7f3k"), worker_left("w-1"))
        subject, line = await heard.next()
        assert subject == f"dtf.{namespace}.live.7f3k.RunCreated"
        assert line == {
            "sequence": 1,
            "at": "2001-09-09T01:46:41.000000Z",
            "now_unix_nanos": 10**18 + 10**9,
            "run": "7f3k",
            "type": "RunCreated",
            "event": {"run_id": "7f3k", "suite": "suite"},
        }
        subject, line = await heard.next()
        assert (subject, line["event"]) == (f"dtf.{namespace}.live.fleet.WorkerLeft", {"worker_id": "w-1"})
        running.cancel()


async def test_lines_nobody_listens_to_are_not_made(
    feed: LiveFeed, event_log: JetStreamLog, person: Client, namespace: str
) -> None:
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.*.RunCreated", cb=heard.receive)
    await person.flush()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(*[worker_left(f"w-{number}") for number in range(500)], run_created("7f3k"))
        await heard.next()
        await writer.commit(*[worker_left(f"w-{number}") for number in range(500)], run_created("8abc"))
        await heard.next()
        # One probe of WorkerLeft, which came back, and the two lines that were heard.
        assert (feed.published_count, feed.skipped_count) == (3, 0)
        running.cancel()


async def test_who_comes_later_is_heard_after_half_a_second(
    feed: LiveFeed, event_log: JetStreamLog, person: Client, namespace: str, clock: FakeClock
) -> None:
    early, late, writer = Listener(), Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.*.RunCreated", cb=early.receive)
    await person.flush()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(worker_left("w-1"), run_created("7f3k"))
        await early.next()
        await person.subscribe(f"dtf.{namespace}.live.fleet.>", cb=late.receive)
        await person.flush()
        await clock.advance(0.5)
        await writer.commit(worker_left("w-2"), worker_left("w-3"))
        assert [(await late.next())[1]["event"]["worker_id"] for _ in range(2)] == ["w-2", "w-3"]
        running.cancel()


async def test_more_lines_than_anybody_reads_are_skipped_counted_and_told(
    feed: LiveFeed,
    event_log: JetStreamLog,
    person: Client,
    namespace: str,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.>", cb=heard.receive)
    await person.flush()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(*[worker_left(f"w-{number}") for number in range(100)])
        lines = [await heard.next() for _ in range(11)]  # a probe, and ten of the second
        assert [line["event"]["worker_id"] for _, line in lines] == [f"w-{number}" for number in range(11)]
        await clock.advance(1)  # nothing more happens, and yet it is told
        subject, line = await heard.next()
        assert subject == f"dtf.{namespace}.live.fleet.LinesSkipped"
        assert (line["type"], line["sequence"]) == ("LinesSkipped", 1)
        assert line["event"] == {"count": 89, "total": 89, "published": 11}
        await writer.commit(*[worker_left(f"w-{number}") for number in range(100)])
        assert [(await heard.next())[1]["type"] for _ in range(11)] == ["WorkerLeft"] * 11
        await clock.advance(1)
        assert (await heard.next())[1]["event"] == {"count": 89, "total": 178, "published": 22}
        running.cancel()
    assert feed.skipped_count == 178
    warnings = [record for record in caplog.records if "skips lines" in record.message]
    assert [vars(record)["skipped_total"] for record in warnings] == [89]  # once a minute


async def test_a_listener_that_reads_nothing_holds_up_neither_the_feed_nor_the_log(
    event_log: JetStreamLog, reader: JetStreamLog, nats_settings: NatsSettings, person: Client, namespace: str
) -> None:
    feed = LiveFeed(reader, nats_settings, namespace, SystemClock(), max_lines_per_second=10**9)
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.*.RunFinished", cb=heard.receive)
    await person.flush()
    long = "w" * 2000
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        _, stuck = await subscribe_and_never_read(nats_settings, f"dtf.{namespace}.live.>")
        running = group.create_task(feed.run(after=0))
        for number in range(100):  # 20 MB, more than the buffers between them hold
            await writer.commit(*[worker_left(f"{long}-{number}-{index}") for index in range(100)])
        await writer.commit(run_finished("7f3k"))
        assert (await heard.next())[1]["sequence"] == 101
        running.cancel()
        stuck.close()
    assert feed.published_count >= 10_001
    assert feed.skipped_count == 0
    assert (await event_log.head()).last_sequence == 101


async def subscribe_and_never_read(
    settings: NatsSettings, subject: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A NATS client that subscribes and then hangs."""
    user, password = read_credentials(Path(settings.credentials_file))
    port = int(settings.url.rpartition(":")[2])
    source, target = await asyncio.open_connection("127.0.0.1", port, limit=2**10)
    said = {"user": user, "pass": password, "verbose": False, "pedantic": False, "no_responders": False}
    target.write(f"CONNECT {json.dumps(said)}\r\nSUB {subject} 1\r\nPING\r\n".encode())
    while await source.readline() != b"PONG\r\n":
        pass
    target.transport.pause_reading()  # type: ignore[attr-defined]  # of every transport that reads
    return source, target


async def test_a_message_that_is_no_commit_is_passed_over(
    feed: LiveFeed, event_log: JetStreamLog, person: Client, namespace: str
) -> None:
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.>", cb=heard.receive)
    await person.request(f"dtf.{namespace}.log", b"\xffnot a commit", timeout=60)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(run_created("7f3k"))
        assert (await heard.next())[1]["sequence"] == 2
        running.cancel()


async def test_batches_are_unfolded_into_the_lines_somebody_listens_to(
    feed: LiveFeed, event_log: JetStreamLog, person: Client, namespace: str
) -> None:
    heard, writer = Listener(), CommitWriter(event_log)
    await person.subscribe(f"dtf.{namespace}.live.*.TaskFailed", cb=heard.receive)
    await person.flush()
    names = [f"case {number}" for number in range(256)]
    submitted = events_pb2.TasksSubmitted(run_id="7f3k", first_task=0, names=names)
    verdicts = [common_pb2.VERDICT_PASSED] * 256
    verdicts[200] = common_pb2.VERDICT_FAILED
    accepted = events_pb2.ResultsAccepted(
        run_id="7f3k",
        worker_id="w-1",
        tasks=range(256),
        fences=range(1, 257),
        verdicts=verdicts,
        durations_seconds=[0.5] * 256,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        await writer.commit(events_pb2.Event(tasks_submitted=submitted))
        await writer.commit(events_pb2.Event(results_accepted=accepted))
        subject, line = await heard.next()
        assert subject == f"dtf.{namespace}.live.7f3k.TaskFailed"
        assert line["event"] == {"task": 200, "name": "case 200", "worker_id": "w-1"}
        # Beside it one probe each of TaskSubmitted, CasePassed and CaseFailed.
        assert feed.published_count == 4
        running.cancel()


async def test_the_feed_goes_on_after_the_broker_was_killed(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = NatsSettings(url=own_nats_server.url, credentials_file=str(own_nats_server.credentials_file))
    log = await JetStreamLog.open(settings, "default", SystemClock())
    source = await JetStreamLog.attach(settings, "default", SystemClock())
    feed, writer = LiveFeed(source, settings, "default", SystemClock()), CommitWriter(log)
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(after=0))
        own_nats_server.signal_server(signal.SIGKILL)
        await own_nats_server.wait()
        await own_nats_server.start()
        heard = Listener()
        user, password = read_credentials(own_nats_server.credentials_file)
        person = await nats.connect(own_nats_server.url, user=user, password=password)
        await person.subscribe("dtf.default.live.>", cb=heard.receive)
        await person.flush()
        await log.head()
        await writer.commit(run_created("7f3k"))
        assert (await heard.next())[1]["run"] == "7f3k"
        running.cancel()
        await person.close()
    await source.close()
    await log.close()
