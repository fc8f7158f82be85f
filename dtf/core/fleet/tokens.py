"""Decisions about join tokens: issued, revoked, and whom they admit.

A token says which pool a worker may join and until when; of its secret the log has a hash, and
whether a caller knows the secret was found out before the command was made. So whatever is decided
here can be derived again from the log: that a token was expired, revoked or spent included.

A worker that was admitted and whose session was lost proves itself by the secret of that session
instead: its token may have been spent or expired since. It is refused only if the token was revoked.

Tokens that ended long ago are forgotten when new ones are issued, unless a worker is known that
came with them: a revoked token must not be forgotten while a session of it could be renewed.
"""

from collections.abc import Iterator
from itertools import islice

from dtf.api.v1 import events_pb2
from dtf.core.fleet.join_token import JoinToken
from dtf.core.fleet.worker import Worker
from dtf.core.run import limits
from dtf.core.run.commands import (
    Conflict,
    IssueToken,
    NotFound,
    NotPossible,
    RegisterWorker,
    RevokeToken,
    TokenRefused,
)
from dtf.core.run.limits import Faults
from dtf.core.run.state import State

MOST_TOKENS = 100_000
"""Of those that admit workers: forty megabytes."""
LONGEST_LIFETIME_SECONDS = 366 * 86_400.0
_SECRET_HASH_BYTES = 32
_KEPT_NS = 86_400 * 10**9
"""A token that ended is listed for a day."""
_MOST_FORGOTTEN = 1000
"""In one event."""


def issue_token(state: State, command: IssueToken, now_ns: int) -> list[events_pb2.Event]:
    """TokenIssued; the first one of a log says which cluster it is."""
    _check(command)
    if command.token_id in state.tokens:
        raise Conflict(f"token {command.token_id} exists already; give a fresh identifier")
    forgotten = list(islice(_long_ended(state, now_ns), _MOST_FORGOTTEN))
    if len(state.tokens) - len(forgotten) >= MOST_TOKENS:
        raise NotPossible(
            f"there are {len(state.tokens)} join tokens, and {MOST_TOKENS} are the most; revoke some, or let them expire"
        )
    issued = events_pb2.TokenIssued(
        token_id=command.token_id,
        secret_hash=command.secret_hash,
        pool=command.pool,
        expires_unix_nanos=command.expires_at_ns,
        is_single_use=command.is_single_use,
        launch_id=command.launch_id,
        issued_by=command.issued_by,
        cluster_id=state.cluster_id or command.cluster_id,
        forgotten_token_ids=forgotten,
    )
    return [events_pb2.Event(token_issued=issued)]


def _check(command: IssueToken) -> None:
    faults = Faults()
    faults.text("token_id", command.token_id, 1, 128)
    faults.text("pool", command.pool, 1, 128)
    for name in ("launch_id", "issued_by", "cluster_id"):
        faults.text(name, getattr(command, name), 0, limits.MAX_LABEL_LENGTH)
    if len(command.secret_hash) != _SECRET_HASH_BYTES:
        faults.add("secret_hash", f"has {len(command.secret_hash)} bytes; {_SECRET_HASH_BYTES} are needed")
    faults.refuse_if_any("the token cannot be issued")


def _long_ended(state: State, now_ns: int) -> Iterator[str]:
    """Tokens that need not be remembered."""
    latest = now_ns - _KEPT_NS
    named = {worker.join_token_id for worker in state.workers.values()}
    for token in state.tokens.values():
        has_ended = token.expires_at_ns <= latest or 0 < token.revoked_at_ns <= latest
        if has_ended and token.token_id not in named:
            yield token.token_id


