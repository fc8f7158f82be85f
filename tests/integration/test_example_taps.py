"""The programs under examples/taps do what they say, with nothing of dtf but its log."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.live_feed import LiveFeed
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.core.events import parse_commit
from dtf.settings.model import NatsSettings
from tests.commits import CommitWriter, run_created, run_finished, worker_left

TAPS = Path(__file__).parents[2] / "examples" / "taps"


@contextmanager
def running(program: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(TAPS / program), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def line_of(stream: object) -> str:
    async with asyncio.timeout(30):
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
        assert await asyncio.to_thread(process.wait, 30) == 0
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
        assert await asyncio.to_thread(process.wait, 30) == 0
    await writer.commit(run_finished("7f3k"))
    with running("archive.py", *arguments) as process:
        assert (await line_of(process.stdout)).split()[:2] == ["3", "RunFinished"]
    stored = [commit async for batch in event_log.read(0) for commit in batch]
    assert contents(tmp_path) == [commit.payload for commit in stored]
    assert all(parse_commit(commit.payload, commit.message_id) is not None for commit in stored)


def contents(directory: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(directory.glob("*.commit"))]
