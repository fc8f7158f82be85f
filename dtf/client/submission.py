"""Submits tasks over one stream, in batches that are answered once they are durable.

    submit ──▶ room? ──▶ waiting ──▶ sent, unanswered (WINDOW batches) ──▶ durable
                 └── wait in line: ROOM_TASKS or ROOM_BYTES wait already

A task that comes alone is sent at once. Where many come one by one a batch holds what was submitted
while the one before was made durable, or in PACE_SECONDS: a message costs the coordinator the same
whatever its size (design/measured.md), and it commits once at a time while it has little to do.
At most WINDOW batches are unanswered and about as much waits, so that a caller faster than the log
is paced here, whether it submits many tasks or one by one from many coroutines. After a broken
connection, or when the coordinator asks to come back later, the unanswered batches are sent again
under their numbers; the coordinator answers those it has and adds none twice.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2, run_service_pb2, run_service_pb2_grpc
from dtf.client.journal import open_journal
from dtf.client.overload import pause_after, rest
from dtf.rpc.errors import parse

BATCH_TASKS = 256
BATCH_BYTES = 768 * 1024
"""Leaves room below the 1 MiB that a message may have."""
PACE_SECONDS = 0.006
"""A batch that is not full is sent no sooner than this after the one before, unless that one is answered."""
WINDOW = 16
ROOM_TASKS = WINDOW * BATCH_TASKS
ROOM_BYTES = WINDOW * BATCH_BYTES


@dataclass(slots=True)
class _Pending:
    """Tasks that wait for their answer together."""

    tasks: Sequence[common_pb2.TaskSpec]
    size_bytes: int
    answer: "asyncio.Future[int]"
    """Gives the index of the first of `tasks` in its run."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Tasks and their size on the wire."""

    tasks: Sequence[common_pb2.TaskSpec]
    size_bytes: int


class SubmissionFailed(Exception):
    """The coordinator refused a batch, or cannot be reached; __cause__ is the gRPC error."""


class Submission:
    """The submission stream of one run. Run `pump` in a task; it ends after `seal` was answered."""

    def __init__(
        self,
        stub: "run_service_pb2_grpc.RunServiceAsyncStub",
        run_id: str,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        self._stub = stub
        self._run_id = run_id
        self._metadata = metadata
        self._waiting: deque[_Pending] = deque()
        self._room = Room(ROOM_TASKS, ROOM_BYTES)
        self._unanswered: dict[int, tuple[run_service_pb2.SubmitTasksRequest, list[_Pending]]] = {}
        self._next_batch = 1
        self._taken_at = 0.0
        self._attempts = 0
        self._wake = asyncio.Event()
        self._due = asyncio.Event()
        self._seal: asyncio.Future[int] | None = None
        self._failure: BaseException | None = None
        self._journal = open_journal("client")

    async def submit(self, task: common_pb2.TaskSpec) -> int:
        """Submit one task; its index in the run, once it is durable."""
        return await (await self._enqueue(_Batch([task], task.ByteSize())))

    async def submit_many(self, tasks: Sequence[common_pb2.TaskSpec]) -> None:
        """Submit `tasks` in batches; returns when all are durable."""
        pending = [await self._enqueue(batch) for batch in _batches(tasks)]
        await asyncio.gather(*pending)

    async def seal(self) -> None:
        """Say that no more will come; returns when that is durable."""
        if self._seal is None:
            self._seal = asyncio.get_running_loop().create_future()
            self._wake.set()
            self._due.set()
        self._raise_failure()
        await asyncio.shield(self._seal)

    async def _enqueue(self, batch: _Batch) -> "asyncio.Future[int]":
        """Let a batch wait for its turn, once there is room for it."""
        await self._room.enter(len(batch.tasks), batch.size_bytes)
        self._raise_failure()
        if self._seal is not None:
            self._room.leave(len(batch.tasks), batch.size_bytes)
            raise SubmissionFailed(f"run {self._run_id} is sealed; it takes no more tasks")
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Pending(batch.tasks, batch.size_bytes, answer))
        self._wake.set()
        if self._room.tasks >= BATCH_TASKS:
            self._due.set()
        return answer

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise _failed_by(self._failure)

    async def pump(self) -> None:
        """Send and receive until sealed; opens the stream anew when it breaks. Never raises."""
        try:
            while not await self._attempt():
                pass
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as failure:
            self._fail(failure)
            if isinstance(failure, asyncio.CancelledError):
                raise

    async def _attempt(self) -> bool:
        self._attempts += 1
        self._wake.set()  # what fed the call before gives up: gRPC leaves it waiting when a call breaks
        outgoing = self._outgoing(self._attempts)
        call = self._stub.SubmitTasks(outgoing, metadata=self._metadata, wait_for_ready=True)
        try:
            async for response in call:
                self._answered(response)
        except grpc.aio.AioRpcError as error:
            pause = pause_after(error)
            if pause:
                await rest(pause)
            elif not parse(error).is_retryable:
                raise
            return False
        return self._seal is not None and self._seal.done()

    async def _outgoing(self, attempt: int) -> AsyncIterator[run_service_pb2.SubmitTasksRequest]:
        """What one call sends; nothing more once there is a newer one, to which it would be lost."""
        for request, _ in list(self._unanswered.values()):
            yield request
            if request.seal:
                return
        while True:
            await self._until_ready(attempt)
            if attempt != self._attempts:
                return
            request = self._take()
            yield request
            if request.seal:
                return

    async def _until_ready(self, attempt: int) -> None:
        """Return when there is something to send and room to have it unanswered, or a newer call."""
        while not self._waiting and self._seal is None and attempt == self._attempts:
            self._wake.clear()
            await self._wake.wait()
        if self._waiting and self._room.tasks < BATCH_TASKS and self._seal is None:
            await self._pace()
        while len(self._unanswered) >= WINDOW and attempt == self._attempts:
            self._wake.clear()
            await self._wake.wait()

    async def _pace(self) -> None:
        """Return when a batch is full, nothing is unanswered, or PACE_SECONDS after the one before was taken."""
        left = self._taken_at + PACE_SECONDS - asyncio.get_running_loop().time()
        if left <= 0 or not self._unanswered:
            return
        self._due.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._due.wait()

    def _take(self) -> run_service_pb2.SubmitTasksRequest:
        request = run_service_pb2.SubmitTasksRequest(run_id=self._run_id)
        self._taken_at = asyncio.get_running_loop().time()
        taken: list[_Pending] = []
        count = size = 0
        while self._waiting:
            pending = self._waiting[0]
            if count and (
                count + len(pending.tasks) > BATCH_TASKS or size + pending.size_bytes > BATCH_BYTES
            ):
                break
            self._waiting.popleft()
            request.tasks.extend(pending.tasks)
            taken.append(pending)
            count += len(pending.tasks)
            size += pending.size_bytes
        self._room.leave(count, size)
        request.seal = self._seal is not None and not self._waiting
        request.batch = self._next_batch
        self._next_batch += 1
        self._unanswered[request.batch] = (request, taken)
        return request

    def _answered(self, response: run_service_pb2.SubmitTasksResponse) -> None:
        entry = self._unanswered.pop(response.batch, None)
        self._wake.set()
        if not self._unanswered:
            self._due.set()
        if entry is None:
            return
        request, taken = entry
        if self._journal is not None:
            self._journal.submitted(request, response)
        index = response.first_task
        for pending in taken:
            if not pending.answer.done():
                pending.answer.set_result(index)
            index += len(pending.tasks)
        if request.seal and self._seal is not None and not self._seal.done():
            self._seal.set_result(response.task_count)

    def _fail(self, failure: BaseException) -> None:
        self._failure = failure
        pending = [item for _, taken in self._unanswered.values() for item in taken]
        for item in (*pending, *self._waiting):
            if not item.answer.done():
                item.answer.set_exception(_failed_by(failure))
                item.answer.exception()  # retrieved: an abandoned submit must not warn
        if self._seal is not None and not self._seal.done():
            self._seal.set_exception(_failed_by(failure))
            self._seal.exception()
        self._room.close()


