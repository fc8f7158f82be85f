"""Health and reflection answer anybody, so they take little: small requests, few at once, and not for long.

gRPC reads a whole message, up to the limit of the server, before the handler of a single request
sees it. Behind SmallRequests all these methods are streams of requests: nothing is read before
there is a place for it.

What strangers can make the server hold is READS_AT_ONCE messages for READ_SECONDS, and
WATCHES_AT_ONCE short names for as long as they like.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2

from dtf.core.run.commands import InvalidRequest, NotFound, Rejection
from dtf.rpc.auth import OPEN_SERVICES
from dtf.rpc.errors import TooManyStreams, refuse
from dtf.rpc.failed_attempts import source_of
from dtf.rpc.soundness import malformed_request

LONGEST_REQUEST_BYTES = 4096
READ_SECONDS = 5.0
READS_AT_ONCE = 32
READS_OF_ONE = 4
WATCHES_AT_ONCE = 256
WATCHES_OF_ONE = 64

_SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Places:
    """So many at once, and so many of one address."""

    def __init__(self, of_all: int, of_one: int) -> None:
        self._all = asyncio.Semaphore(of_all)
        self._of_one = of_one
        self._by_source: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def taken(self, peer: str, seconds: float) -> AsyncIterator[None]:
        """Hold a place. Raises TooManyStreams if none is free within `seconds`."""
        own = self._by_source.setdefault(source_of(peer), asyncio.Semaphore(self._of_one))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(seconds):
                    await held.enter_async_context(own)
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise TooManyStreams(
                    f"too many calls without a credential are open; none ended within {seconds:g} s"
                ) from None
            yield


class SmallRequests(grpc.aio.ServerInterceptor):
    """Reads what anybody may send only as far as it is small."""

    def __init__(self, read_seconds: float = READ_SECONDS) -> None:
        self._read_seconds = read_seconds
        self._places: dict[str, Places] = {}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler, or for open services one that reads with care."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(OPEN_SERVICES):
            return handler
        # Reflection waits in the middle of its streams; that must not keep probes from asking for health.
        service = method.rpartition("/")[0]
        places = self._places.setdefault(service, Places(READS_AT_ONCE, READS_OF_ONE))
        return _careful(handler, lambda context: self._read(context, places))

    async def _read(self, context: Any, places: Places) -> bytes | None:
        """The next message, or None at the end. Raises Rejection."""
        async with places.taken(context.peer(), self._read_seconds):
            try:
                async with asyncio.timeout(self._read_seconds):
                    message = await context.read()
            except TimeoutError:
                raise InvalidRequest(f"no request came within {self._read_seconds:g} s") from None
        if not isinstance(message, bytes):
            return None
        if len(message) > LONGEST_REQUEST_BYTES:
            raise InvalidRequest(
                f"the request has {len(message)} bytes; this service takes {LONGEST_REQUEST_BYTES} at most"
            )
        return message


def _careful(handler: Any, read: Callable[[Any], Awaitable[bytes | None]]) -> Handler:
    """The same method as a stream of requests, which `read` brings, and of responses."""

    async def requests(context: Any) -> AsyncIterator[Any]:
        while (message := await read(context)) is not None:
            try:
                yield handler.request_deserializer(message)
            except DecodeError as error:
                raise malformed_request(error) from None

    async def answer(context: Any) -> None:
        if handler.request_streaming:
            async for response in handler.stream_stream(requests(context), context):
                await context.write(response)
            return
        async for request in requests(context):
            if handler.response_streaming:
                await handler.unary_stream(request, context)
            else:
                await context.write(await handler.unary_unary(request, context))
            return
        raise malformed_request("there is none")

    async def stream(_requests: object, context: Any) -> None:
        try:
            await answer(context)
        except Rejection as rejection:
            await refuse(context, rejection)

    return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)


class Health:
    """gRPC's health service for the services that are there: other names are refused, not waited for."""

    def __init__(self) -> None:
        self._answers = {"": _SERVING}
        self._inner: Any = health_aio.HealthServicer()
        self._watches = Places(WATCHES_AT_ONCE, WATCHES_OF_ONE)

    async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        """Say how a service is; from then on it may be asked for."""
        self._answers[service] = health_pb2.HealthCheckResponse(status=status)
        await self._inner.set(service, status)

    async def Check(self, request: health_pb2.HealthCheckRequest, _context: object) -> object:
        """How a service is now. Raises NotFound."""
        self._check_known(request.service)
        return self._answers[request.service]

    async def List(self, _request: object, _context: object) -> object:
        """How all services are now."""
        return health_pb2.HealthListResponse(statuses=self._answers)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """How a service is, again and again. Raises NotFound, TooManyStreams."""
        self._check_known(request.service)
        async with self._watches.taken(context.peer(), 0):
            await self._inner.Watch(request, context)

    def _check_known(self, service: str) -> None:
        if service not in self._answers:
            raise NotFound(f"no service {service[:80]!r} is served here")
