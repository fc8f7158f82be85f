"""A join token in a snapshot: how it was issued, and what became of it."""

from dtf.api.v1 import events_pb2, state_pb2
from dtf.core.fleet.join_token import JoinToken


def save_token(token: JoinToken, cluster_id: str) -> state_pb2.SavedToken:
    """The token as its message."""
    issued = events_pb2.TokenIssued(
        token_id=token.token_id,
        secret_hash=token.secret_hash,
        pool=token.pool,
        expires_unix_nanos=token.expires_at_ns,
        is_single_use=token.is_single_use,
        launch_id=token.launch_id,
        issued_by=token.issued_by,
        cluster_id=cluster_id,
    )
    return state_pb2.SavedToken(
        issued=issued,
        issued_unix_nanos=token.issued_at_ns,
        revoked_unix_nanos=token.revoked_at_ns,
        revoked_by=token.revoked_by,
        use_count=token.use_count,
        last_worker_id=token.last_worker_id,
    )


def load_token(saved: state_pb2.SavedToken) -> JoinToken:
    """The token that was saved."""
    token = JoinToken.of(saved.issued, saved.issued_unix_nanos)
    token.revoked_at_ns = saved.revoked_unix_nanos
    token.revoked_by = saved.revoked_by
    token.use_count = saved.use_count
    token.last_worker_id = saved.last_worker_id
    return token
