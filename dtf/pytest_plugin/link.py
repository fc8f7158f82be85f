"""The controller's calls to the coordinator and the trend analyzer, blocking.

Every call has a time limit; the watch is opened again after a broken connection, from the last
sequence it saw, for as long as a restarted coordinator may need.
"""

import time
from collections.abc import Iterator, Sequence

import grpc

from dtf.api.v1 import (
    analysis_service_pb2,
    analysis_service_pb2_grpc,
    common_pb2,
    events_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.client.blob_courier import BlobCourier
from dtf.client.client import CONNECT_TIMEOUT_SECONDS
from dtf.client.journal import open_journal
from dtf.client.overload import PATIENCE_SECONDS, pause_after
from dtf.client.stack import StackError
from dtf.rpc.channel import Peer, open_sync_channel
from dtf.rpc.errors import SERVER_WENT
from dtf.rpc.reachability import why_unreachable

CALL_TIMEOUT_SECONDS = 30.0
STATISTICS_TIMEOUT_SECONDS = 2.0
"""Durations only make the shards better; a slow store must not hold the run up."""
RECONNECT_TIMEOUT_SECONDS = 60.0
MAX_TASKS_PER_MESSAGE = 512
MAX_MESSAGE_BYTES = 512 * 1024
EVENTS = ("results_accepted", "attempts_ended", "tasks_abandoned", "placement_changed", "run_finished")


class Link:
    """One connection to the coordinator, for one run."""

    def __init__(self, coordinator: Peer, analyzer: Peer | None = None) -> None:
        self._peer = coordinator
        self._channel = open_sync_channel(coordinator)
        self._runs = run_service_pb2_grpc.RunServiceStub(self._channel)
        self.courier = BlobCourier(self._channel, coordinator.metadata)
        self._analyzer = analyzer
        self._watching: grpc.Call | None = None
        self._is_closed = False

    def close(self) -> None:
        """Hang up; a watch under way ends."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
        self._channel.close()

    def expected_durations(self, suite: str) -> dict[str, float]:
        """Median duration of each case in recorded history; empty if there is none to be had soon."""
        if self._analyzer is None:
            return {}
        deadline = time.monotonic() + STATISTICS_TIMEOUT_SECONDS
        found: dict[str, float] = {}
        try:
            with open_sync_channel(self._analyzer) as channel:
                stub = analysis_service_pb2_grpc.AnalysisServiceStub(channel)
                request = analysis_service_pb2.ListCaseStatisticsRequest(suite=suite, page_size=100_000)
                while (left := deadline - time.monotonic()) > 0:
                    page = stub.ListCaseStatistics(request, timeout=left, metadata=self._analyzer.metadata)
                    found.update((case.case_name, case.median_seconds) for case in page.cases)
                    request.page_token = page.next_page_token
                    if not request.page_token:
                        break
        except grpc.RpcError:
            return found
        return found

    def wait_connected(self, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
        """Return once the coordinator answers. Raises StackError naming the addresses."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout=timeout_seconds)
        except grpc.FutureTimeoutError:
            raise StackError(
                f"no coordinator at {', '.join(self._peer.addresses)} "
                f"({why_unreachable(self._peer.addresses, is_secure=self._peer.is_secure)}; tried for {timeout_seconds:.0f} s)",
                "start it, or correct DTF_SERVER (run.server); without it the project gets a stack of its own",
            ) from None

    def create_run(self, request: run_service_pb2.CreateRunRequest) -> run_service_pb2.Run:
        """Create the run."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                run = self._runs.CreateRun(
                    request, timeout=CALL_TIMEOUT_SECONDS, metadata=self._peer.metadata, wait_for_ready=True
                ).run
                break
            except grpc.RpcError as error:
                _rest_if_overloaded(error, deadline)
        journal = open_journal("client")
        if journal is not None:
            journal.created(run, request.request_id)
        return run

    def submit(self, run_id: str, tasks: Sequence[common_pb2.TaskSpec]) -> None:
        """Submit all tasks and seal the run; returns when that is durable.

        A stream that broke, or was refused until later, is sent again: the coordinator knows the batches it has.
        """
        requests = list(submissions(run_id, tasks))
        deadline = time.monotonic() + RECONNECT_TIMEOUT_SECONDS
        while True:
            try:
                answers = self._runs.SubmitTasks(
                    iter(requests),
                    timeout=max(1.0, deadline - time.monotonic()),
                    metadata=self._peer.metadata,
                    wait_for_ready=True,
                )
                journal = open_journal("client")
                for answer in answers:
                    if journal is not None:
                        journal.submitted(requests[answer.batch - 1], answer)
                return
            except grpc.RpcError as error:
                if error.code() not in SERVER_WENT or time.monotonic() > deadline:
                    _rest_if_overloaded(error, deadline)

    def watch(self, run_id: str) -> Iterator[events_pb2.Event]:
        """The run's events that concern a controller, until it has ended."""
        position = 0
        silent_since: float | None = None
        while True:
            request = run_service_pb2.WatchRunRequest(
                run_id=run_id, after_sequence=position, event_types=EVENTS
            )
            try:
                # A run may take as long as it takes; the channel's keepalive finds a peer that is gone.
                self._watching = self._runs.WatchRun(
                    request, metadata=self._peer.metadata, wait_for_ready=True
                )
                for response in self._watching:
                    silent_since = None
                    for commit in response.commits:
                        position = commit.log_sequence
                        yield from commit.events
                return
            except grpc.RpcError as error:
                silent_since = silent_since or time.monotonic()
                waited = time.monotonic() - silent_since
                if self._is_closed or error.code() not in SERVER_WENT or waited > RECONNECT_TIMEOUT_SECONDS:
                    raise
                grpc.channel_ready_future(self._channel).result(RECONNECT_TIMEOUT_SECONDS - waited)

    def cancel(self, run_id: str, requested_by: str, reason: str) -> None:
        """Stop the run."""
        request = run_service_pb2.CancelRunRequest(run_id=run_id, requested_by=requested_by, reason=reason)
        self._runs.CancelRun(
            request, timeout=CALL_TIMEOUT_SECONDS, metadata=self._peer.metadata, wait_for_ready=True
        )

    def fetch_blob(self, digest: str) -> bytes:
        """The content of a blob; asked for again where the coordinator changes meanwhile."""
        stub = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        request = worker_service_pb2.FetchBlobRequest(digest=digest)
        deadline = time.monotonic() + RECONNECT_TIMEOUT_SECONDS
        while True:
            try:
                pieces = stub.FetchBlob(
                    request,
                    timeout=CALL_TIMEOUT_SECONDS,
                    metadata=self._peer.metadata,
                    wait_for_ready=True,
                )
                return b"".join(piece.data for piece in pieces)
            except grpc.RpcError as error:
                if error.code() not in SERVER_WENT or time.monotonic() > deadline:
                    raise


def submissions(
    run_id: str, tasks: Sequence[common_pb2.TaskSpec]
) -> Iterator[run_service_pb2.SubmitTasksRequest]:
    """The messages that submit `tasks` and then seal the run."""
    batch = 1
    request = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=batch)
    size = 0
    for task in tasks:
        if request.tasks and (len(request.tasks) >= MAX_TASKS_PER_MESSAGE or size > MAX_MESSAGE_BYTES):
            yield request
            batch += 1
            request = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=batch)
            size = 0
        request.tasks.append(task)
        size += task.ByteSize()
    request.seal = True
    yield request


def _rest_if_overloaded(error: grpc.RpcError, deadline: float) -> None:
    """Wait as long as the coordinator said; raise the error if it did not say so, or not before the deadline."""
    pause = pause_after(error)
    if not pause or time.monotonic() + pause > deadline:
        raise error
    time.sleep(pause)
