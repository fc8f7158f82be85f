"""Refusals on the wire and back, tokens, pages and listen addresses."""

import grpc
import grpc.aio
import pytest

from dtf.coordinator import page_tokens
from dtf.core.run.commands import (
    Conflict,
    FieldViolation,
    InvalidRequest,
    NotFound,
    NotPossible,
    Rejection,
    Unplaceable,
)
from dtf.rpc.auth import is_equal, session_token
from dtf.rpc.certificates import FileCertificates
from dtf.rpc.errors import (
    LOST_STATUS,
    STATUS_OF,
    LogFullRefusal,
    StaleSession,
    UnknownSession,
    describe,
    parse,
    status_code,
    to_status,
)
from dtf.rpc.server import ListenAddress, ListenError, UnsafeListen


def failed_call(rejection: Rejection) -> grpc.aio.AioRpcError:
    status = to_status(rejection)
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(
        status_code(rejection), grpc.aio.Metadata(), trailers, details=rejection.message
    )


@pytest.mark.parametrize(
    ("rejection", "code"),
    [
        (InvalidRequest("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (NotFound("x"), grpc.StatusCode.NOT_FOUND),
        (UnknownSession("x"), grpc.StatusCode.NOT_FOUND),
        (Conflict("x"), grpc.StatusCode.ALREADY_EXISTS),
        (NotPossible("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (StaleSession("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (Unplaceable("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (LogFullRefusal("x"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_every_refusal_has_its_status_and_its_reason(rejection: Rejection, code: grpc.StatusCode) -> None:
    failure = parse(failed_call(rejection))
    assert (failure.code, failure.reason) == (code, rejection.reason)


def test_a_class_outside_the_table_has_the_status_of_its_nearest_base() -> None:
    class Nested(StaleSession):
        reason = "NESTED"

    assert Nested not in STATUS_OF
    assert status_code(Nested("x")) is grpc.StatusCode.FAILED_PRECONDITION


def test_fields_and_metadata_survive_the_wire() -> None:
    rejection = InvalidRequest(
        "the run cannot be created", violations=[FieldViolation("suite", "is empty")], run_id="7f3k"
    )
    failure = parse(failed_call(rejection))
    assert failure.metadata == {"run_id": "7f3k"}
    assert failure.violations == (FieldViolation("suite", "is empty"),)
    assert describe(failed_call(rejection)) == "the run cannot be created (suite: is empty)"


def test_a_fault_that_the_message_names_is_said_once() -> None:
    violations = [FieldViolation("pool", "is empty"), FieldViolation("workers", "is 9")]
    rejection = InvalidRequest("it cannot be scaled: pool is empty (and 1 more)", violations=violations)
    assert describe(failed_call(rejection)) == (
        "it cannot be scaled: pool is empty (and 1 more) (workers: is 9)"
    )


def test_only_an_unavailable_server_is_worth_another_try() -> None:
    gone = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    assert parse(gone).is_retryable
    assert not parse(failed_call(NotFound("x"))).is_retryable


def test_a_status_that_grpc_kept_to_itself_is_worth_asking_for_again() -> None:
    def told(details: str) -> grpc.aio.AioRpcError:
        nothing = grpc.aio.Metadata()
        return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details=details)

    assert parse(told(LOST_STATUS)).is_retryable
    assert not parse(told("the server failed on this call; its log says why")).is_retryable


def test_details_that_are_no_status_are_passed_over() -> None:
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), trailers, "broken")
    assert parse(error).reason == ""
    assert describe(error) == "broken"


def test_a_session_token_belongs_to_one_worker_and_incarnation() -> None:
    token = session_token("secret", "realm", "w-1", 3)
    assert is_equal(token, session_token("secret", "realm", "w-1", 3))
    others = [
        session_token("secret", "realm", "w-1", 4),
        session_token("secret", "realm", "w-2", 3),
        session_token("secret", "other", "w-1", 3),
        session_token("other", "realm", "w-1", 3),
    ]
    assert not any(is_equal(token, other) for other in others)
    assert not is_equal("ü", token), "text that is no token is compared, not refused with an error"


def test_a_page_token_goes_on_where_it_was_made_and_nowhere_else() -> None:
    token = page_tokens.encode("tasks", "7f3k\x000", 200)
    assert page_tokens.decode("tasks", "7f3k\x000", token) == 200
    assert page_tokens.decode("tasks", "7f3k\x000", "") is None
    wrong = [("runs", "7f3k\x000", token), ("tasks", "other", token), ("tasks", "7f3k\x000", token[:-4])]
    for listing, scope, given in [*wrong, ("tasks", "7f3k\x000", "!"), ("tasks", "7f3k\x000", "ü")]:
        with pytest.raises(InvalidRequest, match="page_token"):
            page_tokens.decode(listing, scope, given)


def test_a_page_size_beyond_the_limit_names_the_limit() -> None:
    assert page_tokens.page_size(0, 50, 1000) == 50
    with pytest.raises(InvalidRequest, match="at most 1000"):
        page_tokens.page_size(1001, 50, 1000)


FILES = FileCertificates("cert.pem", "key.pem")


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:7070", "[::1]:0", "127.8.8.8:1"])
def test_loopback_may_be_listened_on(text: str) -> None:
    ListenAddress(text, "token").check()


@pytest.mark.parametrize("text", ["0.0.0.0:7070", "[::]:0", "10.0.0.5:1", "example.org:1", ":7070"])
def test_beyond_loopback_needs_tls_and_a_token(text: str) -> None:
    with pytest.raises(ListenError):
        ListenAddress(text, "token").check()
    with pytest.raises(ListenError):
        ListenAddress(text, "", FILES).check()


def test_the_refusal_to_listen_says_what_is_missing() -> None:
    with pytest.raises(
        UnsafeListen, match=r'without TLS and a token.*leave tls at "auto".* and set token_file'
    ):
        ListenAddress("0.0.0.0:7070", "").check()
    with pytest.raises(UnsafeListen, match=r"without a token.*; set token_file"):
        ListenAddress("0.0.0.0:7070", "", FILES).check()
    ListenAddress("0.0.0.0:7070", "token", FILES).check()


@pytest.mark.parametrize("text", ["7070", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ListenError, match="is not host:port"):
        ListenAddress(text, "token").check()


def test_one_tls_file_without_the_other_is_refused() -> None:
    with pytest.raises(ListenError, match="both files"):
        ListenAddress("127.0.0.1:0", "token", FileCertificates("cert.pem", "")).credentials()
    with pytest.raises(ListenError, match="cannot be read"):
        ListenAddress(
            "127.0.0.1:0", "token", FileCertificates("/nowhere/c.pem", "/nowhere/k.pem")
        ).credentials()


def test_the_token_is_not_shown() -> None:
    assert "secret" not in repr(ListenAddress("127.0.0.1:0", "secret"))
