"""The writer and its spool: nothing leaves before both have a commit; a spool that takes nothing is said and waited for."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.coordinator.commits import PendingCommit, Step
from dtf.coordinator.pipeline import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS
from dtf.coordinator.reign import begin_reign
from dtf.coordinator.writer import Writer, WriterLimits
from dtf.core.run.commands import Command, CreateRun
from dtf.ports.spool import SpoolContents, SpooledCommit, SpoolError
from dtf.rpc.errors import LogFullRefusal, LogUnavailableRefusal
from tests.coordinators import create_request
from tests.fakes import FakeClock

NO_TIME = 90.0


@dataclass(slots=True)
class HandSpool:
    """A spool that forces to the disk when it is told to, or refuses."""

    description: str = "by hand"
    waiting: "list[tuple[SpooledCommit, asyncio.Future[None]]]" = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    is_holding: bool = False
    fault: str = ""

    async def read(self, after: int) -> SpoolContents:
        return SpoolContents((), (), ())

    def begin(self, writer: str) -> None:
        pass

    def write(self, commit: SpooledCommit) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.waiting.append((commit, future))
        if not self.is_holding:
            asyncio.get_running_loop().call_soon(self.force)
        return future

    def force(self) -> None:
        waiting, self.waiting = self.waiting, []
        for commit, future in waiting:
            if self.fault:
                future.set_exception(SpoolError(self.fault))
            else:
                self.kept.append(commit.sequence)
                future.set_result(None)

    def acknowledge(self, sequence: int, message_id: str) -> None:
        self.acknowledged.append(sequence)

    async def trim(self, through: int) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass(slots=True)
class Recorder:
    """Notes what was let out, and what the spool had noted by then."""

    spool: HandSpool
    durable_sequences: list[int] = field(default_factory=list)
    noted: list[int] = field(default_factory=list)

    def follow_up(self) -> Command | None:
        return None

    def decided(self, step: Step) -> None:
        pass

    def idle(self) -> None:
        pass

    def durable(self, commit: PendingCommit) -> None:
        self.durable_sequences.append(commit.sequence)
        self.noted.append(self.spool.acknowledged[-1])


@dataclass(slots=True)
class Leading:
    """A writer with a spool."""

    writer: Writer
    log: MemoryLog
    spool: HandSpool
    clock: FakeClock
    recorder: Recorder

    def create(self, number: int) -> "asyncio.Future[object]":
        return asyncio.ensure_future(
            self.writer.submit(CreateRun(f"r{number}", create_request(f"q{number}")))
        )


@asynccontextmanager
async def leading() -> AsyncIterator[Leading]:
    log, clock, spool = MemoryLog(), FakeClock(), HandSpool()
    reign = await begin_reign(
        log,
        clock,
        leader="test",
        lease_seconds=10,
        nonce=secrets.token_bytes(8),
        code_version="test",
        spool=spool,
    )
    recorder = Recorder(spool)
    writer = Writer(
        log,
        clock,
        reign.state,
        reign.chain,
        nonce=secrets.token_bytes(8),
        code_version="test",
        limits=WriterLimits(),
        listener=recorder,
        spool=spool,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        yield Leading(writer, log, spool, clock, recorder)
        running.cancel()


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


async def test_nothing_leaves_before_the_spool_has_it_although_the_log_does() -> None:
    async with leading() as site:
        site.spool.is_holding = True
        creating = site.create(1)
        await turns()
        assert len(site.log.commits) == 2 and not creating.done()
        assert site.recorder.durable_sequences == [] and site.spool.acknowledged == [1]
        site.spool.force()
        async with asyncio.timeout(NO_TIME):
            await creating
        assert site.recorder.durable_sequences == [2]


async def test_nothing_leaves_before_the_log_has_it_although_the_spool_does() -> None:
    async with leading() as site:
        site.log.hold_acknowledgements()
        creating = site.create(1)
        await turns()
        assert site.spool.kept == [1, 2] and not creating.done()
        site.log.release_acknowledgements()
        async with asyncio.timeout(NO_TIME):
            await creating


async def test_the_acknowledgement_is_noted_before_an_effect_leaves() -> None:
    async with leading() as site:
        async with asyncio.timeout(NO_TIME):
            for number in range(1, 4):
                await site.create(number)
        assert site.recorder.noted == site.recorder.durable_sequences == [2, 3, 4]


async def test_a_full_spool_refuses_with_its_cause_loses_nothing_and_goes_on_when_there_is_room() -> None:
    async with leading() as site:
        site.spool.fault = "no space left in the spool"
        creating = site.create(1)
        async with asyncio.timeout(NO_TIME):
            with pytest.raises(LogFullRefusal, match="no space left in the spool"):
                await creating
            with pytest.raises(LogFullRefusal, match="no space left in the spool"):
                await site.create(2)
        assert site.recorder.durable_sequences == []
        site.spool.fault = ""
        for _ in range(5):
            await turns()
            await site.clock.advance(FIRST_RETRY_SECONDS + LONGEST_RETRY_SECONDS)
        assert site.recorder.durable_sequences == [2]
        async with asyncio.timeout(NO_TIME):
            await site.create(2)
        assert site.recorder.durable_sequences == [2, 3] == site.spool.kept[1:]
        assert [stored.sequence for stored in site.log.commits] == [1, 2, 3]


async def test_a_spool_and_a_log_that_fail_at_once_lose_nothing_and_append_once() -> None:
    async with leading() as site:
        site.spool.fault = "no space left in the spool"
        site.log.disconnect()
        async with asyncio.timeout(NO_TIME):
            with pytest.raises(LogUnavailableRefusal):
                await site.create(1)
        site.log.reconnect()
        for _ in range(4):
            await turns()
            await site.clock.advance(LONGEST_RETRY_SECONDS)
        assert len(site.log.commits) == 2 and site.recorder.durable_sequences == []
        site.spool.fault = ""
        for _ in range(4):
            await turns()
            await site.clock.advance(LONGEST_RETRY_SECONDS)
        assert len(site.log.commits) == 2 and site.recorder.durable_sequences == [2]
