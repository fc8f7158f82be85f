"""Blobs up and down, on the client's own channel. Either can be made again, and is."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from dtf.api.v1 import (
    common_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.client.blob_courier import MOST_REPEATS, Metadata
from dtf.rpc.errors import parse

PIECE_BYTES = 256 * 1024

_Answer = TypeVar("_Answer")


class BlobTransfers:
    """The blobs that a coordinator keeps."""

    def __init__(
        self, channel: grpc.aio.Channel, metadata: Metadata, reconnected: Callable[[], Awaitable[None]]
    ) -> None:
        """`reconnected` returns once the coordinator can be reached."""
        self._channel = channel
        self._metadata = metadata
        self._reconnected = reconnected

    async def fetch(self, digest: str) -> bytes:
        """The content of a blob."""
        stub = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        request = worker_service_pb2.FetchBlobRequest(digest=digest)

        async def fetch() -> bytes:
            pieces = [piece.data async for piece in stub.FetchBlob(request, metadata=self._metadata)]
            return b"".join(pieces)

        return await self._repeated(fetch)

    async def upload(self, data: bytes) -> common_pb2.Blob:
        """Store content and return what refers to it."""
        blob = common_pb2.Blob(digest=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        stub = run_service_pb2_grpc.RunServiceStub(self._channel)

        async def pieces() -> AsyncIterator[run_service_pb2.UploadBlobRequest]:
            for start in range(0, len(data) or 1, PIECE_BYTES):
                yield run_service_pb2.UploadBlobRequest(
                    blob=blob if start == 0 else None, data=data[start : start + PIECE_BYTES]
                )

        async def upload() -> common_pb2.Blob:
            return (await stub.UploadBlob(pieces(), metadata=self._metadata)).blob

        return await self._repeated(upload)

    async def _repeated(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Make a call that may be made again; a coordinator that went away in its midst costs another try."""
        for _ in range(MOST_REPEATS):
            await self._reconnected()
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if not parse(error).is_retryable:
                    raise
        await self._reconnected()
        return await call()
