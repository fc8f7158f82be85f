"""Output and blobs on their way: in order, again after a break, dropped only when refused."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.runner.channel import Detail, ResultItem
from dtf.worker.leases import LeaseBook
from dtf.worker.outbound import Outbound
from dtf.worker.reporter import Reporter
from dtf.worker.uploads import MAX_CALL_BYTES, PIECE_BYTES, RETRY_SECONDS, Uploads
from tests.fakes import FakeClock

Request = worker_service_pb2.UploadOutputRequest
TARGET = worker_service_pb2.OutputTarget(run_id="r", task=1, attempt=2, fence=3)


class Store:
    """Takes uploads as the coordinator does; fails on request."""

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []
        self.failures: list[grpc.StatusCode] = []
        self.refuses: Callable[[Request], bool] = lambda request: False

    async def send(self, requests: AsyncIterator[Request]) -> None:
        received = [request async for request in requests]
        if self.failures:
            raise failed(self.failures.pop(0))
        if any(map(self.refuses, received)):
            raise failed(grpc.StatusCode.INVALID_ARGUMENT)
        self.calls.append(received)

    @property
    def pieces(self) -> list[tuple[int, bytes]]:
        return [(request.offset_bytes, request.data) for call in self.calls for request in call]


def failed(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "as told")


@asynccontextmanager
async def working(store: Store, clock: FakeClock) -> AsyncIterator[tuple[Uploads, asyncio.TaskGroup]]:
    uploads = Uploads(store.send, clock)
    async with asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(uploads.run())
        try:
            yield uploads, tasks
        finally:
            loop.cancel()


async def within(awaitable: "Coroutine[Any, Any, Any] | asyncio.Future[Any]") -> Any:
    async with asyncio.timeout(60):
        return await awaitable


async def test_what_gathered_goes_in_one_call_in_pieces(clock: FakeClock) -> None:
    store = Store()
    async with working(store, clock) as (uploads, _):
        first = uploads.put_output(TARGET, 0, b"a" * (PIECE_BYTES + 1))
        second = uploads.put_output(TARGET, PIECE_BYTES + 1, b"b")
        assert await within(first)
        assert await within(second)
    assert len(store.calls) == 1
    assert [(offset, len(data)) for offset, data in store.pieces] == [
        (0, PIECE_BYTES),
        (PIECE_BYTES, 1),
        (PIECE_BYTES + 1, 1),
    ]


async def test_a_call_is_bounded(clock: FakeClock) -> None:
    store = Store()
    async with working(store, clock) as (uploads, _):
        done = [uploads.put_output(TARGET, n, b"x" * (MAX_CALL_BYTES // 2)) for n in range(3)]
        assert all([await within(each) for each in done])
    assert [sum(len(request.data) for request in call) for call in store.calls] == [
        MAX_CALL_BYTES,
        MAX_CALL_BYTES // 2,
    ]


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
async def test_a_broken_call_is_made_again_until_it_works(clock: FakeClock, code: grpc.StatusCode) -> None:
    store = Store()
    store.failures = [code, code]
    async with working(store, clock) as (uploads, _):
        done = uploads.put_output(TARGET, 0, b"x")
        for _ in range(2):
            await within(clock.wait_for_sleeper())
            assert not done.done()
            await clock.advance(RETRY_SECONDS)
        assert await within(done)
    assert store.pieces == [(0, b"x")]


async def test_what_is_refused_is_dropped_alone(clock: FakeClock) -> None:
    store = Store()
    store.refuses = lambda request: request.data == b"bad"
    async with working(store, clock) as (uploads, _):
        done = [uploads.put_output(TARGET, n, data) for n, data in enumerate((b"good", b"bad", b"fine"))]
        assert [await within(each) for each in done] == [True, False, True]
    assert [data for _, data in store.pieces] == [b"good", b"fine"]


async def test_a_blob_is_announced_by_its_digest(clock: FakeClock) -> None:
    store = Store()
    async with working(store, clock) as (uploads, _):
        blob = await within(uploads.put_blob(b"content"))
    digest = hashlib.sha256(b"content").hexdigest()
    assert blob == common_pb2.Blob(digest=digest, size_bytes=7)
    assert store.calls[0][0].blob.digest == digest


async def test_an_attempt_ends_after_its_last_result_however_long_that_is_uploaded(clock: FakeClock) -> None:
    """A case with a large report is being uploaded when the next one kills the process."""
    store = Store()
    store.failures = [grpc.StatusCode.UNAVAILABLE]
    book, outbound = LeaseBook(), Outbound()
    batch = worker_service_pb2.Assignments(
        run_id="r",
        tasks=[0],
        fences=[9],
        names=["shard"],
        cases=[worker_service_pb2.CaseList(indexes=[0, 1], names=["a", "b"])],
    )
    (lease,) = book.add(batch)
    async with working(store, clock) as (uploads, tasks):
        reporter = Reporter(book, outbound, uploads, tasks)
        detail = Detail(reports_json=b"x" * 20_000, message="large")
        reporter.case(lease, ResultItem(9, 0, 2, 1.0, 0.0, 0, 0.0, False, detail))
        reporter.end(lease, common_pb2.OUTCOME_CRASHED, "killed by signal 11", running_case=1)
        await within(clock.wait_for_sleeper())
        assert not outbound.has_more
        assert book.fences == [9]
        await clock.advance(RETRY_SECONDS)
        await within(outbound.wait())
    message = outbound.next_message(0, common_pb2.WORKER_STATE_ACTIVE)
    (entry,), (end,) = message.results, message.ends
    assert events_pb2.CaseDetail.FromString(entry.details[0]).reports_blob.size_bytes == 20_000
    assert (end.fence, end.running_case) == (9, 2)
    assert len(book) == 0
