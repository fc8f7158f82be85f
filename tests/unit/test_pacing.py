"""What submits faster than the log accepts is paced: the client's room and the coordinator's intake."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest

from dtf.client.submission import Room
from dtf.coordinator.commits import Outcome
from dtf.coordinator.intake import Intake
from dtf.coordinator.writer import Writer
from dtf.core.run.commands import CancelRun, Command
from dtf.rpc.errors import Overloaded

COMMAND = CancelRun("run", "me", "why")


async def turns(count: int = 5) -> None:
    """Let other tasks run."""
    for _ in range(count):
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(turn.set_result, None)
        await turn


class HeldWriter:
    """A writer whose log acknowledges nothing until it is told to."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Outcome]] = []

    def begin(self, command: Command, *, weight: int) -> "asyncio.Future[Outcome]":
        """Keep a command."""
        self.begun.append(asyncio.get_running_loop().create_future())
        return self.begun[-1]

    def settle(self, index: int) -> None:
        """The log took it."""
        self.begun[index].set_result(Outcome(1, ()))


def intake_of(writer: HeldWriter, taken: int = 100, waiting: int = 50) -> Intake:
    return Intake(cast(Writer, writer), max_taken_bytes=taken, max_waiting_bytes=waiting)


async def test_a_command_waits_until_the_log_took_enough_of_those_before() -> None:
    writer = HeldWriter()
    intake = intake_of(writer)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(intake.submit(COMMAND, 40)) for _ in range(3)]
        await turns()
        assert len(writer.begun) == 2
        assert (intake.taken_bytes, intake.waiting_bytes) == (80, 40)
        writer.settle(0)
        await turns()
        assert len(writer.begun) == 3
        assert (intake.taken_bytes, intake.waiting_bytes) == (80, 0)
        writer.settle(1)
        writer.settle(2)
    assert all(task.result().sequence == 1 for task in tasks)
    assert intake.taken_bytes == 0


async def test_what_would_pile_up_is_refused_with_a_time_to_try_again() -> None:
    writer = HeldWriter()
    intake = intake_of(writer)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(intake.submit(COMMAND, 40))
        await turns()
        with pytest.raises(Overloaded) as refused:
            await intake.submit(COMMAND, 40)
        assert refused.value.retry_after_seconds > 0
        assert intake.refused_count == 1
        writer.settle(0)
        await turns()
        writer.settle(1)
        writer.settle(2)
    assert intake.taken_bytes == intake.waiting_bytes == 0


async def test_a_caller_that_goes_away_gives_back_what_it_held_only_when_the_log_has_it() -> None:
    writer = HeldWriter()
    intake = intake_of(writer)
    async with asyncio.TaskGroup() as group:
        taken = group.create_task(intake.submit(COMMAND, 90))
        waiting = group.create_task(intake.submit(COMMAND, 40))
        await turns()
        taken.cancel()
        waiting.cancel()
        await turns()
        assert (intake.taken_bytes, intake.waiting_bytes) == (90, 0), "the writer still has the command"
        writer.settle(0)
        await turns()
    assert intake.taken_bytes == 0


async def test_one_larger_than_all_the_room_passes_by_itself() -> None:
    writer = HeldWriter()
    intake = intake_of(writer)
    await intake.begin(COMMAND, 1000)
    assert len(writer.begun) == 1


async def test_who_finds_the_clients_room_full_waits_in_line_and_a_large_one_is_not_passed_by() -> None:
    room = Room(10, 100)
    await room.enter(8, 10)
    order: list[str] = []

    async def come(name: str, entering: Awaitable[None]) -> None:
        await entering
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(come("large", room.enter(6, 10)))
        group.create_task(come("small", room.enter(1, 10)))
        await turns()
        assert order == []
        room.leave(8, 10)
    assert order == ["large", "small"]
    assert (room.tasks, room.size_bytes) == (7, 20)


async def test_the_clients_room_is_bounded_in_bytes_and_closing_it_lets_everybody_in() -> None:
    room = Room(1000, 100)
    await room.enter(1, 90)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(room.enter(1, 20))
        gone = group.create_task(room.enter(1, 20))
        await turns()
        assert not waiting.done()
        gone.cancel()
        await turns()
        room.close()
    assert room.tasks == 2


async def test_one_that_went_away_as_room_was_made_is_passed_over() -> None:
    writer = HeldWriter()
    intake = intake_of(writer, waiting=100)
    async with asyncio.TaskGroup() as group:
        group.create_task(intake.submit(COMMAND, 90))
        going = group.create_task(intake.submit(COMMAND, 40))
        group.create_task(intake.submit(COMMAND, 40))
        await turns()
        going.cancel()
        writer.settle(0)
        await turns()
        assert len(writer.begun) == 2
        assert (intake.taken_bytes, intake.waiting_bytes) == (40, 0)
        writer.settle(1)
