"""Who may call: a bearer token on every call, a session token for what a worker does in its own name.

Health and reflection need no token, so that stock probes work.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

from dtf.rpc.errors import Unauthenticated, refuse

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def session_token(token: str, worker_id: str, incarnation: int) -> str:
    """The secret of one worker session: HMAC-SHA256 of "worker_id/incarnation", in hexadecimal digits."""
    text = f"{worker_id}/{incarnation}".encode()
    return hmac.new(token.encode(), text, hashlib.sha256).hexdigest()


def is_equal(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


class BearerTokens(grpc.aio.ServerInterceptor):
    """Refuses calls that do not carry `authorization: Bearer <token>`."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES) or self._is_known(handler_call_details):
            return handler
        return _refusing(handler)

    def _is_known(self, details: grpc.HandlerCallDetails) -> bool:
        for key, value in details.invocation_metadata or ():
            if key == "authorization":
                return is_equal(value if isinstance(value, str) else value.decode("latin-1"), self._expected)
        return False


def _refusing(handler: Handler) -> Handler:
    """A handler of the same shape that refuses every call."""

    async def answer(_request: object, context: Any) -> None:
        await refuse(
            context,
            Unauthenticated("this call needs `authorization: Bearer <token>`; the token is missing or wrong"),
        )

    async def stream(_request: object, context: Any) -> AsyncIterator[object]:
        await answer(_request, context)
        yield None

    match (handler.request_streaming, handler.response_streaming):
        case (False, False):
            return grpc.unary_unary_rpc_method_handler(answer)
        case (False, True):
            return grpc.unary_stream_rpc_method_handler(stream)
        case (True, False):
            return grpc.stream_unary_rpc_method_handler(answer)
        case _:
            return grpc.stream_stream_rpc_method_handler(stream)