def revoke_token(state: State, command: RevokeToken) -> list[events_pb2.Event]:
    """TokenRevoked; nothing if it is already."""
    token = state.tokens.get(command.token_id)
    if token is None:
        raise NotFound(f"there is no join token {command.token_id[:64]!r}; `dtf token` lists them")
    if token.is_revoked:
        return []
    revoked = events_pb2.TokenRevoked(
        token_id=token.token_id,
        revoked_by=command.revoked_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    return [events_pb2.Event(token_revoked=revoked)]


def admitting_token(state: State, command: RegisterWorker, now_ns: int) -> str:
    """Identity of the token that admits the worker; "" if it needs none. Raises TokenRefused."""
    if command.proved_incarnation:
        return _of_earlier_session(state, command)
    if command.is_by_operator:
        return ""
    token = state.tokens.get(command.join_token_id)
    if token is None:
        raise TokenRefused(f"join token {command.join_token_id[:64]!r} is not known here: it ended long ago")
    fault = fault_of(token, now_ns) or _misfit(state, token, command)
    if fault:
        raise TokenRefused(f"join token {token.token_id} {fault}", token_id=token.token_id)
    return token.token_id


def fault_of(token: JoinToken, now_ns: int) -> str:
    """Why a token admits nobody; "" if it does."""
    if token.is_revoked:
        by = f" by {token.revoked_by}" if token.revoked_by else ""
        return f"was revoked{by}; ask for a new one"
    if token.is_spent:
        return f"was for one worker, and {token.last_worker_id} came with it; ask for a new one"
    if token.is_expired(now_ns):
        seconds = (now_ns - token.expires_at_ns) / 1e9
        return f"expired {seconds:.0f} s ago by the coordinator's clock; ask for a new one"
    return ""


def _misfit(state: State, token: JoinToken, command: RegisterWorker) -> str:
    """Why a valid token does not admit this worker; "" if it does."""
    request = command.request
    if request.pool != token.pool:
        return f"is for pool {token.pool!r}, and the worker is of pool {request.pool[:128]!r}"
    if token.launch_id and request.launch_id != token.launch_id:
        return (
            f"is for launch {token.launch_id!r}, and the worker is of {request.launch_id[:128] or 'none'!r}"
        )
    before = state.workers.get(request.worker_id)
    if before is None:
        return ""
    if before.pool != token.pool:
        return f"is for pool {token.pool!r}, and worker {before.worker_id} is of pool {before.pool!r}"
    if before.is_present:
        return (
            f"takes no worker's place, and the session of worker {before.worker_id} is open; "
            "wait until it has ended, or give another name"
        )
    is_same_launch = bool(token.launch_id) and token.launch_id == before.launch_id
    if before.join_token_id != token.token_id and not is_same_launch:
        return (
            f"takes the name of no worker that came otherwise, and worker {before.worker_id} did; "
            "give another name"
        )
    return ""


def check_repeated(worker: Worker, incarnation: int, command: RegisterWorker) -> None:
    """Whether the caller is who opened this incarnation by the same request. Raises TokenRefused.

    An operator may know of every session. Others must show what they showed before: the answer holds
    the secret of the session.
    """
    if command.is_by_operator:
        return
    if command.proved_incarnation:
        is_same = (command.request.worker_id, command.proved_incarnation + 1) == (
            worker.worker_id,
            incarnation,
        )
    else:
        is_same = command.join_token_id == worker.join_token_id
    if not is_same:
        raise TokenRefused(
            f"request id {command.request.request_id!r} was used by another caller; use a new id"
        )


def _of_earlier_session(state: State, command: RegisterWorker) -> str:
    """The worker proved that it had a session. Raises TokenRefused."""
    request = command.request
    before = state.workers.get(request.worker_id)
    if before is None or before.incarnation != command.proved_incarnation:
        raise TokenRefused(
            f"session {command.proved_incarnation} of worker {request.worker_id[:128]!r} is not its last one; "
            "join with a token"
        )
    if request.pool != before.pool or request.launch_id != before.launch_id:
        raise TokenRefused(
            f"worker {before.worker_id} is of pool {before.pool!r} and launch {before.launch_id!r}; "
            "the secret of its session opens no session of another"
        )
    token = state.tokens.get(before.join_token_id)
    if token is not None and token.is_revoked:
        raise TokenRefused(
            f"join token {token.token_id}, with which worker {before.worker_id} came, {fault_of(token, 0)}"
        )
    return before.join_token_id
