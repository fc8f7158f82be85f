"""Bases of handlers: refusals leave with their status, wherever in a call they were raised.

A handler raises Rejection; the wrapper ends the call with the status of the table in
dtf.rpc.errors. What is neither a Rejection nor a cancellation is our fault: it is logged in full
and leaves as INTERNAL with one sentence.
"""

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from dtf.core.run.commands import Rejection
from dtf.rpc.errors import refuse
from dtf.rpc.soundness import malformed_request

log = logging.getLogger(__name__)

_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
Context = grpc.aio.ServicerContext[Any, Any]

INTERNAL_MESSAGE = "the server failed on this call; its log says why"


def answering(
    method: Callable[[_Servicer, _Request, Context], Awaitable[_Response]],
) -> Callable[[_Servicer, _Request, Context], Awaitable[_Response]]:
    """Wrap a handler with one answer."""

    @functools.wraps(method)
    async def handler(self: _Servicer, request: _Request, context: Context) -> _Response:
        try:
            return await method(self, request, context)
        except Exception as error:
            await _end(context, error, method.__name__)
            raise

    return handler


def streaming(
    method: Callable[[_Servicer, _Request, Context], AsyncIterator[_Response]],
) -> Callable[[_Servicer, _Request, Context], AsyncIterator[_Response]]:
    """Wrap a handler with many answers."""

    @functools.wraps(method)
    async def handler(self: _Servicer, request: _Request, context: Context) -> AsyncIterator[_Response]:
        try:
            async for response in method(self, request, context):
                yield response
        except Exception as error:
            await _end(context, error, method.__name__)
            raise

    return handler


async def _end(context: Context, error: Exception, method: str) -> None:
    """End the call with the error's status; raises gRPC's own AbortError."""
    if isinstance(error, grpc.aio.AbortError):
        return
    rejection = rejection_in(error)
    if rejection is not None:
        await refuse(context, rejection)
    log.error("a handler failed", exc_info=error, extra={"method": method})
    await context.abort(grpc.StatusCode.INTERNAL, INTERNAL_MESSAGE)


def rejection_in(error: BaseException) -> Rejection | None:
    """The refusal that an error is or stands for, or the first one in a group of errors."""
    if isinstance(error, Rejection):
        return error
    if isinstance(error, DecodeError):
        return malformed_request(error)
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            found = rejection_in(part)
            if found is not None:
                return found
    return None
