"""The writer against a log that fails as real ones do."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2
from dtf.coordinator.commit_cutter import MAX_COMMIT_BYTES
from dtf.coordinator.commits import Outcome, PendingCommit, Step
from dtf.coordinator.pipeline import Deposed, LogDisturbed, LogTailLost, WriterStopped
from dtf.coordinator.reign import MAX_ELECTIONS, begin_reign, replay
from dtf.coordinator.writer import Writer, WriterLimits
from dtf.core.chain import ChainBroken, ChainReader
from dtf.core.run.commands import CancelRun, Command, CreateRun, NotFound, SubmitTasks
from dtf.core.run.state import State
from dtf.core.run.state_hash import state_hash
from dtf.rpc.errors import LogFullRefusal, LogUnavailableRefusal, NotLeading
from tests.coordinators import create_request, tasks
from tests.fakes import FakeClock

NO_TIME = 90.0
"""Seconds that turn a hang into a failure."""


@dataclass(slots=True)
class Recorder:
    """A listener that notes what is durable."""

    commits: list[PendingCommit] = field(default_factory=list)
    follow_ups: list[Command] = field(default_factory=list)

    def follow_up(self) -> Command | None:
        return self.follow_ups.pop(0) if self.follow_ups else None

    def decided(self, step: Step) -> None:
        pass

    def idle(self) -> None:
        pass

    def durable(self, commit: PendingCommit) -> None:
        self.commits.append(commit)


@dataclass(slots=True)
class Reigning:
    """A writer that leads, and what ended it."""

    writer: Writer
    log: MemoryLog
    clock: FakeClock
    recorder: Recorder
    ended: "asyncio.Future[WriterStopped]"

    async def end(self) -> WriterStopped:
        async with asyncio.timeout(NO_TIME):
            return await self.ended


@asynccontextmanager
async def reigning(
    log: MemoryLog, clock: FakeClock, limits: WriterLimits | None = None
) -> AsyncIterator[Reigning]:
    """A writer elected on the log, with its recovery running."""
    reign = await begin_reign(
        log, clock, leader="test", lease_seconds=10, nonce=secrets.token_bytes(8), code_version="test"
    )
    recorder = Recorder()
    writer = Writer(
        log,
        clock,
        reign.state,
        reign.chain,
        nonce=secrets.token_bytes(8),
        code_version="test",
        limits=limits or WriterLimits(),
        listener=recorder,
    )
    ended: asyncio.Future[WriterStopped] = asyncio.get_running_loop().create_future()

    async def run(part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except WriterStopped as error:
            ended.set_result(error)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(part)) for part in (writer.run(), writer.watch())]
        yield Reigning(writer, log, clock, recorder, ended)
        for task in running:
            task.cancel()
    await assert_replays_to(log, writer.state if not writer.is_stalled else None)


async def assert_replays_to(log: MemoryLog, state: State | None) -> None:
    """The log is one chain, and folding it gives the state the writer has."""
    folded, chain = State(), ChainReader()
    try:
        await replay(log, folded, chain)
    except Exception:
        if state is not None:
            raise
        return
    if state is not None:
        assert state_hash(folded) == state_hash(state)


async def turns(count: int = 10) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


async def outcome_of(future: "asyncio.Future[Outcome]") -> Outcome:
    async with asyncio.timeout(NO_TIME):
        return await future


def create(request_id: str = "a") -> CreateRun:
    return CreateRun(f"run-{request_id}", create_request(request_id))


def submit(batch: int, count: int = 1, name: str = "t") -> SubmitTasks:
    return SubmitTasks(
        run_service_pb2.SubmitTasksRequest(run_id="run-a", batch=batch, tasks=tasks(count, name))
    )


async def test_nothing_is_told_before_its_commit_is_acknowledged(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        log.hold_acknowledgements()
        created = given.writer.begin(create())
        await turns()
        assert "run-a" in given.writer.state.runs, "decided ahead of its durability"
        refused = given.writer.begin(CancelRun("run-b", "me", ""))
        async with asyncio.TaskGroup() as group:
            settled = group.create_task(given.writer.settled())
            await turns()
            assert not created.done()
            assert not refused.done(), "a refusal rests on state that is not durable"
            assert not settled.done()
            assert given.recorder.commits == []
            log.release_acknowledgements()
        assert (await outcome_of(created)).sequence == 2
        assert isinstance((await outcome_of(refused)).error, NotFound)


async def test_at_low_load_a_commit_holds_one_event(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        await given.writer.submit(submit(1))
        await given.writer.submit(submit(2))
        assert [len(commit.events) for commit in given.recorder.commits] == [1, 1, 1]


async def test_what_comes_while_a_commit_is_in_flight_is_committed_together(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        log.hold_acknowledgements()
        first = given.writer.begin(create())
        await turns()
        rest = [given.writer.begin(submit(batch)) for batch in range(1, 51)]
        await turns()
        assert given.writer.in_flight_count == 1
        log.release_acknowledgements()
        outcomes = [await outcome_of(future) for future in (first, *rest)]
        assert [len(commit.events) for commit in given.recorder.commits] == [1, 50]
        assert {outcome.sequence for outcome in outcomes[1:]} == {3}


async def test_full_commits_are_pipelined_up_to_the_limit(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock, WriterLimits(max_commit_bytes=1000, max_in_flight=4)) as given:
        await given.writer.submit(create())
        log.hold_acknowledgements()
        futures = [given.writer.begin(submit(batch, 20, "x" * 40), weight=1000) for batch in range(1, 11)]
        await turns(30)
        assert given.writer.in_flight_count == 4
        log.release_acknowledgements()
        for future in futures:
            assert (await outcome_of(future)).error is None
        chain = ChainReader()
        for stored in log.commits:
            assert chain.accept(stored.sequence, stored.payload, stored.message_id) is not None


async def test_a_step_too_large_for_the_broker_is_spread_and_told_once(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        name = "n" * 4000
        big = [given.writer.begin(submit(batch, 150, name)) for batch in (1, 2, 3)]
        outcomes = [await outcome_of(future) for future in big]
        assert [outcome.error for outcome in outcomes] == [None] * 3
        assert all(len(stored.payload) < 2**20 for stored in log.commits)
        for batch in (1, 2, 3):
            holders = {
                commit.sequence
                for commit in given.recorder.commits
                for event in commit.events
                if event.tasks_submitted.batch == batch
            }
            assert len(holders) == 1, "a batch that fits into a commit lands in one"
        assert MAX_COMMIT_BYTES < 2**20


async def test_an_append_that_landed_unacknowledged_is_acknowledged_after_read_back(
    clock: FakeClock,
) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        log.hold_acknowledgements()
        created = given.writer.begin(create())
        await turns()
        log.disconnect()
        log.reconnect()
        assert (await outcome_of(created)).sequence == 2
        assert len(log.commits) == 2, "nothing was sent twice"


async def test_an_append_that_never_landed_is_sent_again(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        log.disconnect()
        created = given.writer.begin(create())
        while not given.writer.is_stalled:
            await turns(1)
        log.reconnect()
        outcome = await outcome_of(created)
        assert (outcome.error, outcome.sequence) == (None, 2)
        await given.writer.submit(create("b"))
        assert sorted(given.writer.state.runs) == ["run-a", "run-b"]


async def test_callers_are_told_while_the_log_is_silent_and_served_when_it_heals(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        log.disconnect()
        created = given.writer.begin(create())
        await turns()
        await clock.advance(1)
        outcome = await outcome_of(created)
        assert isinstance(outcome.error, LogUnavailableRefusal)
        assert isinstance((await outcome_of(given.writer.begin(create("b")))).error, LogUnavailableRefusal)
        with pytest.raises(LogUnavailableRefusal):
            await given.writer.settled()
        log.reconnect()
        await clock.advance(5)
        assert given.writer.refusing is None
        again = await given.writer.submit(create())
        assert again.events == [], "the first try landed after all; the second one repeats it"


async def test_a_full_log_refuses_with_its_reason_keeps_reports_and_goes_on_when_room_is_made(
    clock: FakeClock,
) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        log.set_max_bytes(1)
        submitted = given.writer.begin(submit(1))
        assert isinstance((await outcome_of(submitted)).error, LogFullRefusal)
        assert given.writer.refusing is not None
        assert "reached its" in given.writer.refusing.message
        patient: list[Outcome] = []
        given.writer.post(submit(2), patient.append)
        await clock.advance(3)
        assert patient == [], "what a worker reported waits"
        log.set_max_bytes(2**30)
        await clock.advance(5)
        assert given.writer.refusing is None
        assert [outcome.error for outcome in patient] == [None]


async def test_a_newer_leader_deposes_and_nothing_of_the_old_one_lands(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        async with reigning(log, clock) as newer:
            late = given.writer.begin(create("late"))
            assert isinstance(await given.end(), Deposed)
            assert isinstance((await outcome_of(late)).error, NotLeading)
            with pytest.raises(NotLeading):
                await given.writer.submit(create("later"))
            await newer.writer.submit(create("b"))
            assert sorted(newer.writer.state.runs) == ["run-a", "run-b"]


async def test_an_idle_writer_learns_that_it_was_deposed(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await clock.advance(5)
        assert not given.ended.done(), "nobody else leads"
        async with reigning(log, clock) as newer:
            await clock.advance(5)
            assert isinstance(await given.end(), Deposed)
            assert given.writer.is_stalled
            await newer.writer.submit(create())
        log.disconnect()
        await clock.advance(5)
        log.reconnect()


async def test_pipelined_commits_behind_a_stranger_all_fail(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock, WriterLimits(max_commit_bytes=100)) as given:
        await given.writer.submit(create())
        log.inject(b"not a commit")
        futures = [given.writer.begin(submit(batch), weight=100) for batch in range(1, 6)]
        assert isinstance(await given.end(), LogDisturbed)
        for future in futures:
            assert isinstance((await outcome_of(future)).error, NotLeading)
        assert len(log.commits) == 3
    async with reigning(log, clock) as next_reign:
        assert next_reign.writer.epoch == 2
        assert sorted(next_reign.writer.state.runs) == ["run-a"]
        await next_reign.writer.submit(submit(1))


async def test_a_log_that_lost_its_tail_stops_the_writer(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        log._messages.items.pop()
        lost = given.writer.begin(submit(1))
        error = await given.end()
        assert isinstance(error, LogTailLost)
        assert "ends at 1 but 2 was acknowledged" in str(error)
        assert isinstance((await outcome_of(lost)).error, NotLeading)


async def test_time_rises_with_every_commit_and_never_falls_behind_the_log() -> None:
    log = MemoryLog()
    late = FakeClock(now_ns=2_000_000_000_000_000_000)
    async with reigning(log, late) as given:
        await given.writer.submit(create())
    early = FakeClock(now_ns=1_000_000_000_000_000_000)
    async with reigning(log, early) as given:
        await given.writer.submit(submit(1))
    stamps = [events_pb2.Commit.FromString(stored.payload).now_unix_nanos for stored in log.commits]
    assert stamps == sorted(set(stamps))
    assert [events_pb2.Commit.FromString(stored.payload).epoch for stored in log.commits] == [1, 1, 2, 2]


async def test_a_gap_or_a_fork_in_the_log_is_refused_at_the_start(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        await given.writer.submit(submit(1))
    broken = MemoryLog()
    for stored in log.commits[1:]:
        broken.inject(stored.payload, stored.message_id)
    with pytest.raises(ChainBroken, match="forked"):
        await replay(broken, State(), ChainReader())
    chain = ChainReader()
    last = log.commits[-1]
    with pytest.raises(ChainBroken, match="no message 1"):
        chain.accept(last.sequence, last.payload, last.message_id)


async def test_an_election_against_a_log_that_others_keep_writing_to_gives_up(clock: FakeClock) -> None:
    class Busy(MemoryLog):
        def append(self, payload: bytes, **fences: object) -> "asyncio.Future[int]":
            self.inject(b"someone else")
            return super().append(payload, **fences)  # type: ignore[arg-type]

    with pytest.raises(Deposed, match=f"{MAX_ELECTIONS} elections"):
        await begin_reign(Busy(), clock, leader="test", lease_seconds=1, nonce=bytes(8), code_version="test")


async def test_a_commit_says_which_commands_it_decided(clock: FakeClock) -> None:
    log = MemoryLog()
    async with reigning(log, clock) as given:
        await given.writer.submit(create())
        commit = events_pb2.Commit.FromString(log.commits[-1].payload)
        assert [(item.kind, item.event_count) for item in commit.inputs] == [("CreateRun", 1)]
        assert log.commits[-1].headers["Dtf-Runs"] == "run-a"
        assert log.commits[-1].headers["Dtf-Types"] == "RunCreated"
        assert commit.events[0].run_created.templates[0].callable == common_pb2.CallableSpec(
            function="module:function"
        )
