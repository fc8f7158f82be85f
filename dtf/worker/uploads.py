"""Output and blobs on their way to the coordinator, beside the session's stream.

Pieces queue up and go in order, many in one call. A call that fails for the connection's sake is
made again; the coordinator writes a piece at its offset, so twice is once. What the coordinator
refuses is dropped with a log line: a result is worth more than its output.
"""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.ports.clock import Clock
from dtf.rpc.errors import describe

PIECE_BYTES = 256 * 1024
MAX_CALL_BYTES = 4 * 2**20
CALL_TIMEOUT_SECONDS = 60.0
RETRY_SECONDS = 0.5
_RETRYABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""The last one says that a disk is full: what is lost by waiting can be had again, a report cannot."""

_log = logging.getLogger(__name__)
Request = worker_service_pb2.UploadOutputRequest
Send = Callable[[AsyncIterator[Request]], Awaitable[object]]
"""Makes one UploadOutput call."""


@dataclass(slots=True)
class _Item:
    requests: list[Request]
    size_bytes: int
    done: "asyncio.Future[bool]" = field(repr=False)


class Uploads:
    """The queue, and the one loop that empties it."""

    def __init__(self, send: Send, clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._queue: deque[_Item] = deque()
        self._woken = asyncio.Event()

    def put_output(
        self, target: worker_service_pb2.OutputTarget, offset: int, data: bytes
    ) -> "asyncio.Future[bool]":
        """Store output of an attempt at `offset`; True once it is stored, False if it was refused."""
        requests = [
            Request(output=target, offset_bytes=offset + start, data=data[start : start + PIECE_BYTES])
            for start in range(0, len(data), PIECE_BYTES)
        ]
        return self._put(requests, len(data))

    async def put_blob(self, data: bytes) -> common_pb2.Blob | None:
        """Store a blob; None if it was refused."""
        blob = common_pb2.Blob(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        requests = [
            Request(blob=blob, offset_bytes=start, data=data[start : start + PIECE_BYTES])
            for start in range(0, len(data), PIECE_BYTES)
        ]
        return blob if await self._put(requests, len(data)) else None

    def _put(self, requests: list[Request], size_bytes: int) -> "asyncio.Future[bool]":
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._queue.append(_Item(requests, size_bytes, done))
        self._woken.set()
        return done

    async def run(self) -> None:
        """Upload what comes, without end."""
        while True:
            while not self._queue:
                self._woken.clear()
                await self._woken.wait()
            batch = self._take_batch()
            is_stored = await self._upload(batch)
            for item in batch:
                if not item.done.done():
                    item.done.set_result(is_stored)

    def _take_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        size = 0
        while self._queue and (not batch or size + self._queue[0].size_bytes <= MAX_CALL_BYTES):
            item = self._queue.popleft()
            batch.append(item)
            size += item.size_bytes
        return batch

    async def _upload(self, batch: list[_Item]) -> bool:
        """Send a batch until it is stored or refused; one at fault does not take the others along."""
        while True:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                    await self._send(_requests(batch))
            except (TimeoutError, grpc.aio.AioRpcError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and error.code() not in _RETRYABLE:
                    return await self._refused(batch, describe(error))
                await self._clock.sleep(RETRY_SECONDS)
            else:
                return True

    async def _refused(self, batch: list[_Item], why: str) -> bool:
        if len(batch) == 1:
            _log.warning("an upload was refused: %s", why)
            return False
        for item in batch:
            item.done.set_result(await self._upload([item]))
        return True


async def _requests(batch: list[_Item]) -> AsyncIterator[Request]:
    for item in batch:
        for request in item.requests:
            yield request
