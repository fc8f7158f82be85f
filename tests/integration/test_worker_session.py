"""The session against a scripted coordinator: what each refusal means, and what is said again after a break."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.api.v1.worker_service_pb2_grpc import WorkerServiceStub, add_WorkerServiceServicer_to_server
from dtf.core.run.commands import InvalidRequest, Rejection
from dtf.rpc.errors import StaleSession, Unauthenticated, UnknownSession, refuse
from dtf.runner.channel import ResultItem
from dtf.worker.outbound import Outbound
from dtf.worker.session import (
    Backoff,
    NoCoordinator,
    Session,
    SessionLost,
    SessionRefused,
    SessionReplaced,
    open_session,
)

pytestmark = pytest.mark.worker
PATIENCE_SECONDS = 90.0
Up = worker_service_pb2.AttachRequest
Down = worker_service_pb2.AttachResponse


class Script:
    """A WorkerService that plays one behaviour a stream."""

    def __init__(self) -> None:
        self.refusals: list[Rejection | None] = []
        """What ends each stream after its first message, the last one every later stream; None: it goes on."""
        self.streams: list[list[Up]] = []
        self.arrived = asyncio.Condition()
        self.breaks_after = 0
        """Break the first stream after this many numbered messages."""

    def hears(self, sequence: int, stream: int = 0) -> Callable[[], bool]:
        """Whether a message arrived on a stream."""
        return lambda: any(
            message.sequence == sequence
            for received in self.streams[stream : stream + 1]
            for message in received
        )

    async def CreateSession(self, request: Any, context: Any) -> Any:
        if self.refusals:
            rejection = self.refusals.pop(0)
            if rejection is not None:
                await refuse(context, rejection)
        return worker_service_pb2.CreateSessionResponse(worker_id="w", incarnation=3, session_token="t")

    async def Attach(self, _requests: Any, context: Any) -> None:
        received: list[Up] = []
        self.streams.append(received)
        rejection = self.refusals.pop(0) if len(self.refusals) > 1 else next(iter(self.refusals), None)
        while (message := await context.read()) is not grpc.aio.EOF:
            received.append(message)
            async with self.arrived:
                self.arrived.notify_all()
            if rejection is not None:
                await refuse(context, rejection)
            numbered = [each for each in received if each.sequence]
            if len(self.streams) == 1 and self.breaks_after and len(numbered) >= self.breaks_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            if len(self.streams) > 1 and message.sequence:
                await context.write(Down(acknowledged_sequence=message.sequence))

    async def CloseSession(self, request: Any, context: Any) -> Any:
        return worker_service_pb2.CloseSessionResponse()

    async def UploadOutput(self, requests: Any, context: Any) -> Any:
        return worker_service_pb2.UploadOutputResponse()

    async def FetchBlob(self, request: Any, context: Any) -> None:
        return None


class QuietHandler:
    """Holds two leases and takes five more."""

    def handle(self, message: Down) -> None:
        pass

    def known_runs(self) -> list[str]:
        return ["known"]

    def held_fences(self) -> list[int]:
        return [11, 12]

    def credits(self) -> int:
        return 5

    def state(self) -> "common_pb2.WorkerState.ValueType":
        return common_pb2.WORKER_STATE_ACTIVE


@asynccontextmanager
async def scripted() -> AsyncIterator[tuple[Script, Any]]:
    script = Script()
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(script, server)  # type: ignore[arg-type]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    try:
        yield script, WorkerServiceStub(channel)
    finally:
        await channel.close(None)
        await server.stop(None)


def session_of(stub: Any, outbound: Outbound) -> Session:
    opened = worker_service_pb2.CreateSessionResponse(worker_id="w", incarnation=3, session_token="t")
    return Session(stub, (), opened, outbound, QuietHandler(), SystemClock())


async def run(session: Session) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await session.run()


@pytest.mark.parametrize(
    ("refusals", "expected"),
    [
        ([UnknownSession("who?")] * 2, SessionLost),
        ([StaleSession("you were silent", incarnation="3")] * 2, SessionLost),
        ([StaleSession("you were silent"), StaleSession("over", incarnation="4")], SessionReplaced),
        ([StaleSession("over", incarnation="4")], SessionReplaced),
        ([InvalidRequest("nonsense")] * 2, SessionLost),
        ([Unauthenticated("no")], SessionRefused),
    ],
)
async def test_what_ends_a_session(refusals: list[Rejection | None], expected: type[Exception]) -> None:
    async with scripted() as (script, stub):
        script.refusals = refusals
        outbound = Outbound()
        outbound.beat()
        with pytest.raises(expected):
            await run(session_of(stub, outbound))


async def test_after_a_break_the_worker_says_what_it_holds_and_repeats_what_was_not_acknowledged() -> None:
    async with scripted() as (script, stub):
        script.breaks_after = 2
        outbound = Outbound()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(run(session_of(stub, outbound)))
            for fence in (1, 2):
                outbound.add_result("r", ResultItem(fence, 0, 1, 0.0, 0.0, 0, 0.0, True), b"", is_last=True)
                async with asyncio.timeout(PATIENCE_SECONDS), script.arrived:
                    await script.arrived.wait_for(script.hears(fence))
            async with asyncio.timeout(PATIENCE_SECONDS), script.arrived:
                await script.arrived.wait_for(script.hears(2, stream=1))
            running.cancel()
    first, *again = script.streams[1]
    assert list(first.session.held_fences) == [11, 12]
    assert list(first.session.known_runs) == ["known"]
    assert (first.session.worker_id, first.session.incarnation, first.credits) == ("w", 3, 5)
    assert [message.sequence for message in again if message.sequence] == [1, 2]
    assert not any(message.HasField("session") for message in again)


@pytest.mark.parametrize("rejection", [Unauthenticated("wrong token"), InvalidRequest("bad label")])
async def test_a_session_that_is_refused_is_not_asked_for_again(rejection: Rejection) -> None:
    async with scripted() as (script, stub):
        script.refusals = [rejection, None]
        with pytest.raises(SessionRefused, match=rejection.message):
            await open_session(stub, worker_service_pb2.CreateSessionRequest(), (), SystemClock(), 10.0)
        assert script.refusals == [None]


async def test_nobody_there_is_said_when_patience_ends() -> None:
    channel = grpc.aio.insecure_channel("127.0.0.1:1")
    stub: Any = WorkerServiceStub(channel)
    with pytest.raises(NoCoordinator):
        await open_session(stub, worker_service_pb2.CreateSessionRequest(), (), SystemClock(), 0.0)
    await channel.close(None)


def test_waits_between_tries_are_anywhere_below_a_limit_that_doubles_to_64_seconds() -> None:
    backoff = Backoff()
    waits = [backoff.next() for _ in range(200)]
    assert waits[0] <= 1
    assert waits[1] <= 2
    assert max(waits) <= 64
    assert max(waits) > 32
    assert min(waits[10:]) < 16
    backoff.reset()
    assert backoff.next() <= 1
