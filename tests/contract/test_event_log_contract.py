"""What every EventLog does, the one in memory and the one on JetStream alike."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.memory_log import MemoryLog
from dtf.adapters.nats_connection import NatsConnection
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import AppendConflict, EventLog, LogFull, LogHead, LogUnavailable, StoredCommit
from dtf.ports.subjects import event_subject
from dtf.settings.model import NatsSettings


@dataclass(slots=True)
class Rig:
    """A log and what a test can do to it from outside."""

    log: EventLog
    inject: Callable[[bytes, str], Awaitable[None]]
    """Store a message as a stranger would, without any fence."""


@pytest.fixture
def memory_rig() -> Rig:
    log = MemoryLog()

    async def inject(payload: bytes, message_id: str) -> None:
        log.inject(payload, message_id)

    return Rig(log, inject)


@pytest_asyncio.fixture
async def jetstream_rig(
    event_log: JetStreamLog, nats_settings: NatsSettings, namespace: str
) -> AsyncIterator[Rig]:
    stranger = NatsConnection(nats_settings, name="stranger")

    async def inject(payload: bytes, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id} if message_id else None
        await stranger.ask(event_subject(namespace), payload, headers)

    yield Rig(event_log, inject)
    await stranger.close()


@pytest.fixture
def archived_rig(jetstream_rig: Rig, namespace: str, tmp_path: Path) -> Rig:
    """A log with an archive that is still empty; tests/integration/test_log_archive.py has full ones."""
    return Rig(ArchivedLog(jetstream_rig.log, tmp_path, namespace), jetstream_rig.inject)


@pytest.fixture(params=["memory_rig", "jetstream_rig", "archived_rig"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return cast(Rig, request.getfixturevalue(request.param))


@pytest.fixture
def log(rig: Rig) -> EventLog:
    return rig.log


def digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def append(
    log: EventLog, payload: bytes, previous: str | None, expected: int | None = None
) -> asyncio.Future[int]:
    return log.append(
        payload,
        message_id=digest(payload),
        previous_message_id=previous,
        expected_last_sequence=expected,
        headers={"Dtf-Types": "RunCreated"},
    )


async def append_chain(log: EventLog, payloads: Sequence[bytes], previous: str) -> list[int]:
    futures = []
    for payload in payloads:
        futures.append(append(log, payload, previous))
        previous = digest(payload)
    return list(await asyncio.gather(*futures))


async def collect(batches: AsyncIterator[Sequence[StoredCommit]], wanted: int) -> list[StoredCommit]:
    found: list[StoredCommit] = []
    async with (
        asyncio.timeout(90),
        aclosing(cast(AsyncGenerator[Sequence[StoredCommit], None], batches)) as open_batches,
    ):
        async for batch in open_batches:
            found.extend(batch)
            if len(found) >= wanted:
                break
    return found


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert await log.head() == LogHead(0, "", 1)
    assert [batch async for batch in log.read(0)] == []


async def test_a_pipelined_chain_lands_in_order_and_reads_back_as_it_was(log: EventLog) -> None:
    payloads = [b"commit %d" % number for number in range(100)]
    assert await append_chain(log, payloads, "") == list(range(1, 101))
    assert await log.head() == LogHead(100, digest(payloads[-1]), 1)
    found = [commit async for batch in log.read(0) for commit in batch]
    assert [commit.payload for commit in found] == payloads
    assert [commit.sequence for commit in found] == list(range(1, 101))
    assert [commit.message_id for commit in found] == [digest(payload) for payload in payloads]
    assert all(commit.headers["Dtf-Types"] == "RunCreated" for commit in found)


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        pytest.param(digest(b"another"), None, id="the last commit is another"),
        pytest.param("", None, id="the log is not empty"),
        pytest.param(None, 5, id="the log is shorter"),
        pytest.param(digest(b"one"), 0, id="the commit is right and the sequence is not"),
    ],
)
async def test_a_fenced_append_to_another_place_conflicts(
    log: EventLog, previous: str | None, expected: int | None
) -> None:
    await append(log, b"one", "", 0)
    with pytest.raises(AppendConflict):
        await append(log, b"two", previous, expected)
    assert (await log.head()).last_sequence == 1


async def test_a_commit_that_landed_conflicts_with_itself(log: EventLog) -> None:
    await append(log, b"one", "", 0)
    for previous, expected in [("", 0), ("", None), (None, 0), (None, None)]:
        with pytest.raises(AppendConflict):
            await append(log, b"one", previous, expected)
    assert (await log.head()).last_sequence == 1


async def test_a_strangers_message_ends_a_pipelined_chain_for_good(rig: Rig) -> None:
    await append_chain(rig.log, [b"a", b"b"], "")
    await rig.inject(b"from somebody else", "stranger")
    previous, futures = digest(b"b"), []
    for payload in [b"c", b"d", b"e", b"f"]:
        futures.append(append(rig.log, payload, previous))
        previous = digest(payload)
    for future in futures:
        with pytest.raises(AppendConflict):
            await future
    assert await rig.log.head() == LogHead(3, "stranger", 1)


async def test_of_two_writers_that_pipeline_at_once_one_chain_lands_and_the_other_not_at_all(
    rig: Rig,
) -> None:
    await append(rig.log, b"root", "", 0)
    chains = {name: [b"%s %d" % (name, number) for number in range(16)] for name in (b"old", b"new")}
    previous = dict.fromkeys(chains, digest(b"root"))
    futures: dict[bytes, list[asyncio.Future[int]]] = {name: [] for name in chains}
    for number in range(16):
        for name, payloads in chains.items():
            futures[name].append(append(rig.log, payloads[number], previous[name]))
            previous[name] = digest(payloads[number])
    landed = {
        name: [
            not isinstance(result, BaseException)
            for result in await asyncio.gather(*all_, return_exceptions=True)
        ]
        for name, all_ in futures.items()
    }
    assert sorted(landed.values()) == [[False] * 16, [True] * 16]
    stored = [commit.payload async for batch in rig.log.read(0) for commit in batch]
    assert stored == [b"root", *chains[b"old" if landed[b"old"][0] else b"new"]]


async def test_a_message_of_a_stranger_without_an_id_is_read_as_it_is(rig: Rig) -> None:
    await append(rig.log, b"one", "", 0)
    await rig.inject(b"\xff\x00 no commit", "")
    assert await rig.log.head() == LogHead(2, "", 1)
    found = await collect(rig.log.read(1), 1)
    assert [(commit.sequence, commit.payload, commit.message_id) for commit in found] == [
        (2, b"\xff\x00 no commit", "")
    ]
    await append(rig.log, b"two", None, 2)
    assert (await rig.log.head()).last_message_id == digest(b"two")


async def test_a_part_is_read_between_two_sequences(log: EventLog) -> None:
    await append_chain(log, [b"%d" % number for number in range(1, 21)], "")
    found = [commit.sequence async for batch in log.read(5, 9) for commit in batch]
    assert found == [6, 7, 8, 9]
    assert [commit.sequence async for batch in log.read(18, 99) for commit in batch] == [19, 20]
    assert [batch async for batch in log.read(20)] == []


async def test_more_than_a_window_of_commits_is_read_whole(log: EventLog) -> None:
    payloads = [b"%d" % number for number in range(3000)]
    for start in range(0, 3000, 250):  # fewer at once than a busy disk takes in five seconds
        previous = digest(payloads[start - 1]) if start else ""
        await append_chain(log, payloads[start : start + 250], previous)
    found = [commit async for batch in log.read(0) for commit in batch]
    assert [commit.payload for commit in found] == payloads
    assert [commit.sequence for commit in await collect(log.follow(0), 3000)] == list(range(1, 3001))


async def test_a_closed_log_takes_nothing(log: EventLog) -> None:
    await log.close()
    with pytest.raises(LogUnavailable):
        await append(log, b"late", "", 0)
    with pytest.raises(LogUnavailable):
        await log.head()


async def test_follow_delivers_what_comes_later(log: EventLog) -> None:
    await append_chain(log, [b"a", b"b"], "")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(collect(log.follow(1), 3))
        await append_chain(log, [b"c", b"d"], digest(b"b"))
    assert [commit.payload for commit in following.result()] == [b"b", b"c", b"d"]


@pytest.mark.parametrize("kind", ["memory", "jetstream"])
async def test_a_full_log_refuses_and_keeps_what_it_has(
    kind: str, nats_settings: NatsSettings, namespace: str
) -> None:
    log: EventLog = (
        MemoryLog(max_bytes=20_000)
        if kind == "memory"
        else await JetStreamLog.open(replace(nats_settings, max_log_bytes=20_000), namespace, SystemClock())
    )
    previous, landed = "", 0
    with pytest.raises(LogFull):
        for number in range(100):
            payload = (b"%d" % number).ljust(1000)
            landed = await append(log, payload, previous)
            previous = digest(payload)
    assert 10 < landed < 20
    assert await log.head() == LogHead(landed, previous, 1)
    found = [commit.sequence async for batch in log.read(0) for commit in batch]
    assert found == list(range(1, landed + 1))
    await log.close()
