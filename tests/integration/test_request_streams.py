"""gRPC repeats no stream of requests by itself: what it repeats while it is written may lack a message."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.api.v1 import (
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.rpc.channel import Option, Peer, open_channel
from tests.scripted_worker import WAIT_SECONDS


class Leaving:
    """Goes away in the midst of the first call, or of every stream of requests, and answers otherwise."""

    def __init__(self) -> None:
        self.calls = 0

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        self.calls += 1
        async for _ in requests:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "leaving")

    async def single(self, request: Any, context: Any) -> bytes:
        self.calls += 1
        if self.calls == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "leaving")
        return b""

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        stream: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(self.stream)
        single: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(self.single)
        return [
            grpc.method_handlers_generic_handler(f"dtf.api.v1.{service}", {method: handler})
            for service, method, handler in (
                ("WorkerService", "Attach", stream),
                ("RunService", "SubmitTasks", stream),
                ("FleetService", "ListWorkers", single),
            )
        ]


@asynccontextmanager
async def channel_to(servicer: Leaving, *extra: Option) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(servicer.handlers()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(Peer((f"127.0.0.1:{port}",)), extra) as channel:
        yield channel
    await server.stop(None)


@pytest.mark.parametrize("method", ["Attach", "SubmitTasks"])
async def test_a_broken_stream_of_requests_is_its_openers_to_open_again(method: str) -> None:
    servicer = Leaving()
    async with channel_to(servicer) as channel:
        if method == "Attach":
            worker = worker_service_pb2_grpc.WorkerServiceStub(channel)
            call: Any = worker.Attach(timeout=WAIT_SECONDS)
            await call.write(worker_service_pb2.AttachRequest())
        else:
            runs = run_service_pb2_grpc.RunServiceStub(channel)
            call = runs.SubmitTasks(timeout=WAIT_SECONDS)
            await call.write(run_service_pb2.SubmitTasksRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="leaving"):
            await call.read()
    assert servicer.calls == 1


async def test_a_call_of_one_request_is_repeated_unless_the_channel_is_told_not_to() -> None:
    servicer = Leaving()
    async with channel_to(servicer) as channel:
        await fleet_service_pb2_grpc.FleetServiceStub(channel).ListWorkers(
            fleet_service_pb2.ListWorkersRequest(), timeout=WAIT_SECONDS
        )
    assert servicer.calls == 2
    servicer = Leaving()
    async with channel_to(servicer, ("grpc.enable_retries", 0)) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="leaving"):
            await fleet_service_pb2_grpc.FleetServiceStub(channel).ListWorkers(
                fleet_service_pb2.ListWorkersRequest(), timeout=WAIT_SECONDS
            )
    assert servicer.calls == 1
