"""A replay with a second process ends where the one without it does, whatever is in the log and becomes of the process."""

import asyncio
import hashlib
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.adapters.preparation_process import LocalPreparation, local_preparation
from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2
from dtf.coordinator import recovery
from dtf.coordinator.prepared_replay import PART_MESSAGES, PreparedReplay
from dtf.coordinator.recovery import Fold, fold, restore
from dtf.core.chain import ChainBroken, ChainReader, LogTooNew
from dtf.core.preparation import Preparer
from dtf.core.run.state_hash import state_hash
from dtf.ports.event_log import StoredCommit
from dtf.ports.preparation import PreparationFailed
from tests.unit.test_recovery_bench_log import built

STREAMS = Path(__file__).parents[1] / "streams"
RECORDED = sorted([*STREAMS.glob("*/events.dtfstream"), *STREAMS.glob("releases/*/*.dtfstream")])


@dataclass(slots=True)
class Inside:
    """The PreparationProcess port without a process."""

    preparer: Preparer = field(default_factory=Preparer)
    answers: deque[bytes] = field(default_factory=deque)
    ready_after: int = 0
    """Looks at `is_ready` until it is."""
    spoil: Callable[[int, bytes], bytes] = lambda _, answer: answer
    """Makes of an answer, by its number from 0, what is received."""
    received: int = 0
    is_closed: bool = False

    async def start(self) -> None:
        """Nothing begins."""

    @property
    def is_ready(self) -> bool:
        self.ready_after -= 1
        return self.ready_after < 0

    def send(self, request: bytes) -> None:
        answer = self.preparer.answer(request)
        if answer:
            self.answers.append(answer)

    @property
    def has_answer(self) -> bool:
        return len(self.answers) > 3

    async def receive(self) -> bytes:
        self.received += 1
        return self.spoil(self.received - 1, self.answers.popleft())

    async def close(self) -> None:
        self.is_closed = True


_LOGS: dict[bool, list[StoredCommit]] = {}


async def log_of(*, is_mixed: bool) -> list[StoredCommit]:
    """A log of the benchmark: some 350 commits mixed, or thousands of one event each; the list is the caller's."""
    if is_mixed not in _LOGS:
        _, _LOGS[is_mixed] = await built(is_mixed=is_mixed)
    return list(_LOGS[is_mixed])


def alone(messages: Sequence[StoredCommit]) -> Fold:
    """The fold without help."""
    into = Fold()
    for stored in messages:
        fold(into.state, into.chain, stored)
    return into


async def helped(
    messages: Sequence[StoredCommit], process: Inside | LocalPreparation, batch: int = 100
) -> tuple[Fold, int]:
    """The fold with help, and how many messages came prepared."""
    into = Fold()
    async with PreparedReplay(into.state, into.chain, fold, process) as replay:
        for start in range(0, len(messages), batch):
            await replay.fold(messages[start : start + batch])
        await replay.finish()
    return into, replay.prepared_count


def assert_same(one: Fold, other: Fold) -> None:
    for item in fields(ChainReader):
        assert getattr(one.chain, item.name) == getattr(other.chain, item.name), item.name
    assert one.state == other.state
    assert state_hash(one.state) == state_hash(other.state)


def altered(stored: StoredCommit, change: Callable[[events_pb2.Commit], None]) -> StoredCommit:
    """A commit changed and stored under its own hash again."""
    commit = events_pb2.Commit.FromString(stored.payload)
    change(commit)
    payload = commit.SerializeToString()
    return StoredCommit(stored.sequence, payload, hashlib.sha256(payload).hexdigest(), stored.headers)


def with_strangers(messages: Sequence[StoredCommit]) -> list[StoredCommit]:
    """The same commits with what is no commit, and a commit of nobody's, between them."""
    fork = altered(messages[500], lambda commit: setattr(commit, "prev_hash", bytes(32)))
    found = [*messages[:300], StoredCommit(0, b"\xff\xff", "x", {}), *messages[300:800]]
    found += [fork, StoredCommit(0, b"", "", {}), *messages[800:]]
    return [StoredCommit(i, m.payload, m.message_id, m.headers) for i, m in enumerate(found, 1)]