class Room:
    """What may wait, in tasks and in bytes. Whoever finds it full waits in line; a large one is not passed by."""

    def __init__(self, max_tasks: int, max_bytes: int) -> None:
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._line: deque[tuple[int, int, asyncio.Future[None]]] = deque()
        self._is_closed = False
        self.tasks = 0
        self.size_bytes = 0

    async def enter(self, tasks: int, size_bytes: int) -> None:
        """Return once there is room, or the room is closed."""
        if self._is_closed or (not self._line and self._fits(tasks, size_bytes)):
            self._take(tasks, size_bytes)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (tasks, size_bytes, turn)
        self._line.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            else:
                self.leave(tasks, size_bytes)
            raise

    def leave(self, tasks: int, size_bytes: int) -> None:
        """Give room back."""
        self.tasks -= tasks
        self.size_bytes -= size_bytes
        while self._line and (self._is_closed or self._fits(*self._line[0][:2])):
            count, size, turn = self._line.popleft()
            self._take(count, size)
            if not turn.done():
                turn.set_result(None)

    def close(self) -> None:
        """Let everybody in: they will be told why it ended."""
        self._is_closed = True
        self.leave(0, 0)

    def _fits(self, tasks: int, size_bytes: int) -> bool:
        is_empty = not self.tasks
        return is_empty or (
            self.tasks + tasks <= self._max_tasks and self.size_bytes + size_bytes <= self._max_bytes
        )

    def _take(self, tasks: int, size_bytes: int) -> None:
        self.tasks += tasks
        self.size_bytes += size_bytes


def _failed_by(failure: BaseException) -> SubmissionFailed:
    failed = SubmissionFailed(_said(failure))
    failed.__cause__ = failure
    return failed


def _said(failure: BaseException) -> str:
    """What a failure says in one line: of a refusal only its message."""
    return (isinstance(failure, grpc.aio.AioRpcError) and failure.details()) or str(failure)


def _batches(tasks: Sequence[common_pb2.TaskSpec]) -> list[_Batch]:
    """`tasks` cut so that no batch has more than BATCH_TASKS tasks or BATCH_BYTES bytes."""
    batches: list[_Batch] = []
    start = size = 0
    for index, task in enumerate(tasks):
        length = task.ByteSize()
        if index > start and (index - start >= BATCH_TASKS or size + length > BATCH_BYTES):
            batches.append(_Batch(tasks[start:index], size))
            start, size = index, 0
        size += length
    if start < len(tasks):
        batches.append(_Batch(tasks[start:], size))
    return batches
