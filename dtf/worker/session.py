"""One session with the coordinator: opened once, attached as often as the connection breaks.

    CreateSession ──▶ attached ──(broken: back off with full jitter)──▶ attached …
                          │                                               │
                          └── superseded, lost or unknown: SessionLost ◀──┘

The channel finds the coordinator that leads: a call that opens a stream waits until one of the
addresses answers, however long that takes. The upward stream is written by one task, which sends
what gathered since its last write, mere results no sooner than PACE_SECONDS after that; the downward
one is read by another, which hands each message to the handler at once.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, NoReturn, Protocol

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.ports.clock import Clock
from dtf.rpc.errors import describe, parse
from dtf.worker.outbound import PACE_SECONDS, Outbound

if TYPE_CHECKING:
    from dtf.api.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub


FIRST_BACKOFF_SECONDS = 0.2
"""Short: while nobody listens it is the channel that waits, with a back-off of its own."""
LONGEST_BACKOFF_SECONDS = 64.0
CALL_TIMEOUT_SECONDS = 15.0
CLOSE_TIMEOUT_SECONDS = 5.0
"""Time for one takeover; a worker that leaves without a word is found out when its lease ends."""
WRITE_TIMEOUT_SECONDS = 30.0
"""A write blocked for this long goes to a frozen peer."""
TRIES_PER_LEASE = 4
"""Attaching again is never put off for longer than this part of the lease."""
LOST_REASONS = ("UNKNOWN_SESSION", "STALE_SESSION")
REFUSED_CODES = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNIMPLEMENTED,
)

_log = logging.getLogger(__name__)
Up = worker_service_pb2.AttachRequest
Down = worker_service_pb2.AttachResponse
AttachCall = grpc.aio.StreamStreamCall[Up, Down]


class SessionError(Exception):
    """What can end a session.

    SessionError
    ├── SessionRefused    the coordinator will not have this worker; trying again does not help
    ├── NoCoordinator     nobody answered in the time allowed
    ├── SessionReplaced   another process runs under this worker's name
    └── SessionLost       the coordinator no longer knows the session; a new one may be opened
    """


class SessionRefused(SessionError):
    """The coordinator will not have this worker."""


class NoCoordinator(SessionError):
    """Nobody answered."""


class SessionReplaced(SessionError):
    """Another process runs under this worker's name."""


class SessionLost(SessionError):
    """The coordinator no longer knows the session."""


class Broken(Exception):
    """The connection broke; attach again."""


ENDINGS = (grpc.aio.AioRpcError, Broken, TimeoutError, asyncio.InvalidStateError)
"""How reading or writing a stream fails when the stream has ended."""


class Handler(Protocol):
    """What the session needs of the worker."""

    def handle(self, message: Down) -> None:
        """The coordinator said something."""

    def held_fences(self) -> list[int]:
        """Fences of every lease held or reported and not acknowledged."""

    def known_runs(self) -> list[str]:
        """Runs whose context is known."""

    def credits(self) -> int:
        """How many more leases can be taken."""

    def state(self) -> "common_pb2.WorkerState.ValueType":
        """What the worker wants to be."""


class Backoff:
    """Full jitter: each wait is anywhere between nothing and a limit that doubles."""

    def __init__(self, longest_seconds: float = LONGEST_BACKOFF_SECONDS) -> None:
        self._limit = FIRST_BACKOFF_SECONDS
        self._longest_seconds = longest_seconds

    def next(self) -> float:
        """Seconds to wait before the next try."""
        seconds = random.uniform(0, self._limit)
        self._limit = min(self._longest_seconds, self._limit * 2)
        return seconds

    def reset(self) -> None:
        """It worked."""
        self._limit = FIRST_BACKOFF_SECONDS


Metadata = tuple[tuple[str, str], ...]


