"""Who may call, and what: a credential on every call tells operators, joiners and workers apart.

    operator    the cluster's bearer token                   everything
    joiner      a join token                                 opens a worker's session, once
    worker      the secret of its open session               what WorkerService offers

Health and reflection need none, so that stock probes work. A credential is `authorization: Bearer …`;
dtf.rpc.invitation says what follows. The server's own Access says who it is.
"""

import hashlib
import hmac
import inspect
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, assert_never

import grpc
import grpc.aio

from dtf.core.run.commands import Rejection
from dtf.rpc.errors import Forbidden, TooManyFailures, Unauthenticated, refuse
from dtf.rpc.failed_attempts import FailedAttempts, source_of

OPEN_SERVICES = ("/grpc.health.v1.Health/", "/grpc.reflection.")
WORKER_SERVICE = "/dtf.api.v1.WorkerService/"
OPEN_SESSION = f"{WORKER_SERVICE}CreateSession"

log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata: TypeAlias = Any
"""Pairs of a key and a text or bytes, as gRPC gives them."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Knows the cluster's token."""


@dataclass(frozen=True, slots=True)
class Joiner:
    """Knows the secret of a join token. Whether it still admits anybody is for the core to say."""

    token_id: str


@dataclass(frozen=True, slots=True)
class SessionHolder:
    """Knows the secret of a session, open or not."""

    worker_id: str
    incarnation: int


Caller = Operator | Joiner | SessionHolder


class Access(Protocol):
    """Knows callers by their credentials."""

    def identify(self, credential: str) -> Caller:
        """Who shows this ("" : nothing). Raises Rejection."""
        ...


class OperatorAccess:
    """Knows operators only."""

    def __init__(self, token: str) -> None:
        self._token = token

    def identify(self, credential: str) -> Caller:
        """The operator. Raises Unauthenticated."""
        if is_equal(credential, self._token):
            return Operator()
        raise Unauthenticated(
            "this call needs `authorization: Bearer <token>`; the token is missing or wrong"
        )


def session_token(token: str, realm: str, worker_id: str, incarnation: int) -> str:
    """The secret of one worker session, in hexadecimal digits: an HMAC-SHA256 by the operators' token.

    `realm` says of what coordinators the session is: the secret is worth nothing to others with the same token.
    """
    text = json.dumps([realm, worker_id, incarnation]).encode()
    return hmac.new(token.encode(), text, hashlib.sha256).hexdigest()


def is_equal(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode(), expected.encode())


def credential_in(metadata: Metadata) -> str:
    """What follows `authorization: Bearer ` in a call's metadata; "": nothing does."""
    for key, value in metadata or ():
        if key == "authorization":
            text = value if isinstance(value, str) else bytes(value).decode("latin-1")
            scheme, _, credential = text.partition(" ")
            return credential if scheme == "Bearer" else ""
    return ""


def check_allowed(caller: Caller, method: str) -> None:
    """Raises Forbidden unless `caller` may call `method`."""
    match caller:
        case Operator():
            return
        case Joiner():
            if method != OPEN_SESSION:
                raise Forbidden(
                    "a join token opens a worker's session and nothing else; use the operators' token"
                )
        case SessionHolder():
            if not method.startswith(WORKER_SERVICE):
                raise Forbidden(
                    "a worker's session reports and fetches, and nothing else; use the operators' token"
                )
        case _:
            assert_never(caller)


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Refuses calls of those who are not known or may not, and whoever tries too often."""

    def __init__(self, access: Access, attempts: FailedAttempts | None = None) -> None:
        self._access = access
        self._attempts = attempts or FailedAttempts()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler, or one that refuses."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        try:
            caller = self._access.identify(credential_in(handler_call_details.invocation_metadata))
            check_allowed(caller, method)
        except Rejection as rejection:
            return _refusing(partial(self._refuse, rejection))
        if not self._attempts or isinstance(caller, SessionHolder):
            return handler
        return _checked(handler, self._refuse_if_barred)

    async def _refuse(self, rejection: Rejection, context: Any) -> None:
        peer = context.peer()
        await self._refuse_if_barred(context)
        if self._attempts.note(peer):
            log.warning(
                "a call was refused",
                extra={"peer": source_of(peer) or "this machine", "cause": rejection.reason},
            )
        await refuse(context, rejection)

    async def _refuse_if_barred(self, context: Any) -> None:
        seconds = self._attempts.wait_seconds(context.peer())
        if seconds:
            await refuse(
                context,
                TooManyFailures(
                    f"too many calls with wrong credentials came from this address; try again in {seconds:.0f} s"
                ),
            )


def _refusing(check: Callable[[Any], Awaitable[None]]) -> Handler:
    """A handler whose check refuses every call, unread: gRPC reads single requests first, so it takes a stream."""

    async def stream(_requests: object, context: Any) -> None:
        await check(context)

    return grpc.stream_stream_rpc_method_handler(stream)


def _checked(handler: Any, check: Callable[[Any], Awaitable[None]]) -> Handler:
    """The same handler, behind a check. Those with many answers give them, or write them themselves."""

    def behind(method: Any) -> Any:
        async def answer(request: object, context: Any) -> object:
            await check(context)
            return await method(request, context)

        async def stream(request: object, context: Any) -> AsyncIterator[object]:
            await check(context)
            async for response in method(request, context):
                yield response

        return stream if inspect.isasyncgenfunction(method) else answer

    codec = (handler.request_deserializer, handler.response_serializer)
    match (handler.request_streaming, handler.response_streaming):
        case (False, False):
            return grpc.unary_unary_rpc_method_handler(behind(handler.unary_unary), *codec)
        case (False, True):
            return grpc.unary_stream_rpc_method_handler(behind(handler.unary_stream), *codec)
        case (True, False):
            return grpc.stream_unary_rpc_method_handler(behind(handler.stream_unary), *codec)
        case _:
            return grpc.stream_stream_rpc_method_handler(behind(handler.stream_stream), *codec)
