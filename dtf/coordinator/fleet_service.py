"""FleetService: workers and the coordinator at a glance, for operators and the resource manager."""

import asyncio

from dtf.api.v1 import fleet_service_pb2
from dtf.coordinator import page_tokens
from dtf.coordinator.desk import Desk, require
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import (
    DrainWorker,
    ExpireWorkers,
    NotFound,
    QuarantineWorker,
    Rejection,
    ReleaseWorker,
)
from dtf.core.run.queries import worker_counts, worker_message
from dtf.rpc.handlers import Context, answering

SETTLE_SECONDS = 2.0
"""How long GetFleet waits for what is on its way to the log; an append takes milliseconds."""

MOST_REPORTERS = 64


class FleetService:
    """The service. Every answer rests on durable state."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._skipped_lines: dict[str, int] = {}
        """Of the live feed, by who sends it, the newest report last."""
        self._durable_glance = self._glance()  # a reign begins with a state that is in the log

    @answering
    async def ListWorkers(
        self, request: fleet_service_pb2.ListWorkersRequest, context: Context
    ) -> fleet_service_pb2.ListWorkersResponse:
        """Workers, present ones first."""
        size = page_tokens.page_size(request.page_size, 100, 1000)
        scope = f"{request.pool}\0{request.include_gone}"
        after = page_tokens.decode("workers", scope, request.page_token)
        workers = [
            worker
            for worker in self._desk.state.workers.values()
            if (worker.is_present or request.include_gone) and request.pool in ("", worker.pool)
        ]
        workers.sort(key=_order)
        rest = [worker for worker in workers if after is None or list(_order(worker)) > _key(str(after))]
        response = fleet_service_pb2.ListWorkersResponse(
            workers=[self._message(worker) for worker in rest[:size]]
        )
        if len(rest) > size:
            is_gone, worker_id = _order(rest[size - 1])
            response.next_page_token = page_tokens.encode("workers", scope, f"{int(is_gone)}{worker_id}")
        await self._desk.writer.settled()
        return response

    @answering
    async def DrainWorker(
        self, request: fleet_service_pb2.DrainWorkerRequest, context: Context
    ) -> fleet_service_pb2.DrainWorkerResponse:
        """Tells a worker to take nothing new."""
        require(request.worker_id, "worker_id")
        await self._desk.writer.submit(
            DrainWorker(request.worker_id, request.requested_by, request.reason, request.only_if_idle)
        )
        return fleet_service_pb2.DrainWorkerResponse(worker=await self._durable(request.worker_id))

    @answering
    async def QuarantineWorker(
        self, request: fleet_service_pb2.QuarantineWorkerRequest, context: Context
    ) -> fleet_service_pb2.QuarantineWorkerResponse:
        """Trusts a worker with nothing more."""
        require(request.worker_id, "worker_id")
        await self._desk.writer.submit(
            QuarantineWorker(request.worker_id, request.requested_by, request.reason)
        )
        return fleet_service_pb2.QuarantineWorkerResponse(worker=await self._durable(request.worker_id))

    @answering
    async def ReleaseWorker(
        self, request: fleet_service_pb2.ReleaseWorkerRequest, context: Context
    ) -> fleet_service_pb2.ReleaseWorkerResponse:
        """Lets a worker work again."""
        require(request.worker_id, "worker_id")
        await self._desk.writer.submit(ReleaseWorker(request.worker_id, request.requested_by))
        return fleet_service_pb2.ReleaseWorkerResponse(worker=await self._durable(request.worker_id))

    @answering
    async def ReportWorkerLost(
        self, request: fleet_service_pb2.ReportWorkerLostRequest, context: Context
    ) -> fleet_service_pb2.ReportWorkerLostResponse:
        """Ends the leases of a worker whose process is known to be gone."""
        require(request.worker_id, "worker_id")
        if request.worker_id not in self._desk.state.workers:
            raise NotFound(f"no worker {request.worker_id!r}", worker_id=request.worker_id)
        silent_seconds = self._desk.sessions.silent_seconds(request.worker_id)
        await self._desk.writer.submit(
            ExpireWorkers(
                [(request.worker_id, request.incarnation, silent_seconds)],
                request.reason or "its process is gone",
            )
        )
        return fleet_service_pb2.ReportWorkerLostResponse(worker=await self._durable(request.worker_id))

    @answering
    async def ReportLiveFeed(
        self, request: fleet_service_pb2.ReportLiveFeedRequest, context: Context
    ) -> fleet_service_pb2.ReportLiveFeedResponse:
        """Keeps what a sender of the live feed counted; not in the log, for it decides nothing."""
        require(request.reporter, "reporter")
        skipped = self._skipped_lines
        skipped.pop(request.reporter, None)
        skipped[request.reporter] = request.skipped_count
        if len(skipped) > MOST_REPORTERS:
            del skipped[next(iter(skipped))]
        return fleet_service_pb2.ReportLiveFeedResponse()

    @answering
    async def GetFleet(
        self, request: fleet_service_pb2.GetFleetRequest, context: Context
    ) -> fleet_service_pb2.GetFleetResponse:
        """The fleet at a glance.

        Answers while the log fails too: it is how one learns of it. The counts are then the last
        that were asked for and known to be durable.
        """
        desk = self._desk
        glance = self._glance()
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                await desk.writer.settled()
            self._durable_glance = glance
        except (Rejection, TimeoutError):
            glance = fleet_service_pb2.GetFleetResponse()
            glance.CopyFrom(self._durable_glance)
        refusing = desk.writer.refusing
        glance.log_sequence, glance.log_hash = desk.writer.durable_sequence, desk.writer.durable_hash
        glance.live_feed_skipped_count = sum(self._skipped_lines.values())
        glance.refusing_reason = refusing.message if refusing is not None else ""
        return glance

    def _glance(self) -> fleet_service_pb2.GetFleetResponse:
        """The counts of the state now, durable or not."""
        desk = self._desk
        return fleet_service_pb2.GetFleetResponse(
            namespace=desk.settings.namespace,
            version=desk.code_version,
            epoch=desk.writer.epoch,
            workers=worker_counts(desk.state),
            queued_count=desk.state.queued_count,
            leased_count=desk.state.leased_count,
            active_run_count=len(desk.state.active_runs),
            leading_since_at=desk.leading_since_at,
            blob_bytes=desk.blob_keeper.used_bytes,
            blob_limit_bytes=desk.blob_keeper.rules.max_bytes,
            blob_removed_count=desk.blob_keeper.removed_count,
        )

    async def _durable(self, worker_id: str) -> fleet_service_pb2.Worker:
        message = self._message(self._desk.state.workers[worker_id])
        await self._desk.writer.settled()
        return message

    def _message(self, worker: Worker) -> fleet_service_pb2.Worker:
        return worker_message(worker, self._desk.sessions.silent_seconds(worker.worker_id))


def _order(worker: Worker) -> tuple[bool, str]:
    return not worker.is_present, worker.worker_id


def _key(token: str) -> list[object]:
    return [token[:1] == "1", token[1:]]
