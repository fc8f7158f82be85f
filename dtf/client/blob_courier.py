"""Takes blobs to the coordinator, over a blocking channel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import grpc

from dtf.api.v1 import (
    common_pb2,
    run_service_pb2,
    run_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from dtf.rpc.errors import SERVER_WENT

PIECE_BYTES = 256 * 1024
ASK_TIMEOUT_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 100_000
"""A transfer slower than this is given up, so that a peer that takes nothing is no wait for ever."""

MOST_REPEATS = 2
"""One takeover in the midst of a transfer is bad luck, three are another fault."""

Metadata = Sequence[tuple[str, str]]


_Answer = TypeVar("_Answer")


def repeated(call: Callable[[], _Answer]) -> _Answer:
    """The answer of a call that may be made again; a coordinator that went away in its midst costs another try."""
    for _ in range(MOST_REPEATS):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() not in SERVER_WENT:
                raise
    return call()


class BlobCourier:
    """Asks for blobs and uploads them."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._runs = run_service_pb2_grpc.RunServiceStub(channel)
        self._content = worker_service_pb2_grpc.WorkerServiceStub(channel)
        self._metadata = tuple(metadata)

    def has(self, blob: common_pb2.Blob) -> bool:
        """Whether the coordinator has it: it is asked for what is behind its end, which is nothing."""
        request = worker_service_pb2.FetchBlobRequest(digest=blob.digest, offset_bytes=blob.size_bytes)

        def ask() -> bool:
            try:
                for _ in self._content.FetchBlob(
                    request, timeout=ASK_TIMEOUT_SECONDS, metadata=self._metadata, wait_for_ready=True
                ):
                    pass
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return False
                raise
            return True

        return repeated(ask)

    def put(self, blob: common_pb2.Blob, pieces: Callable[[], Iterable[bytes]]) -> None:
        """Upload it; returns when it is stored. `pieces` is called anew for each try.

        An error that the pieces raise ends the call and is raised.
        """
        repeated(lambda: self._put(blob, pieces()))

    def _put(self, blob: common_pb2.Blob, pieces: Iterable[bytes]) -> None:
        failure: list[BaseException] = []

        def requests() -> Iterator[run_service_pb2.UploadBlobRequest]:
            first = True
            try:
                for piece in pieces:
                    yield run_service_pb2.UploadBlobRequest(blob=blob if first else None, data=piece)
                    first = False
            except BaseException as error:  # raised in a thread of gRPC's, which would keep it to itself
                failure.append(error)
                raise

        try:
            self._runs.UploadBlob(
                requests(),
                timeout=ASK_TIMEOUT_SECONDS + blob.size_bytes / SLOWEST_BYTES_PER_SECOND,
                metadata=self._metadata,
                wait_for_ready=True,
            )
        except grpc.RpcError:
            if failure:
                raise failure[0] from None
            raise
