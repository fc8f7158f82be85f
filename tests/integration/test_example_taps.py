"""The programs under examples/taps do what they say, with nothing of dtf but its log."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest_asyncio

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.live_feed import LiveFeed
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.core.events import parse_commit
from dtf.settings.model import NatsSettings
from tests.commits import CommitWriter, run_created, run_finished, worker_left
from tests.taps_rig import TAPS, Tapped, descriptors, nats_command, node_program, tapped
from tests.taps_rig import running as program


@contextmanager
def running(program: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(TAPS / program), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line_of(stream: object) -> str:
    async with asyncio.timeout(80):
        return str(await asyncio.to_thread(stream.readline))  # type: ignore[attr-defined]


async def test_failures_prints_the_live_feed_as_it_comes(
    event_log: JetStreamLog, nats_server: NatsServer, nats_settings: NatsSettings, namespace: str
) -> None:
    source = await JetStreamLog.attach(nats_settings, namespace, SystemClock())
    feed, writer = LiveFeed(source, nats_settings, namespace, SystemClock()), CommitWriter(event_log)
    subject = f"dtf.{namespace}.live.*.RunFinished"
    with running("failures.py", nats_server.url, str(nats_server.credentials_file), subject) as process:
        assert await line_of(process.stderr) == "listening\n"
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(feed.run(after=0))
            await writer.commit(run_created("7f3k"), worker_left("w-1"))
            await writer.commit(run_finished("7f3k"))
            expected = '2001-09-09T01:46:42.000000Z 7f3k RunFinished {"run_id": "7f3k"}\n'
            assert await line_of(process.stdout) == expected
            feeding.cancel()
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 90) == 0
    await source.close()


async def test_archive_copies_every_commit_and_goes_on_where_it_stopped(
    event_log: JetStreamLog, nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    arguments = (nats_server.url, str(nats_server.credentials_file), namespace, str(tmp_path))
    writer = CommitWriter(event_log)
    await writer.commit(run_created("7f3k"))
    await writer.commit(worker_left("w-1"), worker_left("w-2"))
    with running("archive.py", *arguments) as process:
        assert (await line_of(process.stdout)).split()[:2] == ["1", "RunCreated"]
        assert (await line_of(process.stdout)).split()[:2] == ["2", "WorkerLeft"]
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 90) == 0
    await writer.commit(run_finished("7f3k"))
    with running("archive.py", *arguments) as process:
        assert (await line_of(process.stdout)).split()[:2] == ["3", "RunFinished"]
    stored = [commit async for batch in event_log.read(0) for commit in batch]
    assert contents(tmp_path) == [commit.payload for commit in stored]
    assert all(parse_commit(commit.payload, commit.message_id) is not None for commit in stored)


async def test_archive_of_one_type_passes_over_the_rest_by_its_header(
    event_log: JetStreamLog, nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    credentials = str(nats_server.tap_credentials_file)
    arguments = (nats_server.url, credentials, namespace, str(tmp_path), "RunFinished")
    writer = CommitWriter(event_log)
    await writer.commit(run_created("7f3k"))
    await writer.commit(worker_left("w-1"), run_finished("7f3k"))
    with running("archive.py", *arguments) as process:
        assert (await line_of(process.stdout)).split()[:2] == ["2", "RunFinished,WorkerLeft"]
    stored = [commit async for batch in event_log.read(0) for commit in batch]
    assert contents(tmp_path) == [stored[1].payload]


async def test_the_nats_command_follows_the_live_feed(
    event_log: JetStreamLog, nats_server: NatsServer, nats_settings: NatsSettings, namespace: str
) -> None:
    nats = nats_command()
    subject = f"dtf.{namespace}.live.*.RunFinished"
    command = ["sh", str(TAPS / "nats.sh"), nats_server.url, str(nats_server.tap_credentials_file)]
    writer = CommitWriter(event_log)
    async with program([*command, "live", subject], NATS=nats) as tap, feeding(nats_settings, namespace):
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(tap.line())
            number = 0
            while not heard.done():  # it does not say when it listens
                number += 1
                await writer.commit(run_finished(f"run{number}"))
                await asyncio.wait([heard], timeout=0.2)
        line = json.loads(heard.result())
        assert (line["type"], line["event"]["run_id"][:3]) == ("RunFinished", "run")


async def test_the_nats_command_reads_the_log_and_goes_on_where_it_stopped(
    event_log: JetStreamLog, nats_server: NatsServer, namespace: str
) -> None:
    nats = nats_command()
    command = ["sh", str(TAPS / "nats.sh"), nats_server.url, str(nats_server.tap_credentials_file)]
    writer = CommitWriter(event_log)
    await writer.commit(run_created("7f3k"))
    await writer.commit(worker_left("w-1"))
    await writer.commit(run_finished("7f3k"))
    stored = [commit async for batch in event_log.read(0) for commit in batch]
    for count, expected in ((2, stored[:2]), (1, stored[2:])):
        async with program([*command, "next", namespace, str(count)], NATS=nats) as tap:
            output = (await tap.process.stdout.read()).decode() if tap.process.stdout else ""
            assert await tap.ended() == 0
        lines = [line.strip() for line in output.splitlines()]
        assert [line for line in lines if line.startswith("str seq")] == [
            f"str seq: {commit.sequence}" for commit in expected
        ]
        assert [line.removeprefix("Nats-Msg-Id: ") for line in lines if line.startswith("Nats-Msg-Id")] == [
            commit.message_id for commit in expected
        ]


@pytest_asyncio.fixture
async def with_websocket(tmp_path: Path) -> AsyncIterator[Tapped]:
    server = NatsServer(tmp_path / "store", tmp_path / "secrets" / "nats", has_websocket=True)
    await server.start()
    async with tapped(server, "default") as found:
        yield found
    await server.stop()


async def test_javascript_prints_the_live_feed_over_a_websocket(
    with_websocket: Tapped, tmp_path: Path
) -> None:
    command = node_program("failures.js", tmp_path)
    broker, writer = with_websocket.server, CommitWriter(with_websocket.log)
    arguments = [broker.websocket_url, with_websocket.tap_credentials, "dtf.default.live.*.RunFinished"]
    async with program([*command, *arguments]) as tap, feeding(with_websocket.settings, "default"):
        assert await tap.word() == "listening"
        await writer.commit(run_created("7f3k"), run_finished("7f3k"))
        assert await tap.line() == '2001-09-09T01:46:41.000000Z 7f3k RunFinished {"run_id":"7f3k"}'
        tap.process.send_signal(signal.SIGINT)
        assert await tap.ended() == 0


async def test_javascript_reads_the_log_by_header_and_goes_on_where_it_stopped(
    with_websocket: Tapped, tmp_path: Path
) -> None:
    command = node_program("commits.js", tmp_path)
    broker, writer = with_websocket.server, CommitWriter(with_websocket.log)
    arguments = [broker.websocket_url, with_websocket.tap_credentials, "default", str(descriptors(tmp_path))]
    await writer.commit(run_finished("7f3k"))
    await writer.commit(worker_left("w-1"))
    async with program([*command, *arguments, "RunFinished"]) as tap:
        assert json.loads(await tap.line())["sequence"] == 1
        await writer.commit(run_finished("8abc"))
        assert json.loads(await tap.line())["sequence"] == 3
        tap.process.send_signal(signal.SIGINT)
        assert await tap.ended() == 0
    await writer.commit(run_finished("9xyz"))
    async with program([*command, *arguments, "RunFinished"]) as tap:
        line = json.loads(await tap.line())
    assert (line["sequence"], line["event"]) == (4, {"run_finished": {"run_id": "9xyz"}})


@asynccontextmanager
async def feeding(settings: NatsSettings, namespace: str) -> AsyncIterator[None]:
    """The live feed of a namespace, as the resource manager runs it."""
    source = await JetStreamLog.attach(settings, namespace, SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(LiveFeed(source, settings, namespace, SystemClock()).run(after=0))
        yield
        task.cancel()
    await source.close()


def contents(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(directory.glob("*.commit"))]
