"""Refusals on the wire: one table from what went wrong to a gRPC status, and the way back.

A refusal is a google.rpc.Status with an ErrorInfo (domain "dtf", a reason that programs compare,
metadata) and, where fields are at fault, a BadRequest that names them. The shell's own refusals
join the core's tree:

    Rejection (dtf.core.run.commands)
    ├── InvalidRequest        INVALID_ARGUMENT     the request itself is at fault
    │   └── BlobFault         INVALID_ARGUMENT     content and announcement differ
    ├── NotFound              NOT_FOUND            it names something that is not there
    │   └── UnknownSession    NOT_FOUND            no such worker here: open a new session
    ├── Conflict              ALREADY_EXISTS       it contradicts what is there
    ├── NotPossible           FAILED_PRECONDITION  the state does not allow it now
    │   └── StaleSession      FAILED_PRECONDITION  the incarnation was superseded or lost: open a new session
    ├── Unplaceable           FAILED_PRECONDITION  nothing could ever run it
    ├── TokenRefused          PERMISSION_DENIED    the join token does not admit this worker
    ├── Forbidden             PERMISSION_DENIED    who calls is known, and may not do this
    ├── Unauthenticated       UNAUTHENTICATED      the token is missing or wrong
    ├── TooManyFailures       RESOURCE_EXHAUSTED   too many calls with wrong credentials came from there
    ├── SessionReplaced       ABORTED              a newer stream of the same session took over
    ├── LogFullRefusal        RESOURCE_EXHAUSTED   the event log takes no more until room is made
    ├── Overloaded            RESOURCE_EXHAUSTED   more at once than can be held; RetryInfo says when to try again
    ├── TooManyStreams        RESOURCE_EXHAUSTED   clients have as many streams open as they may
    ├── StoreRefusal          RESOURCE_EXHAUSTED   the blob store takes no more until room is made
    ├── LogUnavailableRefusal UNAVAILABLE          the event log does not answer; try again
    ├── StoreUnavailableRefusal UNAVAILABLE        the metric store does not answer; try again
    └── NotLeading            UNAVAILABLE          this coordinator is stopping or was deposed; try again
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from dtf.core.run.commands import (
    Conflict,
    FieldViolation,
    InvalidRequest,
    NotFound,
    NotPossible,
    Rejection,
    TokenRefused,
    Unplaceable,
)

DOMAIN = "dtf"
_DETAILS_KEY = "grpc-status-details-bin"


class BlobFault(InvalidRequest):
    """What was uploaded is not what was announced."""

    reason = "BLOB_FAULT"


class UnknownSession(NotFound):
    """No such worker is known here."""

    reason = "UNKNOWN_SESSION"


class StaleSession(NotPossible):
    """The session's incarnation was superseded, lost or has left."""

    reason = "STALE_SESSION"


class Unauthenticated(Rejection):
    """The token is missing or wrong."""

    reason = "UNAUTHENTICATED"


class Forbidden(Rejection):
    """Who calls is known, and may not do this."""

    reason = "FORBIDDEN"


class TooManyFailures(Rejection):
    """Too many calls with wrong credentials came from this address."""

    reason = "TOO_MANY_FAILURES"


class SessionReplaced(Rejection):
    """A newer stream of the same session took over."""

    reason = "SESSION_REPLACED"


class LogFullRefusal(Rejection):
    """The event log takes no more until room is made."""

    reason = "LOG_FULL"


class Overloaded(Rejection):
    """More is asked at once than can be held; the same call succeeds a little later."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TooManyStreams(Rejection):
    """Clients have as many streams open as they may; some must end first."""

    reason = "TOO_MANY_STREAMS"


class StoreRefusal(Rejection):
    """The blob store takes no more until room is made."""

    reason = "STORE_FULL"


class LogUnavailableRefusal(Rejection):
    """The event log does not answer."""

    reason = "LOG_UNAVAILABLE"


class StoreUnavailableRefusal(Rejection):
    """The metric store does not answer."""

    reason = "STORE_UNAVAILABLE"


class NotLeading(Rejection):
    """This coordinator is stopping or was deposed."""

    reason = "NOT_LEADING"


STATUS_OF: Mapping[type[Rejection], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    NotPossible: grpc.StatusCode.FAILED_PRECONDITION,
    Unplaceable: grpc.StatusCode.FAILED_PRECONDITION,
    TokenRefused: grpc.StatusCode.PERMISSION_DENIED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    TooManyFailures: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SessionReplaced: grpc.StatusCode.ABORTED,
    LogFullRefusal: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooManyStreams: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StoreRefusal: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LogUnavailableRefusal: grpc.StatusCode.UNAVAILABLE,
    StoreUnavailableRefusal: grpc.StatusCode.UNAVAILABLE,
    NotLeading: grpc.StatusCode.UNAVAILABLE,
    Rejection: grpc.StatusCode.FAILED_PRECONDITION,
}
"""The table. A class that is not in it has the status of its nearest base."""

SERVER_WENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""What a call gets whose server is gone, or goes: one that meets a server while it closes is told CANCELLED.
Who cancels a call of its own gets no status but asyncio.CancelledError."""