async def open_session(
    stub: "WorkerServiceAsyncStub",
    request: worker_service_pb2.CreateSessionRequest,
    metadata: Metadata,
    clock: Clock,
    patience_seconds: float | None,
) -> worker_service_pb2.CreateSessionResponse:
    """Open a session, trying for `patience_seconds` (None: for ever). Raises SessionRefused, NoCoordinator."""
    backoff = Backoff()
    until = None if patience_seconds is None else clock.monotonic() + patience_seconds
    while True:
        try:
            return await stub.CreateSession(request, metadata=metadata, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSED_CODES:
                raise SessionRefused(describe(error)) from None
            if until is not None and clock.monotonic() >= until:
                raise NoCoordinator(describe(error)) from None
            _log.info("no session yet, trying again: %s", describe(error))
        await clock.sleep(backoff.next())


class Session:
    """An open session."""

    def __init__(
        self,
        stub: "WorkerServiceAsyncStub",
        metadata: Metadata,
        opened: worker_service_pb2.CreateSessionResponse,
        outbound: Outbound,
        handler: Handler,
        clock: Clock,
    ) -> None:
        self._stub = stub
        self._metadata = metadata
        self._opened = opened
        self._outbound = outbound
        self._handler = handler
        self._clock = clock
        self._taken_at = 0.0
        self._backoff = Backoff(max(1.0, opened.lease_seconds / TRIES_PER_LEASE))

    async def run(self) -> None:
        """Stay attached, without end. Raises SessionLost, SessionReplaced, SessionRefused."""
        was_ended = False
        while True:
            try:
                await self._attach()
            except SessionLost:
                # A stream that is ended from the other side says less than a new one is told: whether
                # the worker was silent, or another process took its name.
                if was_ended:
                    raise
                was_ended = True
            except Broken as error:
                wait = self._backoff.next()
                _log.info("the connection broke, attaching again in %.1f s: %s", wait, error)
                await self._clock.sleep(wait)

    async def _attach(self) -> None:
        """One stream, until it breaks."""
        self._outbound.rewind()
        call: AttachCall = self._stub.Attach(metadata=self._metadata, wait_for_ready=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(call))
                tasks.create_task(self._read(call))
        except BaseExceptionGroup as group:
            # One handler for both tasks: each may have ended by an error of its own kind.
            await self._explain(call, group)
        finally:
            call.cancel()

    async def _explain(self, call: AttachCall, group: BaseExceptionGroup[BaseException]) -> NoReturn:
        """Raise what the end of a stream means; whatever is no end of a stream is raised as it came."""
        _, others = group.split(ENDINGS)
        if others is not None:
            raise group
        for error in group.exceptions:
            if isinstance(error, grpc.aio.AioRpcError):
                raise_outcome(error, self._opened.incarnation)
        # A write to a stream that ended says nothing of why; the call's status does.
        if call.done():
            code = await call.code()
            if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
                trailers = await call.trailing_metadata()
                raise_outcome(
                    grpc.aio.AioRpcError(
                        code, grpc.aio.Metadata(), trailers or grpc.aio.Metadata(), await call.details()
                    ),
                    self._opened.incarnation,
                )
        raise Broken(str(group.exceptions[0]) or type(group.exceptions[0]).__name__) from None

    async def _write(self, call: AttachCall) -> None:
        handle = self.session_handle()
        handle.held_fences.extend(self._handler.held_fences())
        handle.known_runs.extend(self._handler.known_runs())
        handle.first_sequence = self._outbound.next_sequence
        first = Up(session=handle, credits=self._handler.credits(), state=self._handler.state())
        await self._send(call, first)
        while True:
            await self._outbound.wait()
            await self._outbound.until_due(self._taken_at + PACE_SECONDS)
            self._taken_at = asyncio.get_running_loop().time()
            message = self._outbound.next_message(self._handler.credits(), self._handler.state())
            await self._send(call, message)

    async def _send(self, call: AttachCall, message: Up) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
            await call.write(message)

    async def _read(self, call: AttachCall) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            assert isinstance(message, Down)
            self._backoff.reset()  # whoever is heard serves: the next break is met with a short wait
            self._outbound.acknowledge(message.acknowledged_sequence)
            self._handler.handle(message)
        raise Broken("the coordinator ended the stream")

    def session_handle(self) -> worker_service_pb2.SessionHandle:
        """What names this session."""
        return worker_service_pb2.SessionHandle(
            worker_id=self._opened.worker_id,
            incarnation=self._opened.incarnation,
            session_token=self._opened.session_token,
        )

    async def close(self, reason: str) -> bool:
        """Leave; False if the coordinator refuses because it still counts on this worker."""
        request = worker_service_pb2.CloseSessionRequest(session=self.session_handle(), reason=reason)
        try:
            await self._stub.CloseSession(
                request, metadata=self._metadata, timeout=CLOSE_TIMEOUT_SECONDS, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            _log.info("the session was not closed: %s", describe(error))
            return error.code() is not grpc.StatusCode.FAILED_PRECONDITION or is_lost(error)
        return True

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Pieces of a blob from `offset` on. Raises AioRpcError; the caller limits how long a piece may take."""
        request = worker_service_pb2.FetchBlobRequest(digest=digest, offset_bytes=offset)
        call = self._stub.FetchBlob(request, metadata=self._metadata, wait_for_ready=True)
        try:
            async for response in call:
                yield response.data
        finally:
            call.cancel()

    async def upload(self, requests: AsyncIterator[worker_service_pb2.UploadOutputRequest]) -> object:
        """One UploadOutput call."""
        return await self._stub.UploadOutput(requests, metadata=self._metadata)


def is_lost(error: grpc.aio.AioRpcError) -> bool:
    """Whether a refusal says that the session is no more."""
    return parse(error).reason in LOST_REASONS


def raise_outcome(error: BaseException, incarnation: int) -> NoReturn:
    """Raise what a failed Attach means."""
    assert isinstance(error, grpc.aio.AioRpcError)
    failure = parse(error)
    if is_lost(error):
        if int(failure.metadata.get("incarnation", "0")) > incarnation:
            raise SessionReplaced(failure.message) from None
        raise SessionLost(failure.message) from None
    if failure.code is grpc.StatusCode.INVALID_ARGUMENT:
        # It cannot take what this session says, and would not take it a second time either.
        raise SessionLost(describe(error)) from None
    if failure.code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        raise SessionRefused(failure.message) from None
    raise Broken(describe(error)) from None
