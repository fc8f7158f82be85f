"""Joining from outside: who has a token gets in, and every other way in ends in one line that says what to do."""

import logging
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.message import Message

from dtf.adapters.memory_log import MemoryLog
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import (
    common_pb2,
    fleet_service_pb2,
    token_service_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.cli.errors import CommandError
from dtf.cli.joining import peer_of
from dtf.client.client import Client, CoordinatorUnreachable
from dtf.rpc import failed_attempts
from dtf.rpc.channel import Peer, open_channel
from dtf.rpc.errors import RpcFailure, parse
from dtf.rpc.failed_attempts import BURST
from dtf.rpc.invitation import parse_invitation, session_credential
from tests.integration.coordinator.rig import refusal
from tests.integration.joining_rig import (
    OPERATORS_TOKEN,
    Cluster,
    OutsideWorker,
    address_beyond_loopback,
    eventually,
    joining_peer,
)
from tests.scripted_worker import WAIT_SECONDS, Assigned, scripted_worker

pytestmark = [pytest.mark.coordinator, pytest.mark.worker]


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A coordinator that listens beyond loopback where this machine allows it."""
    running = Cluster(tmp_path / "cluster", MemoryLog(), address_beyond_loopback())
    await running.start()
    yield running
    await running.close()


def joining(tmp_path: Path, text: str, *options: str) -> OutsideWorker:
    path = tmp_path / f"token-{len(list(tmp_path.iterdir()))}"
    path.write_text(f"{text}\n")
    return OutsideWorker(tmp_path / "outside", "--join-file", str(path), *options)


async def refused(worker: OutsideWorker, code: int = 1) -> str:
    """The one line of what happened; one of what to do follows it."""
    returncode, errors = await worker.end()
    lines = [line for line in errors.splitlines() if not line[:1].isdigit()]
    assert returncode == code, errors
    assert lines[0].startswith("error: ")
    assert len(lines) == 2, errors
    assert "Traceback" not in errors
    return "\n".join(lines)


async def test_a_worker_joins_with_nothing_but_a_token_which_nobody_gets_to_see(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = await cluster.issue(pool="special", is_single_use=True)
    worker = OutsideWorker(tmp_path / "outside", variable=text)
    try:
        worker_id = await worker.ready()
        (registered,) = cluster.events("worker_registered")
        assert registered.worker_registered.join_token_id == parse_invitation(text).token_id
        assert registered.worker_registered.pool == "special"
        async with cluster.client() as client:
            run = await client.start_run("s", commands=[["echo", "it ran"]])
            assert (await run.result()).counts.passed == 1
            assert (await client.tokens.list(include_ended=True))[0].last_worker_id == worker_id
        seen = [caplog.text, *(stored.payload.decode("latin-1") for stored in cluster.log.commits)]
        seen += [worker.traces(name) for name in ("cmdline", "environ")]
        worker.process.send_signal(signal.SIGTERM)
        code, errors = await worker.end()
        assert code == 0, errors
        for secret in (parse_invitation(text).secret, text, OPERATORS_TOKEN):
            assert not [where for where in (*seen, errors) if secret in where]
    finally:
        worker.close()


async def test_a_token_that_ended_admits_nobody_and_says_why(cluster: Cluster, tmp_path: Path) -> None:
    spent, revoked = await cluster.issue(is_single_use=True), await cluster.issue()
    async with cluster.client() as client:
        token = await client.tokens.revoke(parse_invitation(revoked).token_id[:5], revoked_by="ann")
        assert token.state == token_service_pb2.JOIN_TOKEN_STATE_REVOKED
    _, peer = joining_peer(spent)
    async with scripted_worker(peer, worker_id="first"), cluster.client() as client:
        expired = await cluster.issue(lifetime_seconds=1.0)
        while await client.tokens.list():
            pass
        workers = [joining(tmp_path, text) for text in (spent, revoked, expired)]
        said = [await refused(worker) for worker in workers]
    assert "was for one worker, and first came with it" in said[0]
    assert "was revoked by ann" in said[1]
    assert "by the coordinator's clock" in said[2]
    assert all("dtf token create" in text for text in said)


async def test_a_token_is_for_its_cluster(cluster: Cluster, tmp_path: Path) -> None:
    text = await cluster.issue()
    # Another cluster, whose operator uses the same authority for both.
    other = Cluster(cluster.directory, MemoryLog(), cluster.host)
    await other.start()
    try:
        await other.issue()
        said = await refused(joining(tmp_path, text, "--server", other.address))
        assert "the join token is of cluster" in said
    finally:
        await other.close()


async def test_a_coordinator_of_another_authority_on_the_same_port_is_told_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    text = await cluster.issue()
    await cluster.stop()
    impostor = Cluster(tmp_path / "impostor", MemoryLog(), cluster.host, cluster.address)
    await impostor.start()
    try:
        said = await refused(joining(tmp_path, text))
        assert "is not the coordinator of this token" in said
        assert "nothing was sent" in said
        # A worker that was told to trust the right authority is not taken in either, further on.
        async with open_channel(replace(cluster.peer, addresses=(impostor.address,))) as channel:
            stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            call = stub.CreateSession(worker_service_pb2.CreateSessionRequest(), timeout=WAIT_SECONDS)
            failure = await refusal(call)
        assert (failure.code, "CERTIFICATE_VERIFY_FAILED" in failure.message) == (
            grpc.StatusCode.UNAVAILABLE,
            True,
        )
        assert list(impostor.events("worker_registered")) == []
    finally:
        await impostor.close()


async def test_after_a_rotation_old_tokens_are_refused_and_workers_stay(
    cluster: Cluster, tmp_path: Path
) -> None:
    old = await cluster.issue()
    worker = OutsideWorker(tmp_path / "outside", "--join", old)
    try:
        await worker.ready()
        cluster.authority.rotate()
        assert "its certificates were changed since" in await refused(joining(tmp_path, old))
        async with scripted_worker(joining_peer(await cluster.issue())[1]):
            pass
        # The coordinator is started anew: the worker comes back over a new connection.
        await cluster.stop()
        await cluster.start()
        async with cluster.client() as client:
            run = await client.start_run("s", commands=[["true"]])
            assert (await run.result()).counts.passed == 1
        assert worker.process.poll() is None
    finally:
        worker.close()


async def test_plaintext_and_tls_do_not_meet(cluster: Cluster, tmp_path: Path) -> None:
    async with Client(replace(cluster.peer, certificate_authority_file="")) as client:
        with pytest.raises(CoordinatorUnreachable, match="it speaks TLS: certificate_authority_file"):
            await client.wait_connected(3.0)
    text = await cluster.issue()
    await cluster.stop()
    plain = Cluster(tmp_path / "plain", MemoryLog(), has_tls=False)
    await plain.start()
    try:
        said = await refused(joining(tmp_path, text, "--server", plain.address))
        assert "does not speak TLS, which the join token asks for; nothing was sent" in said
        async with Client(replace(cluster.peer, addresses=(plain.address,))) as client:
            with pytest.raises(CoordinatorUnreachable, match="it does not speak TLS: leave certificate_auth"):
                await client.wait_connected(3.0)
        # On this machine a token without TLS is good; to another one its secret would travel in the open.
        async with scripted_worker(joining_peer(await plain.issue())[1]):
            pass
        elsewhere = parse_invitation(await plain.issue(addresses=["192.0.2.77:7070"]))
        with pytest.raises(CommandError, match=r"192\.0\.2\.77:7070 is on another machine: nothing was sent"):
            await peer_of(elsewhere, elsewhere.addresses, SystemClock())
    finally:
        await plain.close()


async def test_a_worker_whose_session_was_lost_comes_back_though_its_token_is_spent(
    cluster: Cluster, tmp_path: Path
) -> None:
    await cluster.stop()
    cluster.settings = replace(cluster.settings, heartbeat_seconds=0.2, lease_seconds=2.0)
    await cluster.start()
    worker = joining(tmp_path, await cluster.issue(is_single_use=True), "--name", "w")
    try:
        await worker.ready()
        worker.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: bool(list(cluster.events("worker_lost"))), "the worker was lost")
        worker.process.send_signal(signal.SIGCONT)
        await eventually(lambda: len(list(cluster.events("worker_registered"))) > 1, "it registered again")
        said = [event.worker_registered for event in cluster.events("worker_registered")]
        assert [(item.worker_id, item.incarnation) for item in said[:2]] == [("w", 1), ("w", 2)]
        assert said[0].join_token_id == said[1].join_token_id != ""
    finally:
        worker.close()


async def test_tokens_and_sessions_outlive_their_coordinator(cluster: Cluster) -> None:
    text, ended = await cluster.issue(), await cluster.issue()
    async with cluster.client() as client:
        await client.tokens.revoke(parse_invitation(ended).token_id)
    await cluster.stop()
    await cluster.start()
    _, peer = joining_peer(text)
    async with scripted_worker(peer, worker_id="w"):
        with pytest.raises(grpc.aio.AioRpcError, match="was revoked"):
            async with scripted_worker(joining_peer(ended)[1]):
                pytest.fail("it was let in")
        second = parse_invitation(await cluster.issue())
        assert second.cluster_id == parse_invitation(text).cluster_id


async def failure_of(peer: Peer, credential: str, service: str, method: str, request: Message) -> RpcFailure:
    async with open_channel(peer) as channel:
        call: Any = channel.unary_unary(f"/dtf.api.v1.{service}/{method}")
        metadata = (("authorization", f"Bearer {credential}"),)
        return await refusal(call(request.SerializeToString(), metadata=metadata, timeout=WAIT_SECONDS))


async def fetch_failure(
    peer: Peer, credential: str, request: worker_service_pb2.FetchBlobRequest
) -> RpcFailure:
    async with open_channel(peer) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        metadata = (("authorization", f"Bearer {credential}"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.FetchBlob(request, metadata=metadata, timeout=WAIT_SECONDS):
                pass
    return parse(caught.value)


async def test_a_token_and_a_session_open_no_other_door(cluster: Cluster) -> None:
    invitation, peer = joining_peer(await cluster.issue())
    async with scripted_worker(peer, worker_id="w") as worker:
        session = session_credential("w", 1, worker.session.session_token)
        drain = fleet_service_pb2.DrainWorkerRequest(worker_id="w")
        issue = token_service_pb2.IssueTokenRequest(pool="local")
        close = worker_service_pb2.CloseSessionRequest()
        for credential, said in (
            (invitation.credential, "a join token opens"),
            (session, "a worker's session"),
        ):
            for service, method, request in (
                ("FleetService", "DrainWorker", drain),
                ("TokenService", "IssueToken", issue),
            ):
                failure = await failure_of(peer, credential, service, method, request)
                assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
                assert failure.message.startswith(said)
        failure = await failure_of(peer, invitation.credential, "WorkerService", "CloseSession", close)
        assert failure.reason == "FORBIDDEN"
        theft = worker_service_pb2.CreateSessionRequest(worker_id="x", slots=1, request_id="r", pool="local")
        failure = await failure_of(peer, session, "WorkerService", "CreateSession", theft)
        assert (failure.reason, "of another worker" in failure.message) == ("FORBIDDEN", True)
        for forged in (session[:-1] + "x", session.replace("/1/", "/2/"), f"{invitation.credential}x", ""):
            failure = await failure_of(peer, forged, "WorkerService", "CloseSession", close)
            assert failure.code is grpc.StatusCode.UNAUTHENTICATED, forged
        with pytest.raises(grpc.aio.AioRpcError, match="the session of worker w is open"):
            async with scripted_worker(peer, worker_id="w"):
                pytest.fail("it took the place of another")
        async with scripted_worker(cluster.peer, worker_id="w"):
            failure = await fetch_failure(peer, session, worker_service_pb2.FetchBlobRequest(digest="0" * 64))
            assert "session 1 of worker 'w' is over" in failure.message


async def test_a_session_writes_the_output_of_its_own_attempts_only(cluster: Cluster) -> None:
    _, peer = joining_peer(await cluster.issue())
    async with (
        cluster.client() as client,
        scripted_worker(peer, worker_id="mine") as mine,
        scripted_worker(peer, worker_id="theirs") as theirs,
    ):
        await client.start_run("s", commands=[["true"], ["true"]])
        for worker in (mine, theirs):
            worker.peer = replace(
                peer, token=session_credential(worker.worker_id, 1, worker.session.session_token)
            )
            await worker.attach(credits=1)
        (own,), (other,) = await mine.hear_leases(1), await theirs.hear_leases(1)

        async def upload(lease: Assigned) -> RpcFailure | None:
            async def pieces() -> AsyncIterator[worker_service_pb2.UploadOutputRequest]:
                target = worker_service_pb2.OutputTarget(
                    run_id=lease.run_id, task=lease.task, attempt=lease.attempt, fence=lease.fence
                )
                yield worker_service_pb2.UploadOutputRequest(output=target, data=b"x")

            try:
                await mine.stub.UploadOutput(pieces(), metadata=mine.peer.metadata, timeout=WAIT_SECONDS)
            except grpc.aio.AioRpcError as error:
                return parse(error)
            return None

        failure = await upload(other)
        assert failure is not None
        assert (failure.reason, "its own attempts only" in failure.message) == ("FORBIDDEN", True)
        assert await upload(own) is None
        await mine.pass_all()
        assert await upload(own) is None


async def test_a_token_of_a_launch_gives_no_name_but_that_of_the_launch(cluster: Cluster) -> None:
    invitation, peer = joining_peer(await cluster.issue(launch_id="launch-1"))

    def session(worker_id: str) -> worker_service_pb2.CreateSessionRequest:
        return worker_service_pb2.CreateSessionRequest(
            worker_id=worker_id, slots=1, request_id=worker_id or "r", pool="local", launch_id="launch-1"
        )

    where = ("WorkerService", "CreateSession")
    failure = await failure_of(peer, invitation.credential, *where, session("launch-2"))
    assert (failure.reason, "is called 'launch-2'" in failure.message) == ("TOKEN_REFUSED", True)
    async with open_channel(peer) as channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
        for name in ("launch-1", ""):
            await stub.CreateSession(session(name), metadata=peer.metadata, timeout=WAIT_SECONDS)
    names = [event.worker_registered.worker_id for event in cluster.events("worker_registered")]
    assert (len(names), names[0]) == (2, "launch-1")


async def test_a_quarantined_worker_is_served_nothing_and_a_new_session_does_not_help(
    cluster: Cluster,
) -> None:
    _, peer = joining_peer(await cluster.issue(is_single_use=True))
    async with scripted_worker(peer, worker_id="w") as worker, cluster.client() as client:
        session = session_credential("w", 1, worker.session.session_token)
        quarantine = fleet_service_pb2.QuarantineWorkerRequest(worker_id="w", requested_by="me", reason="odd")
        await client.fleet.QuarantineWorker(quarantine, metadata=client.metadata)
        fetch = worker_service_pb2.FetchBlobRequest(digest="0" * 64)
        failure = await fetch_failure(peer, session, fetch)
        assert (failure.reason, failure.message) == ("FORBIDDEN", "worker 'w' is in quarantine: odd")
        async with scripted_worker(replace(peer, token=session), worker_id="w") as again:
            assert again.session.incarnation == 2
            later = session_credential("w", 2, again.session.session_token)
            assert (await fetch_failure(peer, later, fetch)).reason == "FORBIDDEN"
            (listed,) = await client.list_workers()
            assert (listed.state, listed.incarnation) == (common_pb2.WORKER_STATE_QUARANTINED, 2)


async def test_who_guesses_has_to_wait_and_open_sessions_do_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_attempts, "REFILL_SECONDS", 3600.0)  # however slowly it guesses
    _, peer = joining_peer(await cluster.issue())
    async with scripted_worker(peer, worker_id="w") as worker, open_channel(cluster.peer) as channel:
        close: Any = channel.unary_unary("/dtf.api.v1.FleetService/GetFleet")
        wrong = (("authorization", "Bearer guess"),)
        codes = [
            (await refusal(close(b"", metadata=wrong, timeout=WAIT_SECONDS))).reason for _ in range(BURST + 3)
        ]
        assert codes[0] == "UNAUTHENTICATED"
        assert codes[-1] == "TOO_MANY_FAILURES"
        right = cluster.peer.metadata
        assert (await refusal(close(b"", metadata=right, timeout=WAIT_SECONDS))).reason == "TOO_MANY_FAILURES"
        worker.peer = replace(peer, token=session_credential("w", 1, worker.session.session_token))
        await worker.attach(credits=1)
