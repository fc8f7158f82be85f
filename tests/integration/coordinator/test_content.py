"""Blobs and output."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.memory_log import MemoryLog
from dtf.api.v1 import (
    common_pb2,
    run_service_pb2,
    worker_service_pb2,
)
from dtf.client.client import Client
from dtf.rpc.errors import RpcFailure
from dtf.settings.blobs import BlobSettings
from tests.coordinators import create_request, peer_of, running_coordinator, tasks
from tests.integration.coordinator.rig import Crew, refusal, start_run
from tests.scripted_worker import ScriptedWorker, scripted_worker

pytestmark = pytest.mark.coordinator


async def test_a_blob_comes_back_as_it_was_sent(client: Client) -> None:
    data = bytes(range(256)) * 3000
    blob = await client.upload_blob(data)
    assert await client.fetch_blob(blob.digest) == data
    assert (await client.upload_blob(b"")).size_bytes == 0


async def test_output_is_tailed_while_it_grows_until_the_run_ends(client: Client, workers: Crew) -> None:
    worker = await workers.hire()
    run = await start_run(client, 1)
    [lease] = await worker.hear_leases(1)
    target = worker_service_pb2.OutputTarget(run_id=run.run_id, task=0, attempt=1, fence=lease.fence)

    async def upload(offset: int, data: bytes) -> None:
        async def pieces() -> AsyncIterator[worker_service_pb2.UploadOutputRequest]:
            yield worker_service_pb2.UploadOutputRequest(output=target, offset_bytes=offset, data=data)

        answer = await worker.stub.UploadOutput(pieces(), metadata=worker.peer.metadata)
        assert answer.stored_bytes == len(data)

    await upload(0, b"one ")
    tail = client.tail_logs(run.run_id, follow=True)
    assert (await anext(tail)).data == b"one "
    await upload(4, b"two")
    await upload(4, b"two")
    assert (await anext(tail)).data == b"two"
    await worker.pass_all()
    with pytest.raises(StopAsyncIteration):
        await anext(tail)
    whole = b"".join([piece.data async for piece in client.tail_logs(run.run_id, task=0)])
    assert whole == b"one two"


async def upload_blob(client: Client, *requests: run_service_pb2.UploadBlobRequest) -> RpcFailure:
    async def pieces() -> AsyncIterator[run_service_pb2.UploadBlobRequest]:
        for request in requests:
            yield request

    return await refusal(client.runs.UploadBlob(pieces(), metadata=client.metadata))


def piece(digest: str, size: int, data: bytes) -> run_service_pb2.UploadBlobRequest:
    return run_service_pb2.UploadBlobRequest(blob=common_pb2.Blob(digest=digest, size_bytes=size), data=data)


async def test_blobs_that_are_not_what_they_say(client: Client) -> None:
    digest = "ab" * 32
    assert (await upload_blob(client)).code is grpc.StatusCode.INVALID_ARGUMENT
    bare = run_service_pb2.UploadBlobRequest(data=b"x")
    assert [item.field for item in (await upload_blob(client, bare)).violations] == ["blob"]
    for wrong in ("", "../../../etc/passwd", "AB" * 32, "ab" * 31):
        failure = await upload_blob(client, piece(wrong, 1, b"x"))
        assert [item.field for item in failure.violations] == ["blob.digest"]
    assert (await upload_blob(client, piece(digest, 1, b"x"))).reason == "BLOB_FAULT"
    assert "2 were announced" in (await upload_blob(client, piece(digest, 2, b"x"))).message
    more = run_service_pb2.UploadBlobRequest(data=b"yy")
    assert "more than the 1 bytes" in (await upload_blob(client, piece(digest, 1, b"x"), more)).message
    huge = await upload_blob(client, piece(digest, 300_000, bytes(300_000)))
    assert [item.field for item in huge.violations] == ["data"]
    assert (await refusal(client.fetch_blob(digest))).code is grpc.StatusCode.NOT_FOUND
    assert [item.field for item in (await refusal(client.fetch_blob("../x"))).violations] == ["digest"]


async def upload_output(
    worker: ScriptedWorker, *requests: worker_service_pb2.UploadOutputRequest
) -> RpcFailure:
    async def pieces() -> AsyncIterator[worker_service_pb2.UploadOutputRequest]:
        for request in requests:
            yield request

    return await refusal(worker.stub.UploadOutput(pieces(), metadata=worker.peer.metadata))


async def test_output_that_belongs_to_nothing(client: Client, worker: ScriptedWorker) -> None:
    run = await client.create_run(create_request())
    await run.submit_many(tasks(1))
    await worker.hear_leases(1)

    def output(**target: Any) -> worker_service_pb2.UploadOutputRequest:
        fields = {"run_id": run.run_id, "task": 0, "attempt": 1, **target}
        return worker_service_pb2.UploadOutputRequest(
            output=worker_service_pb2.OutputTarget(**fields), data=b"x"
        )

    nothing = worker_service_pb2.UploadOutputRequest(data=b"x")
    assert [item.field for item in (await upload_output(worker, nothing)).violations] == ["target"]
    for wrong in ({"run_id": "../x"}, {"task": 1}, {"attempt": 2}, {"attempt": 0}):
        assert (await upload_output(worker, output(**wrong))).code is grpc.StatusCode.NOT_FOUND
    gap = output()
    gap.offset_bytes = 10
    assert [item.field for item in (await upload_output(worker, gap)).violations] == ["offset_bytes"]
    split = worker_service_pb2.UploadOutputRequest(
        blob=common_pb2.Blob(digest="ab" * 32, size_bytes=4), data=b"xx"
    )
    assert (await upload_output(worker, split, output())).reason == "BLOB_FAULT"
    assert (await upload_output(worker, split)).reason == "BLOB_FAULT"


class FullStore(FileBlobStore):
    """A blob store on a full disk."""

    async def append_output(self, run_id: str, task: int, attempt: int, offset: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def put_stream(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_of_the_blob_store_is_named(tmp_path: Path) -> None:
    async with (
        running_coordinator(MemoryLog(), tmp_path, blobs=FullStore(tmp_path)) as coordinator,
        Client(peer_of(coordinator)) as client,
        scripted_worker(peer_of(coordinator)) as worker,
    ):
        failure = await upload_blob(client, piece("ab" * 32, 1, b"x"))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
        assert "No space left on device" in failure.message
        await worker.attach()
        run = await client.create_run(create_request())
        await run.submit_many(tasks(1))
        await worker.hear_leases(1)
        target = worker_service_pb2.OutputTarget(run_id=run.run_id, task=0, attempt=1)
        output = worker_service_pb2.UploadOutputRequest(output=target, data=b"x")
        assert (await upload_output(worker, output)).reason == "STORE_FULL"


async def test_what_has_no_room_in_the_quota_is_refused_in_one_line(tmp_path: Path) -> None:
    rules = BlobSettings(max_bytes=1000, max_age_days=0.0)
    async with (
        running_coordinator(MemoryLog(), tmp_path, blob_rules=rules) as coordinator,
        Client(peer_of(coordinator)) as client,
        scripted_worker(peer_of(coordinator)) as worker,
    ):
        await client.upload_blob(b"x" * 900)
        failure = await upload_blob(client, piece("ab" * 32, 200, b"y" * 200))
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
        assert failure.message.startswith("the blob store is full: 900 of 1,000 bytes are used")
        assert "\n" not in failure.message
        await worker.attach()
        run = await start_run(client, 1)
        [lease] = await worker.hear_leases(1)
        target = worker_service_pb2.OutputTarget(run_id=run.run_id, task=0, attempt=1, fence=lease.fence)
        output = worker_service_pb2.UploadOutputRequest(output=target, data=b"z" * 200)
        assert (await upload_output(worker, output)).reason == "STORE_FULL"
        fleet = await client.get_fleet()
        assert (fleet.blob_bytes, fleet.blob_limit_bytes, fleet.blob_removed_count) == (900, 1000, 0)
