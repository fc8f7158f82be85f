"""Whatever comes in on any rpc: one clear error, and the state stays sound."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import (
    fleet_service_pb2,
    resource_service_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    token_service_pb2,
    worker_service_pb2,
)
from dtf.client.client import Client
from dtf.rpc.channel import RECEIVE_LIMIT_BYTES
from dtf.rpc.errors import RpcFailure, parse
from tests.coordinators import SETTINGS, create_request, peer_of, running_coordinator
from tests.integration.coordinator.rig import refusal
from tests.scripted_worker import WAIT_SECONDS

pytestmark = pytest.mark.coordinator


SERVICES = [
    (run_service_pb2, "RunService"),
    (worker_service_pb2, "WorkerService"),
    (fleet_service_pb2, "FleetService"),
    (resource_service_pb2, "ResourceService"),
    (token_service_pb2, "TokenService"),
]


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of one service, called with bytes."""

    path: str
    client_streaming: bool
    server_streaming: bool

    async def call(
        self, channel: grpc.aio.Channel, payload: bytes, metadata: Sequence[tuple[str, str]]
    ) -> RpcFailure:
        """Call it and return how it fails."""
        shape = "stream" if self.client_streaming else "unary"
        shape += "_stream" if self.server_streaming else "_unary"
        open_call: Callable[..., Any] = getattr(channel, shape)(self.path)
        try:
            if self.client_streaming:
                call = open_call(_once(payload), metadata=metadata, timeout=WAIT_SECONDS)
            else:
                call = open_call(payload, metadata=metadata, timeout=WAIT_SECONDS)
            if self.server_streaming:
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return parse(error)
        raise AssertionError(f"{self.path} took it")


async def _once(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


def _rpcs() -> Iterator[Rpc]:
    for module, name in SERVICES:
        method: MethodDescriptor
        for method in module.DESCRIPTOR.services_by_name[name].methods:
            path = f"/dtf.api.v1.{name}/{method.name}"
            yield Rpc(path, method.client_streaming, method.server_streaming)


RPCS = list(_rpcs())
every_rpc = pytest.mark.parametrize("rpc", RPCS, ids=[rpc.path.rpartition("/")[2] for rpc in RPCS])


@every_rpc
async def test_bytes_that_are_no_message(rpc: Rpc, channel: grpc.aio.Channel, client: Client) -> None:
    failure = await rpc.call(channel, b"\xff\xff\xff\xff", client.metadata)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.message.startswith("the message cannot be parsed")
    assert (await client.get_fleet()).log_sequence == 1


@every_rpc
async def test_a_message_beyond_the_receive_limit(
    rpc: Rpc, channel: grpc.aio.Channel, client: Client
) -> None:
    failure = await rpc.call(channel, bytes(RECEIVE_LIMIT_BYTES + 1), client.metadata)
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await client.get_fleet()).log_sequence == 1


@every_rpc
@pytest.mark.parametrize(
    "metadata",
    [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic YTpi"),)],
    ids=["no token", "a wrong token", "another scheme"],
)
async def test_a_call_without_the_token(
    rpc: Rpc, metadata: Sequence[tuple[str, str]], channel: grpc.aio.Channel
) -> None:
    failure = await rpc.call(channel, b"", metadata)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_an_empty_message_on_every_rpc_leaves_the_coordinator_sound(
    channel: grpc.aio.Channel, client: Client
) -> None:
    lenient = {
        "ListRuns",
        "GetFleet",
        "ListWorkers",
        "ListPools",
        "ListTokens",
        "SubmitTasks",
        "UploadOutput",
        "WatchRun",
    }
    for rpc in RPCS:
        if rpc.path.rpartition("/")[2] in lenient:
            continue
        failure = await rpc.call(channel, b"", client.metadata)
        assert failure.code in {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.UNAUTHENTICATED,
        }, rpc.path
    assert (await client.get_fleet()).log_sequence == 1


async def test_probes_need_no_token(channel: grpc.aio.Channel) -> None:
    health_stub: Any = health_pb2_grpc.HealthStub
    health = health_stub(channel)
    for service in ("", "dtf.api.v1.RunService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection_stub: Any = reflection_pb2_grpc.ServerReflectionStub
    reflection = reflection_stub(channel)

    async def questions() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async for response in reflection.ServerReflectionInfo(questions()):
        names = {service.name for service in response.list_services_response.service}
    assert {"dtf.api.v1.RunService", "dtf.api.v1.WorkerService", "dtf.api.v1.FleetService"} <= names


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate of this test, and is not installed")
    made, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    arguments = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {made} "
        "-days 1 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([openssl, *arguments.split()], check=True, capture_output=True)
    return made, key


async def test_tls_is_served_where_files_are_given_and_nothing_else(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    made, key = certificate
    settings = replace(SETTINGS, tls_certificate_file=str(made), tls_key_file=str(key))
    async with running_coordinator(MemoryLog(), tmp_path / "blobs", settings=settings) as coordinator:
        secure = replace(peer_of(coordinator), certificate_authority_file=str(made))
        async with Client(secure) as client:
            await client.create_run(create_request())
            assert len(await client.list_runs()) == 1
        async with grpc.aio.insecure_channel(coordinator.address) as plain:
            ask = run_service_pb2_grpc.RunServiceStub(plain).ListRuns
            call = ask(run_service_pb2.ListRunsRequest(), metadata=secure.metadata, timeout=WAIT_SECONDS)
            assert (await refusal(call)).code is grpc.StatusCode.UNAVAILABLE
