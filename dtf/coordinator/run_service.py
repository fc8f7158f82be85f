"""RunService: runs, submissions, watches and output, for clients."""

import asyncio
from collections.abc import AsyncIterator

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.coordinator import page_tokens
from dtf.coordinator.client_streams import ClientStreams
from dtf.coordinator.commits import Outcome
from dtf.coordinator.desk import Desk, require
from dtf.coordinator.log_tail import tail_logs
from dtf.coordinator.reruns import Reruns
from dtf.coordinator.uploads import receive_blob
from dtf.coordinator.watch import Watch
from dtf.core.run.commands import CancelRun, CreateRun, FieldViolation, InvalidRequest, SubmitTasks
from dtf.core.run.outline import message_of, newest_first, suite_of
from dtf.core.run.queries import task_messages
from dtf.core.run.state import RetiredRun, Run
from dtf.rpc.encoded import Encoded
from dtf.rpc.handlers import Context, answering, streaming

RUN_ID_LENGTH = 4
"""Short enough to type; a longer one is taken where a short one is in use."""
LONG_RUN_ID_LENGTH = 8
SHORT_IDS = 1000
"""With more runs retired than this, ids are long: an id whose run is long forgotten must not come again."""
MAX_SUBMISSION_BYTES = 832 * 1024
"""A message of tasks lands in one commit, or not at all; senders cut at 768 KiB of tasks."""
MAX_UNANSWERED = 64
"""Messages of one submission stream that wait for their commit; a client that is faster waits."""

_Begun = tuple[run_service_pb2.SubmitTasksRequest, asyncio.Future[Outcome]]


