"""The client: one channel to the coordinator, one to the trend analyzer when it is asked for.

Errors are gRPC's own (grpc.aio.AioRpcError); dtf.rpc.errors says what they mean.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from dtf.api.v1 import (
    analysis_service_pb2_grpc,
    common_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    resource_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
)
from dtf.client.blob_transfers import BlobTransfers
from dtf.client.join_tokens import JoinTokens
from dtf.client.journal import open_journal
from dtf.client.overload import call_when_taken
from dtf.client.owner import default_owner
from dtf.client.resumed_output import ResumedOutput
from dtf.client.run import RunHandle, WatchedEvent
from dtf.client.submission import Submission, SubmissionFailed
from dtf.client.suite_request import set_calls, set_commands
from dtf.rpc.channel import Peer, open_channel, open_sync_channel
from dtf.rpc.errors import SERVER_WENT
from dtf.rpc.reachability import why_unreachable
from dtf.settings.loader import load_settings

CALL_TIMEOUT_SECONDS = 30.0
CONNECT_TIMEOUT_SECONDS = 10.0
"""How long a first connection is tried: a coordinator that is being restarted is back within it."""
RECONNECT_TIMEOUT_SECONDS = 60.0
"""How long a broken stream waits for a coordinator to come back before it gives up."""

log = logging.getLogger(__name__)


class CoordinatorUnreachable(ConnectionError):
    """Nobody answers at the coordinator's addresses."""


