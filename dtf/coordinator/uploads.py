"""Content that comes in pieces: blobs, and output of attempts."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.coordinator.bell import Bell
from dtf.coordinator.blob_keeper import BlobKeeper
from dtf.core.run.commands import FieldViolation, InvalidRequest, NotFound
from dtf.core.run.state import State
from dtf.ports.blob_store import BlobCorrupt, BlobMissing, BlobStore
from dtf.rpc.errors import BlobFault, StoreRefusal

MAX_PIECE_BYTES = 256 * 1024
MAX_BLOB_BYTES = 2**30
_HEX = frozenset("0123456789abcdef")


def check_digest(digest: str, field: str) -> None:
    """Raises InvalidRequest unless this is a SHA-256 in hexadecimal digits."""
    if len(digest) != 64 or not _HEX.issuperset(digest):
        text = "is not 64 lower-case hexadecimal digits"
        raise InvalidRequest(f"{field} {text}", violations=[FieldViolation(field, text)])


def check_piece(data: bytes) -> None:
    """Raises InvalidRequest for a piece that is too large."""
    if len(data) > MAX_PIECE_BYTES:
        text = f"has {len(data)} bytes; a piece has at most {MAX_PIECE_BYTES}"
        raise InvalidRequest(f"data {text}", violations=[FieldViolation("data", text)])


def _check_blob(blob: common_pb2.Blob) -> None:
    check_digest(blob.digest, "blob.digest")
    if blob.size_bytes > MAX_BLOB_BYTES:
        text = f"is {blob.size_bytes}; at most {MAX_BLOB_BYTES} are allowed"
        raise InvalidRequest(f"blob.size_bytes {text}", violations=[FieldViolation("blob.size_bytes", text)])


async def _store(keeper: BlobKeeper, blob: common_pb2.Blob, pieces: AsyncIterator[bytes]) -> None:
    await keeper.make_room(blob.size_bytes)
    try:
        await keeper.store.put_stream(blob.digest, pieces)
    except BlobCorrupt as error:
        raise BlobFault(str(error), digest=blob.digest) from error
    except OSError as error:
        raise _store_fault(error) from error


def _store_fault(error: OSError) -> StoreRefusal:
    return StoreRefusal(
        f"the blob store cannot be written: {error.strerror or error}; make room, then send again"
    )


async def receive_blob(
    keeper: BlobKeeper, requests: AsyncIterator[run_service_pb2.UploadBlobRequest]
) -> common_pb2.Blob:
    """Store what a client uploads. Raises InvalidRequest, BlobFault, StoreRefusal."""
    first = await anext(aiter(requests), None)
    if first is None or not first.HasField("blob"):
        raise InvalidRequest(
            "the first message must name the blob", violations=[FieldViolation("blob", "is not set")]
        )
    blob = first.blob
    _check_blob(blob)

    async def pieces() -> AsyncIterator[bytes]:
        check_piece(first.data)
        yield first.data
        size = len(first.data)
        async for request in requests:
            check_piece(request.data)
            size += len(request.data)
            if size > blob.size_bytes:
                raise BlobFault(
                    f"more than the {blob.size_bytes} bytes announced were sent", digest=blob.digest
                )
            yield request.data
        if size != blob.size_bytes:
            raise BlobFault(f"{size} bytes were sent, {blob.size_bytes} were announced", digest=blob.digest)

    await _store(keeper, blob, pieces())
    return blob


@dataclass(slots=True)
class OutputReceiver:
    """Stores one UploadOutput stream: pieces of output, and whole blobs between them."""

    keeper: BlobKeeper
    state: State
    bell: Bell
    """Rung when output grew, for whoever tails it."""
    check_right: Callable[[worker_service_pb2.OutputTarget], None] = lambda _: None
    """Raises Forbidden for output that is not the sender's to write."""
    stored_bytes: int = 0

    async def receive(self, requests: AsyncIterator[worker_service_pb2.UploadOutputRequest]) -> None:
        """Store everything. Raises InvalidRequest, NotFound, Forbidden, BlobFault, StoreRefusal."""
        async for request in requests:
            match request.WhichOneof("target"):
                case "output":
                    await self._append(request)
                case "blob":
                    await self._store_blob(request, requests)
                case _:
                    raise InvalidRequest(
                        "a piece belongs to nothing", violations=[FieldViolation("target", "is not set")]
                    )

    async def _append(self, request: worker_service_pb2.UploadOutputRequest) -> None:
        target = request.output
        check_piece(request.data)
        run = self.state.runs.get(target.run_id)
        if run is None or target.task >= run.task_count:
            raise NotFound(f"no task {target.task} of run {target.run_id[:64]!r} is known")
        if not 1 <= target.attempt <= run.attempts[target.task]:
            raise NotFound(
                f"task {target.task} of run {target.run_id} has had {run.attempts[target.task]} attempts; "
                f"there is no attempt {target.attempt}"
            )
        self.check_right(target)
        await self.keeper.make_room(len(request.data))
        try:
            await self.keeper.store.append_output(
                target.run_id, target.task, target.attempt, request.offset_bytes, request.data
            )
        except ValueError as error:
            raise InvalidRequest(
                str(error), violations=[FieldViolation("offset_bytes", str(error))]
            ) from error
        except OSError as error:
            raise _store_fault(error) from error
        self.stored_bytes += len(request.data)
        self.bell.ring()

    async def _store_blob(
        self,
        first: worker_service_pb2.UploadOutputRequest,
        requests: AsyncIterator[worker_service_pb2.UploadOutputRequest],
    ) -> None:
        """Pieces of one blob follow each other until its size is reached."""
        blob = first.blob
        _check_blob(blob)

        async def pieces() -> AsyncIterator[bytes]:
            size, request = 0, first
            while True:
                if request.blob.digest != blob.digest or request.offset_bytes != size:
                    raise BlobFault(
                        f"piece at {size} of blob {blob.digest[:12]} was expected; "
                        f"one at {request.offset_bytes} of {request.blob.digest[:12] or 'output'} came"
                    )
                check_piece(request.data)
                size += len(request.data)
                if size > blob.size_bytes:
                    raise BlobFault(f"more than the {blob.size_bytes} bytes announced were sent")
                yield request.data
                if size == blob.size_bytes:
                    return
                following = await anext(requests, None)
                if following is None:
                    raise BlobFault(f"{size} bytes were sent, {blob.size_bytes} were announced")
                request = following

        await _store(self.keeper, blob, pieces())
        self.stored_bytes += blob.size_bytes


async def read_blob(store: BlobStore, digest: str, offset: int) -> AsyncIterator[bytes]:
    """Pieces of a blob. Raises InvalidRequest, NotFound."""
    check_digest(digest, "digest")
    try:
        async for piece in store.get(digest, offset):
            yield piece
    except BlobMissing as error:
        raise NotFound(f"no blob {digest} is stored", digest=digest) from error
