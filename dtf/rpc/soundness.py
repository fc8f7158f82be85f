"""Requests that cannot be parsed are refused as what they are: the caller's fault, in one clear error."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from dtf.core.run.commands import InvalidRequest
from dtf.rpc.encoded import passing_encoded
from dtf.rpc.errors import refuse

OWN_SERVICES = "/dtf."

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request that could not be parsed."""

    reason: str


def malformed_request(error: object) -> InvalidRequest:
    """The refusal of a message that cannot be parsed."""
    return InvalidRequest(f"the message cannot be parsed: {error}; send what the .proto files describe")


class SoundRequests(grpc.aio.ServerInterceptor):
    """Lets no handler see a single request that could not be parsed.

    Streams of requests raise DecodeError where they are read (dtf.rpc.handlers names that fault).
    """

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's handler behind the check."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        if not handler_call_details.method.startswith(OWN_SERVICES):
            return handler
        return _checked(handler)


def _checked(handler: Any) -> Handler:
    parse = handler.request_deserializer

    def deserialize(data: bytes) -> object:
        try:
            return parse(data)
        except DecodeError as error:
            return Malformed(str(error))

    async def answer(request: object, context: Any) -> object:
        if isinstance(request, Malformed):
            await refuse(context, malformed_request(request.reason))
        return await handler.unary_unary(request, context)

    async def stream(request: object, context: Any) -> AsyncIterator[object]:
        if isinstance(request, Malformed):
            await refuse(context, malformed_request(request.reason))
        async for response in handler.unary_stream(request, context):
            yield response

    if handler.response_streaming:
        serialize = passing_encoded(handler.response_serializer)
        return grpc.unary_stream_rpc_method_handler(stream, deserialize, serialize)
    return grpc.unary_unary_rpc_method_handler(answer, deserialize, handler.response_serializer)
