"""Join tokens, as whoever starts workers elsewhere asks for them."""

from collections.abc import Sequence

import grpc.aio

from dtf.api.v1 import token_service_pb2, token_service_pb2_grpc

CALL_TIMEOUT_SECONDS = 30.0
LAUNCH_LIFETIME_SECONDS = 900.0
"""A launch that has not joined a quarter of an hour after it was asked for is given up."""

Metadata = tuple[tuple[str, str], ...]


class JoinTokens:
    """TokenService behind a channel of an operator's. Errors are gRPC's own."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Metadata) -> None:
        self._stub: token_service_pb2_grpc.TokenServiceAsyncStub = token_service_pb2_grpc.TokenServiceStub(
            channel
        )
        self._metadata = metadata

    async def issue(
        self,
        *,
        pool: str,
        launch_id: str = "",
        expires_seconds: float = LAUNCH_LIFETIME_SECONDS,
        is_single_use: bool = True,
        issued_by: str = "",
        addresses: Sequence[str] = (),
    ) -> str:
        """The line of a new token: a secret. The worker takes it as DTF_JOIN_TOKEN or in a --join-file.

        With a launch id it admits the worker of that launch only. `addresses` (host:port) say where the
        worker finds the coordinators, if that is not where they know themselves to be.
        """
        response = await self.make(
            token_service_pb2.IssueTokenRequest(
                pool=pool,
                launch_id=launch_id,
                lifetime_seconds=expires_seconds,
                is_single_use=is_single_use,
                issued_by=issued_by,
                addresses=addresses,
            )
        )
        return response.text

    async def make(
        self, request: token_service_pb2.IssueTokenRequest
    ) -> token_service_pb2.IssueTokenResponse:
        """A new token with what is known of it."""
        return await self._stub.IssueToken(
            request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS, wait_for_ready=True
        )

    async def list(
        self, *, pool: str = "", include_ended: bool = False
    ) -> Sequence[token_service_pb2.JoinToken]:
        """Tokens, the newest first."""
        request = token_service_pb2.ListTokensRequest(pool=pool, include_ended=include_ended)
        response = await self._stub.ListTokens(
            request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS, wait_for_ready=True
        )
        return response.tokens

    async def revoke(
        self, token_id: str, *, revoked_by: str = "", reason: str = ""
    ) -> token_service_pb2.JoinToken:
        """Let a token, named by its id or the beginning of it, admit nobody any more."""
        request = token_service_pb2.RevokeTokenRequest(
            token_id=token_id, revoked_by=revoked_by, reason=reason
        )
        response = await self._stub.RevokeToken(
            request, metadata=self._metadata, timeout=CALL_TIMEOUT_SECONDS, wait_for_ready=True
        )
        return response.token