class Client:
    """An asyncio client. Use it as an async context manager."""

    def __init__(self, coordinator: Peer, analyzer: Peer | None = None) -> None:
        self._peer = coordinator
        self._analyzer = analyzer
        self._channel: grpc.aio.Channel | None = None
        self._analysis_channel: grpc.aio.Channel | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._channel = open_channel(self._peer)
        self._tasks = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pump in self._pumps:
            pump.cancel()
        if self._tasks is not None:
            await self._tasks.__aexit__(None, None, None)
        for channel in (self._channel, self._analysis_channel):
            if channel is not None:
                await channel.close()

    async def wait_connected(self, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
        """Return once a coordinator answers. Raises CoordinatorUnreachable naming the addresses."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.channel.channel_ready()
        except TimeoutError:
            why = await asyncio.to_thread(
                why_unreachable, self._peer.addresses, is_secure=self._peer.is_secure
            )
            raise CoordinatorUnreachable(
                f"no coordinator at {', '.join(self._peer.addresses)} ({why}; tried for {timeout_seconds:.0f} s)"
            ) from None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return self._peer.metadata

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel to the coordinator."""
        if self._channel is None:
            raise RuntimeError("the client is closed; use `async with`")
        return self._channel

    @property
    def runs(self) -> "run_service_pb2_grpc.RunServiceAsyncStub":
        """The stub of RunService."""
        return run_service_pb2_grpc.RunServiceStub(self.channel)

    @property
    def fleet(self) -> "fleet_service_pb2_grpc.FleetServiceAsyncStub":
        """The stub of FleetService."""
        return fleet_service_pb2_grpc.FleetServiceStub(self.channel)

    @property
    def pools(self) -> "resource_service_pb2_grpc.ResourceServiceAsyncStub":
        """The stub of ResourceService."""
        return resource_service_pb2_grpc.ResourceServiceStub(self.channel)

    @property
    def tokens(self) -> JoinTokens:
        """Join tokens: issued, listed, revoked."""
        return JoinTokens(self.channel, self.metadata)

    @property
    def has_analyzer(self) -> bool:
        """Whether it is known where the trend analyzer listens."""
        return self._analyzer is not None

    @property
    def analysis(self) -> "analysis_service_pb2_grpc.AnalysisServiceAsyncStub":
        """The stub of AnalysisService. Raises LookupError where no analyzer's address is known."""
        if self._analyzer is None:
            raise LookupError("no trend analyzer is known; set [analyzer] server (DTF_ANALYZER_SERVER)")
        if self._analysis_channel is None:
            self._analysis_channel = open_channel(self._analyzer)
        return analysis_service_pb2_grpc.AnalysisServiceStub(self._analysis_channel)

    async def pack_workspace(self, project_dir: Path | None = None) -> common_pb2.Workspace:
        """The working tree of a project, packed, and uploaded unless the coordinator has it, for `start_run`.

        What travels, and the set-up, is what the project's dtf.toml says (docs/workspaces.md); no directory:
        the project that we are in. Raises WorkspaceError (dtf.client.workspace_files), SettingsError.
        """
        from dtf.client.blob_courier import BlobCourier
        from dtf.client.workspace import packed_workspace, tree_root

        loaded = load_settings(project_dir)
        is_over = threading.Event()

        def packed() -> common_pb2.Workspace:
            with open_sync_channel(self._peer) as channel:
                tree = tree_root(loaded.project_dir, loaded.settings)
                courier = BlobCourier(channel, self.metadata)
                return packed_workspace(tree, loaded.settings, courier, log.info, is_over.is_set)

        try:
            return await asyncio.to_thread(packed)
        finally:
            is_over.set()

    async def create_run(self, request: run_service_pb2.CreateRunRequest) -> RunHandle:
        """Create a run from a whole request; an empty request id or owner is filled in."""
        if not request.request_id:
            request.request_id = secrets.token_hex(16)
        if not request.owner:
            request.owner = default_owner()
        response = await call_when_taken(lambda: self.runs.CreateRun(request, **self._call()))
        journal = open_journal("client")
        if journal is not None:
            journal.created(response.run, request.request_id)
        return RunHandle(self, response.run)

    async def start_run(
        self,
        suite: str,
        *,
        commands: Sequence[Sequence[str]] = (),
        function: str = "",
        arguments: Sequence[Sequence[Any] | Mapping[str, Any]] = (),
        working_dir: str = "",
        environment: Mapping[str, str] | None = None,
        import_path: Sequence[str] = (),
        timeout_seconds: float = 0.0,
        test_retries: int = 0,
        infrastructure_retries: int = 1,
        requirements: common_pb2.Requirements | None = None,
        revision: str = "",
        priority: int = 0,
        workspace: common_pb2.Workspace | None = None,
    ) -> RunHandle:
        """Create a run of commands, or of calls of `function` ("module:name"), submit and seal it.

        `workspace`: the code, for workers that do not have it (`pack_workspace`); tasks then run in it,
        and `working_dir` is a directory of the tree as it is here.
        """
        working_dir = working_dir or (workspace.root if workspace is not None else "")
        if bool(commands) == bool(function):
            raise ValueError("give either commands or a function with arguments")
        template = common_pb2.TaskTemplate(
            requirements=requirements or common_pb2.Requirements(),
            retry=common_pb2.RetryPolicy(
                test_retries=test_retries, infrastructure_retries=infrastructure_retries
            ),
            timeout_seconds=timeout_seconds,
            workspace=workspace,
        )
        place: dict[str, Any] = {"working_dir": working_dir, "environment": environment or {}}
        if commands:
            tasks = set_commands(template, commands, **place)
        else:
            tasks = set_calls(template, function, arguments, import_path=import_path, **place)
        request = run_service_pb2.CreateRunRequest(
            suite=suite, revision=revision, priority=priority, templates=[template]
        )
        run = await self.create_run(request)
        try:
            await run.submit_many(tasks)
            await run.seal()
        except SubmissionFailed as failure:
            # Nobody has its handle: it would stay active for ever.
            with suppress(grpc.RpcError):
                await self.cancel_run(run.run_id, f"its tasks could not be submitted: {failure}"[:500])
            raise
        return run

    async def attach(self, run_id: str) -> RunHandle:
        """A run that exists."""
        return RunHandle(self, await self.get_run(run_id))

    async def get_run(self, run_id: str) -> run_service_pb2.Run:
        """A run as it stands."""
        request = run_service_pb2.GetRunRequest(run_id=run_id)
        return (await self.runs.GetRun(request, **self._call())).run

    async def list_runs(self, *, suite: str = "", limit: int = 50) -> list[run_service_pb2.Run]:
        """The newest runs, newest first."""
        found: list[run_service_pb2.Run] = []
        token = ""
        while len(found) < limit:
            request = run_service_pb2.ListRunsRequest(
                page_size=min(limit - len(found), 1000), page_token=token, suite=suite
            )
            response = await self.runs.ListRuns(request, **self._call())
            found.extend(response.runs)
            token = response.next_page_token
            if not token:
                break
        return found

    async def list_tasks(
        self, run_id: str, *, state: common_pb2.TaskState.ValueType = common_pb2.TASK_STATE_UNSPECIFIED
    ) -> AsyncIterator[run_service_pb2.Task]:
        """Every task of a run, in the order of submission."""
        token = ""
        while True:
            request = run_service_pb2.ListTasksRequest(
                run_id=run_id, page_size=1000, page_token=token, state=state
            )
            response = await self.runs.ListTasks(request, **self._call())
            for task in response.tasks:
                yield task
            token = response.next_page_token
            if not token:
                return

    async def cancel_run(self, run_id: str, reason: str = "") -> run_service_pb2.Run:
        """Stop a run."""
        request = run_service_pb2.CancelRunRequest(run_id=run_id, requested_by=default_owner(), reason=reason)
        return (await self.runs.CancelRun(request, **self._call())).run

    async def list_workers(
        self, *, include_gone: bool = False, pool: str = ""
    ) -> list[fleet_service_pb2.Worker]:
        """Every worker, present ones first."""
        found: list[fleet_service_pb2.Worker] = []
        token = ""
        while True:
            request = fleet_service_pb2.ListWorkersRequest(
                page_size=1000, page_token=token, include_gone=include_gone, pool=pool
            )
            response = await self.fleet.ListWorkers(request, **self._call())
            found.extend(response.workers)
            token = response.next_page_token
            if not token:
                return found

    async def get_fleet(self) -> fleet_service_pb2.GetFleetResponse:
        """The fleet and the log at a glance."""
        return await self.fleet.GetFleet(fleet_service_pb2.GetFleetRequest(), **self._call())

    def open_submission(self, run_id: str) -> Submission:
        """A submission stream for a run, pumped until the client closes."""
        if self._tasks is None:
            raise RuntimeError("the client is closed; use `async with`")
        submission = Submission(self.runs, run_id, self.metadata)
        self._pumps.append(self._tasks.create_task(submission.pump()))
        return submission

    async def watch(self, request: run_service_pb2.WatchRunRequest) -> AsyncIterator[WatchedEvent]:
        """What WatchRun gives, resumed by sequence after a broken connection."""
        position = request.after_sequence
        while True:
            await self._reconnected()
            request.after_sequence = position
            try:
                async for response in self.runs.WatchRun(request, metadata=self.metadata):
                    for commit in response.commits:
                        position = commit.log_sequence
                        for event in commit.events:
                            yield WatchedEvent(commit.log_sequence, commit.now_unix_nanos, event)
                    for decision in response.scaling:
                        yield WatchedEvent(0, decision.now_unix_nanos, None, decision)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in SERVER_WENT:
                    raise

    async def tail_logs(
        self, run_id: str, *, task: int | None = None, follow: bool = False
    ) -> AsyncIterator[run_service_pb2.TailLogsResponse]:
        """Output of a run's attempts, as it appears; survives reconnects."""
        request = run_service_pb2.TailLogsRequest(run_id=run_id, follow=follow)
        if task is not None:
            request.task = task
        output = ResumedOutput()
        while True:
            await self._reconnected()
            output.begin()
            try:
                async for response in self.runs.TailLogs(request, metadata=self.metadata):
                    if output.is_news(response):
                        yield response
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in SERVER_WENT:
                    raise

    async def fetch_blob(self, digest: str) -> bytes:
        """The content of a blob."""
        return await self._blobs.fetch(digest)

    async def upload_blob(self, data: bytes) -> common_pb2.Blob:
        """Store content above 16 KiB and return what refers to it."""
        return await self._blobs.upload(data)

    @property
    def _blobs(self) -> BlobTransfers:
        return BlobTransfers(self.channel, self.metadata, self._reconnected)

    async def _reconnected(self) -> None:
        """Return once one of the addresses answers. Raises TimeoutError."""
        async with asyncio.timeout(RECONNECT_TIMEOUT_SECONDS):
            await self.channel.channel_ready()

    def _call(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "timeout": CALL_TIMEOUT_SECONDS, "wait_for_ready": True}