LOST_STATUS = "Internal error from Core"
"""What gRPC's asyncio client says, as INTERNAL, instead of the status that the server ended a stream with, where a
message was being written at that moment (grpcio 1.85)."""


@dataclass(frozen=True, slots=True)
class RpcFailure:
    """A failed call as a client sees it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    """ErrorInfo's reason, as "STALE_SESSION"; empty: the failure is not dtf's own."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after_seconds: float = 0.0
    """RetryInfo's delay: the same call may be made again after it; 0: nothing was said of that."""

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code in SERVER_WENT or self.is_status_lost

    @property
    def is_status_lost(self) -> bool:
        """Whether gRPC kept the server's own words to itself: the same call, made again, hears them."""
        return self.code is grpc.StatusCode.INTERNAL and self.message == LOST_STATUS


def status_code(rejection: Rejection) -> grpc.StatusCode:
    """The gRPC status of a refusal."""
    for kind in type(rejection).__mro__:
        if kind in STATUS_OF:
            return STATUS_OF[kind]
    return grpc.StatusCode.UNKNOWN


def to_status(rejection: Rejection) -> status_pb2.Status:
    """The google.rpc.Status of a refusal."""
    number: int = status_code(rejection).value[0]
    status = status_pb2.Status(code=number, message=rejection.message)
    info = error_details_pb2.ErrorInfo(
        reason=rejection.reason, domain=DOMAIN, metadata={k: str(v) for k, v in rejection.metadata.items()}
    )
    _pack(status, info)
    if rejection.violations:
        fault = error_details_pb2.BadRequest()
        for violation in rejection.violations:
            fault.field_violations.add(field=violation.field, description=violation.description)
        _pack(status, fault)
    if isinstance(rejection, Overloaded):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(rejection.retry_after_seconds * 1000))
        _pack(status, retry)
    return status


async def refuse(context: "grpc.aio.ServicerContext[object, object]", rejection: Rejection) -> None:
    """End the call with the refusal's status. Always raises."""
    status = to_status(rejection)
    details = ((_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(status_code(rejection), rejection.message, details)


def parse(error: grpc.RpcError) -> RpcFailure:
    """What a failed call says, however much of it the peer sent."""
    code, message, trailers = _call_parts(error)
    status = _status_of(trailers)
    if status is None:
        return RpcFailure(code, message)
    reason, metadata, violations, retry_seconds = "", {}, [], 0.0
    for detail in status.details:
        info, fault = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(fault):
            violations += [FieldViolation(item.field, item.description) for item in fault.field_violations]
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToMilliseconds() / 1000
    text = status.message or message
    return RpcFailure(code, text, reason, metadata, tuple(violations), retry_seconds)


def describe(error: grpc.RpcError) -> str:
    """One line for people: what happened, and which fields are at fault."""
    failure = parse(error)
    text = failure.message or f"the call failed with {failure.code.name}"
    unsaid = [item for item in failure.violations if f"{item.field} {item.description}" not in text]
    faults = "; ".join(f"{item.field}: {item.description}" for item in unsaid)
    if faults and faults not in text:
        text = f"{text} ({faults})"
    return text


def _pack(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _call_parts(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, list[tuple[str, str | bytes]]]:
    """Code, message and trailers; the asyncio and the blocking API name them alike."""
    if not isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return grpc.StatusCode.UNKNOWN, str(error), []
    code = error.code() or grpc.StatusCode.UNKNOWN
    trailers = [(str(key), value) for key, value in (error.trailing_metadata() or ())]
    return code, error.details() or "", trailers


def _status_of(trailers: list[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in trailers:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            return status if status.code != code_pb2.OK else None
    return None
