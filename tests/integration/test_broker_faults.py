"""Faults of the broker: what was acknowledged stays, what was not is told, and the log goes on."""

import asyncio
import hashlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from dtf.adapters.jetstream_log import JetStreamLog, event_stream_config
from dtf.adapters.nats_connection import NatsConnection
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import LogError, LogHead, LogMismatch, LogUnavailable, StoredCommit
from dtf.ports.subjects import event_stream
from dtf.settings.model import NatsSettings

IN_FLIGHT = 16


@pytest.fixture
def settings(own_nats_server: NatsServer) -> NatsSettings:
    return NatsSettings(
        url=own_nats_server.url,
        credentials_file=str(own_nats_server.credentials_file),
        max_log_bytes=2**28,
        append_timeout_seconds=60.0,
    )


@pytest_asyncio.fixture
async def log(settings: NatsSettings) -> AsyncIterator[JetStreamLog]:
    opened = await JetStreamLog.open(settings, "default", SystemClock())
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def hasty_log(log: JetStreamLog, settings: NatsSettings) -> AsyncIterator[JetStreamLog]:
    """The same, for who waits no longer than two seconds."""
    hasty = replace(settings, append_timeout_seconds=2.0)
    attached = await JetStreamLog.attach(hasty, "default", SystemClock())
    yield attached
    await attached.close()


class Chain:
    """A writer of one chain, which knows what it was told is durable."""

    def __init__(self, log: JetStreamLog) -> None:
        self.log = log
        self.payloads: list[bytes] = []
        self.acknowledged = 0

    def send(self, payload: bytes) -> asyncio.Future[int]:
        previous = digest(self.payloads[-1]) if self.payloads else ""
        self.payloads.append(payload)
        return self.log.append(
            payload,
            message_id=digest(payload),
            previous_message_id=previous,
            expected_last_sequence=None,
            headers={},
        )

    async def write_until_it_fails(self) -> LogError:
        """Keep a pipeline full until something is refused."""
        in_flight: list[asyncio.Future[int]] = []
        while True:
            in_flight.append(self.send(b"commit %d" % len(self.payloads)))
            if len(in_flight) == IN_FLIGHT:
                try:
                    self.acknowledged = await in_flight.pop(0)
                except LogError as error:
                    return error

    async def recover(self) -> LogHead:
        """Read back, and forget what did not land."""
        head = await self.log.head()
        assert self.acknowledged <= head.last_sequence <= len(self.payloads)
        assert head.last_message_id == digest(self.payloads[head.last_sequence - 1])
        del self.payloads[head.last_sequence :]
        self.acknowledged = head.last_sequence
        return head


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


async def collect(batches: AsyncIterator[Sequence[StoredCommit]], until: bytes) -> list[bytes]:
    found: list[bytes] = []
    async with aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches:
        async for batch in open_batches:
            found.extend(commit.payload for commit in batch)
            if found[-1] == until:
                break
    return found


async def test_kill_9_of_the_broker_with_appends_in_flight_loses_nothing_acknowledged(
    own_nats_server: NatsServer, settings: NatsSettings, log: JetStreamLog
) -> None:
    chain = Chain(log)
    follower = await JetStreamLog.attach(settings, "default", SystemClock())
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        followed = group.create_task(collect(follower.follow(0), b"the end"))
        for _ in range(3):
            before = chain.acknowledged
            writing = group.create_task(chain.write_until_it_fails())
            await reached(follower, before + 100)
            own_nats_server.signal_server(signal.SIGKILL)
            assert isinstance(await writing, LogUnavailable)
            await own_nats_server.wait()
            with pytest.raises(LogUnavailable, match="not connected"):
                await log.append(
                    b"never",
                    message_id="never",
                    previous_message_id=None,
                    expected_last_sequence=None,
                    headers={},
                )
            await own_nats_server.start()
            await chain.recover()
        await chain.send(b"the end")
    stored = [commit.payload async for batch in log.read(0) for commit in batch]
    assert stored == chain.payloads
    assert followed.result() == stored
    await follower.close()


async def reached(log: JetStreamLog, sequence: int) -> None:
    """Return when the log has grown to `sequence`."""
    async with aclosing(
        cast(AsyncGenerator[Sequence[StoredCommit], None], log.follow(sequence - 1))
    ) as batches:
        async for _ in batches:
            return


async def stopped(process_id: int) -> None:
    """Return when every thread of it stands still: SIGSTOP is sent at once, but obeyed thread by thread."""
    async with asyncio.timeout(90):
        while any(
            " (nats-server) T" not in line for line in await asyncio.to_thread(thread_states, process_id)
        ):
            pass


