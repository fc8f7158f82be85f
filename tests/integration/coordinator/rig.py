"""What tests of the coordinator share."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.api.v1 import (
    worker_service_pb2_grpc,
)
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import RpcFailure, parse
from tests.coordinators import create_request, tasks
from tests.scripted_worker import ScriptedWorker, scripted_worker


class Crew:
    """Scripted workers that leave with the test."""

    def __init__(self, peer: Peer, stack: AsyncExitStack) -> None:
        self._peer = peer
        self._stack = stack

    async def hire(self, *, credits: int = 64, attach: bool = True, **fields: object) -> ScriptedWorker:
        worker = await self._stack.enter_async_context(
            scripted_worker(self._peer, **fields)  # type: ignore[arg-type]  # a test's own fields
        )
        if attach:
            await worker.attach(credits=credits)
        return worker


async def start_run(client: Client, count: int = 3, **fields: object) -> RunHandle:
    run = await client.create_run(create_request("r", **fields))
    await run.submit_many(tasks(count))
    await run.seal()
    return run


async def failure_of(worker: ScriptedWorker) -> str:
    """The reason a stream ends with."""
    try:
        while True:
            await worker.hear()
    except grpc.aio.AioRpcError as error:
        return parse(error).reason


@asynccontextmanager
async def resumed_worker(worker: ScriptedWorker, peer: Peer) -> AsyncIterator[ScriptedWorker]:
    """The same session at another coordinator."""
    async with open_channel(peer) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        yield ScriptedWorker(peer, stub, worker.session)


async def refusal(call: Any) -> RpcFailure:
    """How a call fails; it must."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return parse(caught.value)


async def end_of(worker: ScriptedWorker) -> RpcFailure:
    """How a worker's stream ends."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while True:
            await worker.hear()
    return parse(caught.value)