@pytest.mark.parametrize("path", RECORDED, ids=[f"{path.parent.name}/{path.stem}" for path in RECORDED])
async def test_every_recorded_stream_is_folded_as_without_help(path: Path) -> None:
    with StreamFile(path) as stream:
        messages = list(stream)
    expected = Fold(chain=ChainReader(sequence=messages[0].sequence - 1))
    found = Fold(chain=ChainReader(sequence=messages[0].sequence - 1))
    for stored in messages:
        fold(expected.state, expected.chain, stored)
    async with PreparedReplay(found.state, found.chain, fold, Inside()) as replay:
        await replay.fold(messages)
        await replay.finish()
    assert replay.prepared_count == len(messages)
    assert_same(found, expected)


@pytest.mark.parametrize("is_mixed", [True, False], ids=["mixed", "singles"])
async def test_help_that_comes_late_goes_on_from_where_the_fold_is(is_mixed: bool) -> None:
    messages = await log_of(is_mixed=is_mixed)
    process = Inside(ready_after=2)
    found, prepared = await helped(messages, process)
    assert prepared == len(messages) - 200
    assert process.is_closed
    assert_same(found, alone(messages))


async def test_strangers_messages_are_found_where_they_are() -> None:
    messages = await log_of(is_mixed=False)
    disturbed = with_strangers(messages)
    found, prepared = await helped(disturbed, Inside())
    assert len(disturbed) // 2 < prepared < len(disturbed) - 100
    assert found.chain.stranger_sequences == {301, 802, 803}
    assert_same(found, alone(disturbed))


async def test_a_fork_is_refused_in_the_same_words() -> None:
    messages = await log_of(is_mixed=False)
    disturbed = with_strangers(messages)
    stranger = disturbed[801]
    disturbed[900] = altered(
        disturbed[900], lambda commit: setattr(commit, "prev_hash", bytes.fromhex(stranger.message_id))
    )
    with pytest.raises(ChainBroken) as expected:
        alone(disturbed)
    with pytest.raises(ChainBroken) as refused:
        await helped(disturbed, Inside())
    assert str(refused.value) == str(expected.value)
    assert "forked" in str(refused.value)


async def test_a_log_of_a_later_version_is_refused_in_the_same_words() -> None:
    messages = await log_of(is_mixed=False)
    messages[400] = altered(messages[400], lambda commit: setattr(commit, "schema_version", 99))
    with pytest.raises(LogTooNew) as expected:
        alone(messages)
    process = Inside()
    with pytest.raises(LogTooNew) as refused:
        await helped(messages, process)
    assert str(refused.value) == str(expected.value)
    assert process.is_closed


async def test_a_gap_is_refused_in_the_same_words() -> None:
    messages = await log_of(is_mixed=False)
    del messages[400]
    with pytest.raises(ChainBroken) as expected:
        alone(messages)
    with pytest.raises(ChainBroken) as refused:
        await helped(messages, Inside())
    assert str(refused.value) == str(expected.value)


def gone(_: int, answer: bytes) -> bytes:
    raise PreparationFailed("it ended")


@pytest.mark.parametrize(
    "spoil",
    [gone, lambda _, answer: answer[:-1], lambda _, answer: b"\xc1", lambda _, answer: b""],
    ids=["gone", "cut", "nonsense", "empty"],
)
async def test_a_process_that_fails_is_done_without(spoil: Callable[[int, bytes], bytes]) -> None:
    messages = await log_of(is_mixed=False)
    process = Inside(spoil=lambda number, answer: spoil(number, answer) if number == 3 else answer)
    found, prepared = await helped(messages, process)
    assert prepared == 300
    assert_same(found, alone(messages))


