"""WorkerService: sessions, their streams, output and blobs, for workers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc.aio

from dtf.api.v1 import worker_service_pb2
from dtf.coordinator.admission import check_name, refusal_of_session
from dtf.coordinator.desk import Desk
from dtf.coordinator.session import GATHER_SECONDS, Session, Stream
from dtf.coordinator.uploads import OutputReceiver, read_blob
from dtf.core.run.commands import CloseSession, FieldViolation, InvalidRequest, RegisterWorker
from dtf.rpc.auth import Access, Caller, Joiner, Operator, SessionHolder, credential_in
from dtf.rpc.errors import Forbidden
from dtf.rpc.handlers import Context, answering, rejection_in, streaming

FIRST_MESSAGE_SECONDS = 30.0
"""How long a new stream may take to say which session it is."""
LAST_WRITE_SECONDS = 0.5
"""A message that is being sent when its stream ends has this long; a peer that takes nothing is not waited for."""
WRITE_TIMEOUT_SECONDS = 60.0
"""A worker that reads nothing for this long is cut off; it attaches again when it can."""
MAX_UNSETTLED = 64
"""Messages of one stream that wait for their commit; a worker that is faster waits."""
MAX_UNSETTLED_BYTES = 64 * 2**20
"""Of reports of all workers that wait for their commit."""
WORKER_ID_LENGTH = 4


class WorkerService:
    """The service."""

    def __init__(self, desk: Desk, access: Access | None = None) -> None:
        """`access` knows workers by their credentials; None: everybody is an operator."""
        self._desk = desk
        self._access = access

    @answering
    async def CreateSession(
        self, request: worker_service_pb2.CreateSessionRequest, context: Context
    ) -> worker_service_pb2.CreateSessionResponse:
        """Registers a worker and opens its session."""
        desk = self._desk
        outcome = await desk.writer.submit(self._registration(request, context))
        worker_id, incarnation = "", 0
        for event in outcome.events:
            if event.HasField("worker_registered"):
                worker_id = event.worker_registered.worker_id
                incarnation = event.worker_registered.incarnation
        if not worker_id:
            worker_id, incarnation = desk.state.session_requests[request.request_id]
        return worker_service_pb2.CreateSessionResponse(
            worker_id=worker_id,
            incarnation=incarnation,
            session_token=desk.sessions.token_of(worker_id, incarnation),
            heartbeat_seconds=desk.sessions.heartbeat_seconds,
            lease_seconds=desk.sessions.rules.heartbeats.attached_lease(desk.sessions.heartbeat_seconds),
            max_credits=desk.settings.max_credits,
        )

    def _registration(
        self, request: worker_service_pb2.CreateSessionRequest, context: Context
    ) -> RegisterWorker:
        """The command, with what the caller proved. Raises Forbidden, TokenRefused."""
        match self._caller(context):
            case Joiner(token_id):
                check_name(self._desk.state, token_id, request.worker_id)
                return RegisterWorker(self._fresh_id(), request, join_token_id=token_id)
            case SessionHolder(worker_id, incarnation):
                if request.worker_id != worker_id:
                    raise Forbidden(f"the session of worker {worker_id!r} opens no session of another worker")
                return RegisterWorker(self._fresh_id(), request, proved_incarnation=incarnation)
            case _:
                return RegisterWorker(self._fresh_id(), request)

    def _caller(self, context: Context) -> Caller:
        """Who calls; the gatekeeper has let it in. Where there is no token, everybody is an operator."""
        if self._access is None:
            return Operator()
        return self._access.identify(credential_in(context.invocation_metadata()))

    def _check_session(self, context: Context) -> None:
        """Raises Unauthenticated, Forbidden if the caller is a worker whose session is over, or in quarantine."""
        refusal = refusal_of_session(self._desk.state, self._caller(context))
        if refusal is not None:
            raise refusal

    @answering
    async def Attach(
        self, request_iterator: AsyncIterator[worker_service_pb2.AttachRequest], context: Context
    ) -> None:
        """The session itself."""
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                first = await context.read()
        except TimeoutError:
            first = grpc.aio.EOF
        if first is grpc.aio.EOF or not first.HasField("session"):
            raise InvalidRequest(
                "the first message of a stream names its session",
                violations=[FieldViolation("session", "is not set")],
            )
        session, stream = self._desk.hub.attach(first.session)
        try:
            await self._serve(session, stream, first, context)
        finally:
            self._desk.hub.detach(session, stream)

    async def _serve(
        self, session: Session, stream: Stream, first: worker_service_pb2.AttachRequest, context: Context
    ) -> None:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(session, stream, first, context))
            writer = group.create_task(self._write(stream, context))
            refusal = await stream.ended()
            reader.cancel()
            # gRPC cannot say how a call ends while it still sends a message of it.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WRITE_SECONDS), stream.writing:
                    writer.cancel()
            writer.cancel()
        if refusal is not None:
            raise refusal

    async def _read(
        self, session: Session, stream: Stream, first: worker_service_pb2.AttachRequest, context: Context
    ) -> None:
        message: Any = first
        try:
            while message is not grpc.aio.EOF and not stream.is_over:
                self._desk.hub.receive(session, stream, message)
                while stream.unsettled >= self._most_unsettled:
                    stream.settled.clear()
                    await stream.settled.wait()
                message = await context.read()
        except Exception as error:
            rejection = rejection_in(error)
            if rejection is None:
                raise
            stream.end(rejection)
        else:
            stream.end()

    @property
    def _most_unsettled(self) -> int:
        """Messages of one stream that may wait; when those of all workers are too much, one."""
        return 1 if self._desk.hub.unsettled_bytes > MAX_UNSETTLED_BYTES else MAX_UNSETTLED

    async def _write(self, stream: Stream, context: Context) -> None:
        outbox = stream.outbox
        while True:
            await outbox.wake.wait()
            if outbox.can_wait(self._desk.state):
                await self._desk.clock.sleep(GATHER_SECONDS)
            outbox.wake.clear()
            while (response := outbox.take(self._desk.state)) is not None:
                async with stream.writing, asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                    await context.write(response)

    @answering
    async def CloseSession(
        self, request: worker_service_pb2.CloseSessionRequest, context: Context
    ) -> worker_service_pb2.CloseSessionResponse:
        """Leaves."""
        handle = request.session
        self._desk.sessions.check_token(handle)
        await self._desk.writer.submit(CloseSession(handle.worker_id, handle.incarnation, request.reason))
        return worker_service_pb2.CloseSessionResponse()

    @answering
    async def UploadOutput(
        self, request_iterator: AsyncIterator[worker_service_pb2.UploadOutputRequest], context: Context
    ) -> worker_service_pb2.UploadOutputResponse:
        """Stores output and blobs."""
        self._check_session(context)
        desk = self._desk
        receiver = OutputReceiver(desk.blob_keeper, desk.state, desk.output_bell)
        match self._caller(context):
            case SessionHolder(worker_id):
                receiver.check_right = partial(desk.output_rights.check, worker_id)
            case _:
                pass  # an operator may write any
        await receiver.receive(aiter(request_iterator))
        return worker_service_pb2.UploadOutputResponse(stored_bytes=receiver.stored_bytes)

    @streaming
    async def FetchBlob(
        self, request: worker_service_pb2.FetchBlobRequest, context: Context
    ) -> AsyncIterator[worker_service_pb2.FetchBlobResponse]:
        """Streams a blob's content."""
        self._check_session(context)
        async for piece in read_blob(self._desk.blobs, request.digest, request.offset_bytes):
            yield worker_service_pb2.FetchBlobResponse(data=piece)

    def _fresh_id(self) -> str:
        length = WORKER_ID_LENGTH
        while (worker_id := f"w-{self._desk.clock.new_id(length)}") in self._desk.state.workers:
            length += 1
        return worker_id
