"""What the resource manager asks of and tells the coordinator: let a worker go, a worker is gone."""

from collections.abc import Awaitable
from enum import StrEnum
from typing import Protocol

import grpc
import grpc.aio

from dtf.api.v1 import fleet_service_pb2, fleet_service_pb2_grpc
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import SERVER_WENT

REQUESTER = "resource-manager"
CALL_TIMEOUT_SECONDS = 5.0


class DrainAnswer(StrEnum):
    """What became of a request to drain."""

    DRAINING = "draining"
    REFUSED = "refused"
    """It holds a lease by now, or is gone."""
    UNREACHABLE = "unreachable"
    """The coordinator did not answer; whether it heard is not known."""


class Fleet(Protocol):
    """The coordinator's side of the fleet."""

    async def drain_idle(self, worker_id: str, reason: str) -> DrainAnswer:
        """Ask that the worker take nothing new, if it holds no lease."""
        ...

    async def drain(self, worker_id: str, reason: str) -> DrainAnswer:
        """Ask that the worker take nothing new and finish what runs: it will be taken away."""
        ...

    async def quarantine(self, worker_id: str, reason: str) -> bool:
        """Ask that the worker be trusted with nothing more; what it holds is requeued."""
        ...

    async def release(self, worker_id: str) -> bool:
        """Ask that a quarantined worker work again."""
        ...

    async def report_lost(self, worker_id: str, incarnation: int, reason: str) -> bool:
        """Say that a worker's process is gone; False if the coordinator did not hear it."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...


class GrpcFleet:
    """The Fleet behind FleetService."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._channel = open_channel(peer)
        self._stub: fleet_service_pb2_grpc.FleetServiceAsyncStub = fleet_service_pb2_grpc.FleetServiceStub(
            self._channel
        )

    async def drain_idle(self, worker_id: str, reason: str) -> DrainAnswer:
        """Ask that the worker take nothing new, if it holds no lease."""
        return await self._drain(worker_id, reason, only_if_idle=True)

    async def drain(self, worker_id: str, reason: str) -> DrainAnswer:
        """Ask that the worker take nothing new and finish what runs."""
        return await self._drain(worker_id, reason, only_if_idle=False)

    async def _drain(self, worker_id: str, reason: str, *, only_if_idle: bool) -> DrainAnswer:
        request = fleet_service_pb2.DrainWorkerRequest(
            worker_id=worker_id, requested_by=REQUESTER, reason=reason, only_if_idle=only_if_idle
        )
        try:
            await self._stub.DrainWorker(request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            unsure = SERVER_WENT | {grpc.StatusCode.DEADLINE_EXCEEDED}
            return DrainAnswer.UNREACHABLE if error.code() in unsure else DrainAnswer.REFUSED
        return DrainAnswer.DRAINING

    async def quarantine(self, worker_id: str, reason: str) -> bool:
        """Ask that the worker be trusted with nothing more."""
        request = fleet_service_pb2.QuarantineWorkerRequest(
            worker_id=worker_id, requested_by=REQUESTER, reason=reason
        )
        return await _is_answered(
            self._stub.QuarantineWorker(request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS)
        )

    async def release(self, worker_id: str) -> bool:
        """Ask that a quarantined worker work again."""
        request = fleet_service_pb2.ReleaseWorkerRequest(worker_id=worker_id, requested_by=REQUESTER)
        return await _is_answered(
            self._stub.ReleaseWorker(request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS)
        )

    async def report_lost(self, worker_id: str, incarnation: int, reason: str) -> bool:
        """Say that a worker's process is gone."""
        request = fleet_service_pb2.ReportWorkerLostRequest(
            worker_id=worker_id, incarnation=incarnation, reason=reason
        )
        return await _is_answered(
            self._stub.ReportWorkerLost(request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS)
        )

    async def report_live_feed(self, reporter: str, skipped_count: int) -> bool:
        """Say how many lines of the live feed were not sent; False if the coordinator did not hear it."""
        request = fleet_service_pb2.ReportLiveFeedRequest(reporter=reporter, skipped_count=skipped_count)
        return await _is_answered(
            self._stub.ReportLiveFeed(request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS)
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


async def _is_answered(call: Awaitable[object]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError:
        return False
    return True
