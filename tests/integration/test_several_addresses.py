"""A channel to several addresses reaches the one that serves: past one that refuses, by name, over TLS."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dtf.rpc.certificates import FileCertificates
from dtf.rpc.channel import Peer, open_channel, open_sync_channel
from dtf.rpc.server import ListenAddress, RpcServer
from tests.e2e.test_tls import make_certificate

TIMEOUT_SECONDS = 90.0


@pytest.fixture
def held() -> Iterator[str]:
    """An address that is held without listening, as a standby's is."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest_asyncio.fixture
async def served() -> AsyncIterator[str]:
    server = RpcServer(ListenAddress("127.0.0.1:0", ""))
    yield await server.start()
    await server.stop(0)


async def is_serving(peer: Peer) -> bool:
    async with open_channel(peer) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        request = health_pb2.HealthCheckRequest()
        answer = await stub.Check(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_an_address_that_refuses_is_passed_by(held: str, served: str) -> None:
    assert await is_serving(Peer((held, served)))
    assert await is_serving(Peer((served, held)))


async def test_names_are_resolved(held: str, served: str) -> None:
    port = served.rpartition(":")[2]
    assert await is_serving(Peer((held, f"localhost:{port}")))


async def test_a_name_that_is_not_known_does_not_hide_the_others(served: str) -> None:
    assert await is_serving(Peer(("no-such-host.invalid:7070", served)))


def test_blocking_channels_do_the_same(held: str) -> None:
    with open_sync_channel(Peer((held, held))) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=0.5)


async def test_over_tls_every_certificate_is_good_for_the_first_host(held: str, tmp_path: Path) -> None:
    made, key = make_certificate(tmp_path)
    server = RpcServer(ListenAddress("127.0.0.1:0", "", FileCertificates(str(made), str(key))))
    try:
        address = await server.start()
        assert await is_serving(Peer((held, address), certificate_authority_file=str(made)))
    finally:
        await server.stop(0)


async def test_a_port_that_is_reserved_is_refused_to_callers_and_served_later() -> None:
    server = RpcServer(ListenAddress("127.0.0.1:0", ""))
    address = server.reserve()
    host, _, port = address.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), TIMEOUT_SECONDS)
    try:
        assert await server.start() == address
        assert await is_serving(Peer((address,)))
    finally:
        await server.stop(0)