class RunService:
    """The service. Every answer rests on durable state."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._streams = ClientStreams(desk.settings.max_client_streams)
        self._reruns = Reruns(desk, self._fresh_id)

    @answering
    async def CreateRun(
        self, request: run_service_pb2.CreateRunRequest, context: Context
    ) -> run_service_pb2.CreateRunResponse:
        """Creates a run."""
        await self._desk.intake.submit(CreateRun(self._fresh_id(), request), request.ByteSize())
        run_id = self._desk.state.run_requests[request.request_id]
        return run_service_pb2.CreateRunResponse(run=await self._durable(self._desk.find(run_id)))

    @answering
    async def SubmitTasks(
        self, request_iterator: AsyncIterator[run_service_pb2.SubmitTasksRequest], context: Context
    ) -> None:
        """Submits tasks; answers in the order of the messages.

        A refusal takes its turn too: a status cannot be sent while an answer is being written.
        """
        begun: asyncio.Queue[_Begun | Exception | None] = asyncio.Queue(MAX_UNANSWERED)
        with self._streams.one_more():
            await self._take_submissions(request_iterator, begun, context)

    async def _take_submissions(
        self,
        request_iterator: AsyncIterator[run_service_pb2.SubmitTasksRequest],
        begun: "asyncio.Queue[_Begun | Exception | None]",
        context: Context,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer_submissions(begun, context))
            try:
                async for request in request_iterator:
                    _check_submission(request)
                    future = await self._desk.intake.begin(SubmitTasks(request), request.ByteSize())
                    await begun.put((request, future))
            except Exception as error:
                await begun.put(error)
            else:
                await begun.put(None)

    async def _answer_submissions(
        self, begun: "asyncio.Queue[_Begun | Exception | None]", context: Context
    ) -> None:
        while (item := await begun.get()) is not None:
            if isinstance(item, Exception):
                raise item
            request, future = item
            outcome = await asyncio.shield(future)
            if outcome.error is not None:
                raise outcome.error
            await context.write(self._submission_answer(request, outcome))

    def _submission_answer(
        self, request: run_service_pb2.SubmitTasksRequest, outcome: Outcome
    ) -> run_service_pb2.SubmitTasksResponse:
        run = self._desk.state.runs[request.run_id]
        response = run_service_pb2.SubmitTasksResponse(
            batch=request.batch, first_task=run.task_count, log_sequence=outcome.sequence
        )
        if request.tasks:
            batch = run.batches[request.batch - 1]
            response.first_task, response.task_count = batch.first_task, batch.task_count
            response.log_sequence = batch.sequence
        return response

    @answering
    async def GetRun(
        self, request: run_service_pb2.GetRunRequest, context: Context
    ) -> run_service_pb2.GetRunResponse:
        """One run."""
        return run_service_pb2.GetRunResponse(run=await self._durable(self._desk.find(request.run_id)))

    @answering
    async def ListRuns(
        self, request: run_service_pb2.ListRunsRequest, context: Context
    ) -> run_service_pb2.ListRunsResponse:
        """Runs, newest first."""
        size = page_tokens.page_size(request.page_size, 50, 1000)
        after = page_tokens.decode("runs", request.suite, request.page_token)
        response = run_service_pb2.ListRunsResponse()
        is_past = after is None
        for run in newest_first(self._desk.state):
            if not is_past:
                is_past = run.run_id == after
                continue
            if request.suite and suite_of(run) != request.suite:
                continue
            if len(response.runs) == size:
                response.next_page_token = page_tokens.encode("runs", request.suite, response.runs[-1].run_id)
                break
            response.runs.append(message_of(run))
        await self._desk.writer.settled()
        return response

    @answering
    async def ListTasks(
        self, request: run_service_pb2.ListTasksRequest, context: Context
    ) -> run_service_pb2.ListTasksResponse:
        """Tasks of a run, in the order of submission."""
        require(request.run_id, "run_id")
        run = await self._desk.history.whole(request.run_id)
        size = page_tokens.page_size(request.page_size, 100, 1000)
        scope = f"{request.run_id}\0{request.state}"
        token = page_tokens.decode("tasks", scope, request.page_token)
        first = token if isinstance(token, int) else 0
        chosen: list[int] = []
        response = run_service_pb2.ListTasksResponse()
        for task in range(first, run.task_count):
            if request.state not in (common_pb2.TASK_STATE_UNSPECIFIED, run.task_states[task]):
                continue
            if len(chosen) == size:
                response.next_page_token = page_tokens.encode("tasks", scope, task)
                break
            chosen.append(task)
        response.tasks.extend(task_messages(self._desk.state, run, chosen))
        await self._desk.writer.settled()
        return response

    @answering
    async def CancelRun(
        self, request: run_service_pb2.CancelRunRequest, context: Context
    ) -> run_service_pb2.CancelRunResponse:
        """Stops a run."""
        run = self._desk.find(request.run_id)
        await self._desk.writer.submit(CancelRun(request.run_id, request.requested_by, request.reason))
        return run_service_pb2.CancelRunResponse(run=await self._durable(run))

    @streaming
    async def WatchRun(
        self, request: run_service_pb2.WatchRunRequest, context: Context
    ) -> AsyncIterator[Encoded]:
        """Events of a run from a sequence on: WatchRunResponses, encoded."""
        with self._streams.one_more():
            await self._desk.writer.settled()
            async for response in Watch(self._desk, request).responses():
                yield response

    @streaming
    async def TailLogs(
        self, request: run_service_pb2.TailLogsRequest, context: Context
    ) -> AsyncIterator[run_service_pb2.TailLogsResponse]:
        """Output of attempts, as it appears."""
        run = message_of(self._desk.find(request.run_id))
        task = request.task if request.HasField("task") else None
        if task is not None and task >= run.task_count:
            text = f"is {task}, but the run has {run.task_count} tasks"
            raise InvalidRequest(f"task {text}", violations=[FieldViolation("task", text)])
        with self._streams.one_more():
            async for response in tail_logs(self._desk, run.run_id, task, request.follow):
                yield response

    @answering
    async def UploadBlob(
        self, request_iterator: AsyncIterator[run_service_pb2.UploadBlobRequest], context: Context
    ) -> run_service_pb2.UploadBlobResponse:
        """Stores a blob."""
        with self._streams.one_more():
            blob = await receive_blob(self._desk.blob_keeper, request_iterator)
        return run_service_pb2.UploadBlobResponse(blob=blob)

    @answering
    async def ConfirmFinding(
        self, request: run_service_pb2.ConfirmFindingRequest, context: Context
    ) -> run_service_pb2.ConfirmFindingResponse:
        """Runs a task of a run again."""
        run_id = await self._reruns.confirm(request)
        return run_service_pb2.ConfirmFindingResponse(run=await self._durable(self._desk.find(run_id)))

    async def _durable(self, run: Run | RetiredRun) -> run_service_pb2.Run:
        message = message_of(run)
        await self._desk.writer.settled()
        return message

    def _fresh_id(self) -> str:
        state = self._desk.state
        length = RUN_ID_LENGTH if len(state.retired_runs) < SHORT_IDS else LONG_RUN_ID_LENGTH
        while (run_id := self._desk.clock.new_id(length)) in state.runs or run_id in state.retired_runs:
            length += 1
        return run_id


def _check_submission(request: run_service_pb2.SubmitTasksRequest) -> None:
    """Raises InvalidRequest for a message that is too large to be one commit."""
    require(request.run_id, "run_id")
    size = request.ByteSize()
    if size > MAX_SUBMISSION_BYTES:
        text = f"are {size} bytes; a message holds at most {MAX_SUBMISSION_BYTES}"
        raise InvalidRequest(f"tasks {text}", violations=[FieldViolation("tasks", text)])