def thread_states(process_id: int) -> list[str]:
    """What the kernel says of each of its threads."""
    found = []
    for path in Path(f"/proc/{process_id}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it may end before it stands still
            found.append(path.read_text())
    return found


async def test_what_a_frozen_broker_was_sent_lands_when_it_thaws_and_is_read_back(
    own_nats_server: NatsServer, log: JetStreamLog, hasty_log: JetStreamLog
) -> None:
    chain = Chain(log)
    await chain.send(b"one")
    chain.log = hasty_log
    own_nats_server.signal_server(signal.SIGSTOP)
    await stopped(own_nats_server.server_pid)
    try:
        with pytest.raises(LogUnavailable, match="did not answer within 2 s"):
            await chain.send(b"two")
    finally:
        own_nats_server.signal_server(signal.SIGCONT)
    chain.log = log
    # What was sent to it while it was frozen lands now: the writer reads back rather than guess.
    async with asyncio.timeout(90):
        await reached(log, 2)
    assert (await chain.recover()).last_sequence == 2
    assert await chain.send(b"three") == 3


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("max_bytes", 1_000_000, "max_bytes is 1000000, expected"),
        ("discard", "old", "discard is 'old', expected 'new'"),
        ("deny_delete", False, "deny_delete is False, expected True"),
        ("max_age", 10**15, "max_age is 1000000000000000, expected 0"),
    ],
)
async def test_a_stream_that_is_configured_otherwise_is_refused_and_left_alone(
    own_nats_server: NatsServer, settings: NatsSettings, setting: str, value: object, said: str
) -> None:
    connection = NatsConnection(settings, name="operator")
    config = {**event_stream_config(settings, "default"), setting: value}
    await connection.request(f"$JS.API.STREAM.CREATE.{event_stream('default')}", config)
    with pytest.raises(LogMismatch, match=said):
        await JetStreamLog.open(settings, "default", SystemClock())
    found = await connection.request(f"$JS.API.STREAM.INFO.{event_stream('default')}")
    assert found["config"][setting] == value
    await connection.close()


async def test_a_purged_beginning_is_not_passed_over_in_silence(
    settings: NatsSettings, log: JetStreamLog
) -> None:
    chain = Chain(log)
    for number in range(10):
        await chain.send(b"%d" % number)
    connection = NatsConnection(settings, name="operator")
    await connection.request(f"$JS.API.STREAM.PURGE.{event_stream('default')}", {"seq": 6})
    await connection.close()
    for batches in (log.read(0), log.follow(3)):
        with pytest.raises(LogMismatch, match=r"has no messages \d to 5: they were purged or lost"):
            await collect(batches, b"9")
    assert await collect(log.read(5), b"9") == [b"5", b"6", b"7", b"8", b"9"]
    assert (await log.head()).first_sequence == 6


async def test_a_tap_of_a_namespace_nobody_serves_is_told_so(settings: NatsSettings) -> None:
    with pytest.raises(LogMismatch, match="there is no stream DTF_EVENTS_nobody"):
        await JetStreamLog.attach(settings, "nobody", SystemClock())


async def test_a_server_without_room_for_the_stream_says_so(settings: NatsSettings) -> None:
    with pytest.raises(LogError, match="has no room left for stream"):
        await JetStreamLog.open(replace(settings, max_log_bytes=2**60), "large", SystemClock())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of 96 MB, all but 3 MB of it in use."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this user may mount nothing")
    (directory / "filler").write_bytes(b"x" * 93 * 2**20)
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_a_full_disk_loses_nothing_and_the_log_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    server = NatsServer(small_disk / "nats", tmp_path / "secrets" / "nats", log_file=tmp_path / "nats.log")
    await server.start()
    settings = NatsSettings(
        url=server.url, credentials_file=str(server.credentials_file), append_timeout_seconds=5.0
    )
    log = await JetStreamLog.open(settings, "default", SystemClock())
    chain = Chain(log)
    with pytest.raises(LogUnavailable, match="its disk is full or failing"):
        for _ in range(100):
            chain.acknowledged = await chain.send(os.urandom(100_000))
    await chain.recover()
    assert chain.acknowledged > 5

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ended = group.create_task(server.wait())
        (small_disk / "filler").unlink()
        await ended
    assert "no space left on device" in server.storage_fault
    await server.start()
    await chain.recover()
    assert await chain.send(b"there is room") == chain.acknowledged + 1
    assert [commit.payload async for batch in log.read(0) for commit in batch] == chain.payloads
    await log.close()
    await server.stop()
