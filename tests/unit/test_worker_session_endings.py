"""A stream that ends is attached again, whatever its two tasks ended with."""

import asyncio
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.worker.outbound import Outbound
from dtf.worker.session import Backoff, Broken, Session
from tests.fakes import FakeClock

GONE = grpc.aio.AioRpcError(
    grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "Socket closed"
)


class Call:
    """A stream whose reading and writing end as told, both in the same turn."""

    def __init__(self, reading: Exception, writing: Exception) -> None:
        self._reading = reading
        self._writing = writing

    async def read(self) -> object:
        raise self._reading

    async def write(self, _message: object) -> None:
        raise self._writing

    def done(self) -> bool:
        return True

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    async def details(self) -> str:
        return "Socket closed"

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    def cancel(self) -> bool:
        return False


class Stub:
    """Hands out one call."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def Attach(self, **_options: object) -> Call:
        return self._call


class Idle:
    """A worker that holds nothing."""

    def handle(self, message: worker_service_pb2.AttachResponse) -> None:
        raise AssertionError(message)

    def known_runs(self) -> list[str]:
        return ["known"]

    def held_fences(self) -> list[int]:
        return []

    def credits(self) -> int:
        return 1

    def state(self) -> "common_pb2.WorkerState.ValueType":
        return common_pb2.WORKER_STATE_ACTIVE


@pytest.mark.parametrize(
    ("reading", "writing"),
    [
        pytest.param(GONE, GONE, id="both hear the status"),
        pytest.param(GONE, asyncio.InvalidStateError("RPC already finished."), id="the writer comes late"),
        pytest.param(
            Broken("ended"), asyncio.InvalidStateError("RPC already finished."), id="nobody hears it"
        ),
        pytest.param(Broken("ended"), TimeoutError(), id="the write hung"),
    ],
)
async def test_a_stream_that_broke_is_broken_and_nothing_else(
    clock: FakeClock, reading: Exception, writing: Exception
) -> None:
    stub = cast(Any, Stub(Call(reading, writing)))
    opened = worker_service_pb2.CreateSessionResponse(worker_id="w", incarnation=1)
    session = Session(stub, (), opened, Outbound(), Idle(), clock)
    with pytest.raises(Broken):
        await session._attach()


async def test_a_fault_of_our_own_is_not_taken_for_a_broken_stream(clock: FakeClock) -> None:
    stub = cast(Any, Stub(Call(GONE, ValueError("ours"))))
    opened = worker_service_pb2.CreateSessionResponse(worker_id="w", incarnation=1)
    session = Session(stub, (), opened, Outbound(), Idle(), clock)
    with pytest.raises(BaseExceptionGroup) as raised:
        await session._attach()
    assert raised.group_contains(ValueError, match="ours")


def test_attaching_again_is_put_off_longer_and_longer_but_never_for_long() -> None:
    waits = [[backoff.next() for _ in range(12)] for backoff in [Backoff(2.5) for _ in range(200)]]
    assert max(wait[0] for wait in waits) <= 0.2
    assert max(max(wait) for wait in waits) <= 2.5
    assert max(wait[-1] for wait in waits) > 1.5