async def test_answers_about_other_messages_are_not_folded() -> None:
    messages = await log_of(is_mixed=False)
    kept: list[bytes] = []

    def repeat(number: int, answer: bytes) -> bytes:
        kept.append(answer)
        return kept[0] if number == 2 else answer

    found, prepared = await helped(messages, Inside(spoil=repeat))
    assert prepared == 200
    assert_same(found, alone(messages))


class Refusing(Inside):
    """It cannot be started."""

    async def start(self) -> None:
        raise PreparationFailed("it cannot be started: no memory")


async def test_a_process_that_cannot_be_started_is_done_without() -> None:
    messages = await log_of(is_mixed=False)
    found, prepared = await helped(messages, Refusing())
    assert prepared == 0
    assert_same(found, alone(messages))


# -- the real process


async def test_the_real_process_prepares() -> None:
    messages = await log_of(is_mixed=False)
    process = LocalPreparation()
    found, prepared = await until_prepared(messages, process)
    assert prepared >= PART_MESSAGES
    assert process.process_id is None
    assert_same(found, alone(messages[: found.chain.sequence]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_real_process_may_end_or_stand_still_at_any_moment(number: signal.Signals) -> None:
    messages = await log_of(is_mixed=False)
    process = LocalPreparation()

    def strike() -> None:
        assert process.process_id is not None
        os.kill(process.process_id, number)
        process._answer_seconds = 1.0  # until then it may be slow

    found, prepared = await until_prepared(messages, process, strike)
    assert PART_MESSAGES <= prepared < len(messages)
    assert found.chain.sequence == len(messages)
    assert_same(found, alone(messages))


async def until_prepared(
    messages: Sequence[StoredCommit], process: LocalPreparation, strike: Callable[[], None] = lambda: None
) -> tuple[Fold, int]:
    """A fold that begins when the process is ready; `strike` comes with the first prepared messages."""
    into, is_struck = Fold(), False
    async with PreparedReplay(into.state, into.chain, fold, process) as replay:
        while not process.is_ready:
            await asyncio.to_thread(int)  # a turn of the loop
        for start in range(0, len(messages), PART_MESSAGES):
            await replay.fold(messages[start : start + PART_MESSAGES])
            if not is_struck and start >= PART_MESSAGES:
                await replay.finish()
                strike()
                is_struck = True
        await replay.finish()
    return into, replay.prepared_count


async def test_a_program_that_is_not_there_is_done_without(tmp_path: Path) -> None:
    messages = await log_of(is_mixed=False)
    found, prepared = await helped(messages, LocalPreparation([str(tmp_path / "none")]))
    assert prepared == 0
    assert_same(found, alone(messages))


@pytest.mark.parametrize(("processors", "is_helped"), [({3}, False), ({0, 3}, True)], ids=["one", "two"])
def test_who_has_one_processor_goes_without(
    processors: set[int], is_helped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert (local_preparation() is not None) is is_helped


class Watched(Inside):
    """Counts how often it was started."""

    starts = 0

    async def start(self) -> None:
        self.starts += 1


class SmallBatches(MemoryLog):
    """Hands out its messages a few at a time."""

    async def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        async with aclosing(super().read(after, until)) as batches:  # type: ignore[type-var]  # it is a generator
            async for batch in batches:
                for start in range(0, len(batch), 50):
                    yield batch[start : start + 50]


async def test_a_start_asks_for_help_with_a_long_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = await log_of(is_mixed=False)
    log, process = SmallBatches(), Watched()
    for stored in messages:
        log.inject(stored.payload, stored.message_id, stored.headers)
    short = Fold()
    await restore(log, [], None, short, process)
    assert process.starts == 0
    monkeypatch.setattr(recovery, "WORTHWHILE_MESSAGES", len(messages))
    long = Fold()
    await restore(log, [], None, long, process)
    assert (process.starts, process.is_closed) == (1, True)
    assert process.received > 0
    assert_same(long, short)
