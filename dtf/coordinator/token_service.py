"""TokenService: join tokens made, listed and revoked.

The secret is made here, said once in the answer, and kept by nobody: the log has its hash. A call
that is repeated because its answer was lost makes another token; the first one then ends unused.
"""

import secrets
from collections.abc import Sequence

from dtf.api.v1 import token_service_pb2
from dtf.coordinator.desk import Desk, require
from dtf.core.fleet.join_token import JoinToken
from dtf.core.fleet.tokens import LONGEST_LIFETIME_SECONDS
from dtf.core.run.commands import FieldViolation, InvalidRequest, IssueToken, NotFound, RevokeToken
from dtf.rpc.addresses import is_loopback
from dtf.rpc.channel import parse_addresses
from dtf.rpc.handlers import Context, answering
from dtf.rpc.invitation import Invitation, Trust, secret_hash

DEFAULT_LIFETIME_SECONDS = 3600.0
_SECRET_BYTES = 24
_TOKEN_ID_LENGTH = 8
_CLUSTER_ID_LENGTH = 12
_MOST_ADDRESSES = 16


class TokenService:
    """The service."""

    def __init__(self, desk: Desk, addresses: Sequence[str]) -> None:
        """`addresses`: where workers find the coordinators, unless a call says otherwise."""
        self._desk = desk
        self._addresses = tuple(addresses)

    @answering
    async def IssueToken(
        self, request: token_service_pb2.IssueTokenRequest, context: Context
    ) -> token_service_pb2.IssueTokenResponse:
        """Makes a token."""
        desk = self._desk
        lifetime = _checked_lifetime(request.lifetime_seconds)
        addresses = _checked_addresses(request.addresses) or self._addresses
        trust = desk.certificates.trust() if desk.certificates is not None else Trust()
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        outcome = await desk.writer.submit(
            IssueToken(
                token_id=desk.clock.new_id(_TOKEN_ID_LENGTH),
                secret_hash=secret_hash(secret),
                pool=request.pool,
                expires_at_ns=desk.clock.now_ns() + int(lifetime * 1e9),
                cluster_id=desk.clock.new_id(_CLUSTER_ID_LENGTH),
                is_single_use=request.is_single_use,
                launch_id=request.launch_id,
                issued_by=request.issued_by,
            )
        )
        issued = outcome.events[0].token_issued
        invitation = Invitation(
            addresses=addresses,
            trust=trust,
            cluster_id=issued.cluster_id,
            token_id=issued.token_id,
            secret=secret,
            pool=issued.pool,
            expires_at=issued.expires_unix_nanos / 1e9,
        )
        return token_service_pb2.IssueTokenResponse(
            text=invitation.text,
            token=self._message(desk.state.tokens[issued.token_id]),
            warning=_warning(addresses),
        )

    @answering
    async def ListTokens(
        self, request: token_service_pb2.ListTokensRequest, context: Context
    ) -> token_service_pb2.ListTokensResponse:
        """Tokens, the newest first."""
        tokens = [
            self._message(token)
            for token in reversed(self._desk.state.tokens.values())
            if request.pool in ("", token.pool)
        ]
        await self._desk.writer.settled()
        valid = token_service_pb2.JOIN_TOKEN_STATE_VALID
        return token_service_pb2.ListTokensResponse(
            tokens=[token for token in tokens if request.include_ended or token.state == valid]
        )

    @answering
    async def RevokeToken(
        self, request: token_service_pb2.RevokeTokenRequest, context: Context
    ) -> token_service_pb2.RevokeTokenResponse:
        """Lets a token admit nobody any more."""
        require(request.token_id, "token_id")
        token_id = self._find(request.token_id)
        await self._desk.writer.submit(RevokeToken(token_id, request.revoked_by, request.reason))
        return token_service_pb2.RevokeTokenResponse(token=self._message(self._desk.state.tokens[token_id]))

    def _find(self, text: str) -> str:
        """The token with this identity, or the only one that begins so. Raises NotFound, InvalidRequest."""
        known = self._desk.state.tokens
        if text in known:
            return text
        found = [token_id for token_id in known if token_id.startswith(text)]
        if not found:
            raise NotFound(f"there is no join token {text[:64]!r}; `dtf token` lists them")
        if len(found) > 1:
            raise InvalidRequest(
                f"{len(found)} join tokens begin with {text!r}; say more of it",
                violations=[FieldViolation("token_id", "is ambiguous")],
            )
        return found[0]

    def _message(self, token: JoinToken) -> token_service_pb2.JoinToken:
        return token_service_pb2.JoinToken(
            token_id=token.token_id,
            pool=token.pool,
            state=_state_of(token, self._desk.clock.now_ns()),
            issued_at=token.issued_at_ns / 1e9,
            expires_at=token.expires_at_ns / 1e9,
            is_single_use=token.is_single_use,
            launch_id=token.launch_id,
            issued_by=token.issued_by,
            use_count=token.use_count,
            last_worker_id=token.last_worker_id,
            revoked_by=token.revoked_by,
            cluster_id=self._desk.state.cluster_id,
        )


def _state_of(token: JoinToken, now_ns: int) -> "token_service_pb2.JoinTokenState.ValueType":
    if token.is_revoked:
        return token_service_pb2.JOIN_TOKEN_STATE_REVOKED
    if token.is_spent:
        return token_service_pb2.JOIN_TOKEN_STATE_SPENT
    if token.is_expired(now_ns):
        return token_service_pb2.JOIN_TOKEN_STATE_EXPIRED
    return token_service_pb2.JOIN_TOKEN_STATE_VALID


def _checked_lifetime(seconds: float) -> float:
    if not seconds:
        return DEFAULT_LIFETIME_SECONDS
    if 1 <= seconds <= LONGEST_LIFETIME_SECONDS:
        return seconds
    text = f"is {seconds:g}; 1 to {LONGEST_LIFETIME_SECONDS:g} is allowed"
    raise InvalidRequest(f"lifetime_seconds {text}", violations=[FieldViolation("lifetime_seconds", text)])


def _checked_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    if not addresses:
        return ()
    try:
        found = parse_addresses(",".join(addresses))
    except ValueError as error:
        raise InvalidRequest(str(error), violations=[FieldViolation("addresses", str(error))]) from error
    if len(found) > _MOST_ADDRESSES:
        text = f"has {len(found)} entries; at most {_MOST_ADDRESSES} are allowed"
        raise InvalidRequest(f"addresses {text}", violations=[FieldViolation("addresses", text)])
    return found


def _warning(addresses: Sequence[str]) -> str:
    if all(map(is_loopback, addresses)):
        return (
            f"workers of other machines cannot reach {', '.join(addresses)}; "
            "set [coordinator] listen to an address beyond loopback"
        )
    return ""
