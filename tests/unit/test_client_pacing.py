"""When a client sends what is submitted to it one by one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client import submission
from dtf.client.submission import Submission

PATIENCE_SECONDS = 30.0


class Coordinator:
    """A stub whose messages are looked at, and answered, by the test."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[run_service_pb2.SubmitTasksRequest] = asyncio.Queue()
        self._answers: asyncio.Queue[run_service_pb2.SubmitTasksResponse | None] = asyncio.Queue()
        self._task_count = 0

    def SubmitTasks(  # as gRPC names it
        self, requests: AsyncIterator[run_service_pb2.SubmitTasksRequest], **_: Any
    ) -> AsyncIterator[run_service_pb2.SubmitTasksResponse]:
        return self._serve(requests)

    async def _serve(
        self, requests: AsyncIterator[run_service_pb2.SubmitTasksRequest]
    ) -> AsyncIterator[run_service_pb2.SubmitTasksResponse]:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._receive(requests))
            while (answer := await self._answers.get()) is not None:
                yield answer

    async def _receive(self, requests: AsyncIterator[run_service_pb2.SubmitTasksRequest]) -> None:
        async for request in requests:
            self.received.put_nowait(request)

    def answer(self, request: run_service_pb2.SubmitTasksRequest) -> None:
        """Say that its tasks are durable."""
        first, self._task_count = self._task_count, self._task_count + len(request.tasks)
        self._answers.put_nowait(
            run_service_pb2.SubmitTasksResponse(
                batch=request.batch, first_task=first, task_count=len(request.tasks)
            )
        )
        if request.seal:
            self._answers.put_nowait(None)


async def test_what_comes_one_by_one_waits_for_the_answer_to_what_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submission, "PACE_SECONDS", 10 * PATIENCE_SECONDS)
    coordinator = Coordinator()
    submitting = Submission(coordinator, "run", ())  # type: ignore[arg-type]  # only SubmitTasks is called
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(submitting.pump())
        group.create_task(submitting.submit(common_pb2.TaskSpec(name="first")))
        first = await coordinator.received.get()
        assert [task.name for task in first.tasks] == ["first"]
        others = [
            group.create_task(submitting.submit(common_pb2.TaskSpec(name=str(number)))) for number in range(5)
        ]
        coordinator.answer(first)
        second = await coordinator.received.get()
        assert [task.name for task in second.tasks] == ["0", "1", "2", "3", "4"]
        coordinator.answer(second)
        assert await asyncio.gather(*others) == [1, 2, 3, 4, 5]
        sealing = group.create_task(submitting.seal())
        coordinator.answer(await coordinator.received.get())
        await sealing
