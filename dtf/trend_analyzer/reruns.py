"""What the trend analyzer asks of the coordinator: measure a case once more."""

from typing import Protocol

import grpc
import grpc.aio

from dtf.api.v1 import run_service_pb2, run_service_pb2_grpc
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import SERVER_WENT, describe

REQUESTER = "trend-analyzer"
CALL_TIMEOUT_SECONDS = 20.0
"""A run that left the coordinator's memory is read from the log first."""
_PASSING = SERVER_WENT | {
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNKNOWN,
}
"""What another try may mend; whether the coordinator heard is not known, and need not be: asking again is safe."""


class RerunRefused(Exception):
    """The coordinator will not make the run; the text says why."""


class CoordinatorAway(Exception):
    """It did not answer."""


class Coordinator(Protocol):
    """Who can have a task run again."""

    async def confirm(self, request: run_service_pb2.ConfirmFindingRequest) -> run_service_pb2.Run:
        """The run of this finding and number, made now or before. Raises RerunRefused, CoordinatorAway."""
        ...


class GrpcCoordinator:
    """The coordinator behind RunService."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._channel = open_channel(peer)
        self._stub: run_service_pb2_grpc.RunServiceAsyncStub = run_service_pb2_grpc.RunServiceStub(
            self._channel
        )

    async def confirm(self, request: run_service_pb2.ConfirmFindingRequest) -> run_service_pb2.Run:
        """Ask for the run."""
        try:
            answer = await self._stub.ConfirmFinding(
                request, metadata=self._peer.metadata, timeout=CALL_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            kind = CoordinatorAway if error.code() in _PASSING else RerunRefused
            raise kind(describe(error)) from error
        return answer.run

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
