"""What who shows no credential can make a server hold: little, and not for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtf.rpc.open_calls import READS_OF_ONE, WATCHES_OF_ONE, Health, SmallRequests
from dtf.rpc.server import ListenAddress, RpcServer

pytestmark = pytest.mark.coordinator
WAIT_SECONDS = 60.0
SERVICE = "example.Echo"


class Echo:
    """A service of one method, which only who has the token may call."""

    @staticmethod
    def add(_servicer: object, server: grpc.aio.Server) -> None:
        async def answer(request: bytes, _context: object) -> bytes:
            return request

        methods: dict[str, Any] = {"Say": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """To a server as it is built for both processes."""
    server = RpcServer(ListenAddress("127.0.0.1:0", "secret"), [(SERVICE, Echo.add, None)])
    async with grpc.aio.insecure_channel(await server.start()) as opened:
        yield opened
    await server.stop(0)


@pytest.fixture
def health(channel: grpc.aio.Channel) -> Any:
    stub: Any = health_pb2_grpc.HealthStub
    return stub(channel)


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


async def code_of(call: Any) -> grpc.StatusCode:
    async with asyncio.timeout(WAIT_SECONDS):
        code = await call.code()
    assert isinstance(code, grpc.StatusCode)
    return code


async def first_of(call: Any) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        return await call.read()


async def answer_to(watch: Any) -> object:
    """What a watch says first, or the code it is refused with."""
    try:
        return await first_of(watch)
    except grpc.aio.AioRpcError as error:
        return error.code()


@pytest.mark.parametrize(
    ("service", "code"),
    [
        ("example.Nothing", grpc.StatusCode.NOT_FOUND),
        ("n" * 5000, grpc.StatusCode.INVALID_ARGUMENT),
        ("n" * 15 * 2**20, grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["unknown", "long", "very long"],
)
async def test_a_name_that_is_not_served_is_refused_at_once(
    health: Any, service: str, code: grpc.StatusCode
) -> None:
    assert await code_of(health.Watch(request(service))) is code
    assert await code_of(health.Check(request(service))) is code
    served = health.Watch(request(SERVICE))
    assert (await first_of(served)).status == health_pb2.HealthCheckResponse.SERVING
    served.cancel()


async def test_one_address_keeps_only_so_many_watches(health: Any) -> None:
    watches = [health.Watch(request()) for _ in range(WATCHES_OF_ONE)]
    for watch in watches:
        await first_of(watch)
    assert await code_of(health.Watch(request())) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await health.Check(request())).status == health_pb2.HealthCheckResponse.SERVING
    watches.pop().cancel()
    async with asyncio.timeout(WAIT_SECONDS):
        while await answer_to(later := health.Watch(request())) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            pass  # until the server has seen the end of that watch
    for watch in (*watches, later):
        watch.cancel()


async def test_a_call_without_a_credential_is_refused_before_its_request_is_read(
    channel: grpc.aio.Channel,
) -> None:
    never_sent: Any = channel.stream_unary(f"/{SERVICE}/Say")()
    assert await code_of(never_sent) is grpc.StatusCode.UNAUTHENTICATED
    say: Any = channel.unary_unary(f"/{SERVICE}/Say")
    assert await code_of(say(b"hello")) is grpc.StatusCode.UNAUTHENTICATED
    assert await say(b"hello", metadata=[("authorization", "Bearer secret")]) == b"hello"


@asynccontextmanager
async def impatient_server() -> AsyncIterator[grpc.aio.Channel]:
    """Serves health, and waits a short time for requests."""
    server = grpc.aio.server(interceptors=[SmallRequests(read_seconds=0.5)])
    add: Any = health_pb2_grpc.add_HealthServicer_to_server
    add(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(0)


async def test_who_sends_nothing_gives_its_place_back() -> None:
    async with impatient_server() as channel:
        silent: list[Any] = [
            channel.stream_unary("/grpc.health.v1.Health/Check")() for _ in range(READS_OF_ONE)
        ]
        for call in silent:
            assert await code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
        stub: Any = health_pb2_grpc.HealthStub
        answer = await stub(channel).Check(request())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
