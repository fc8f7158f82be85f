"""A join token as the log knows it: everything but its secret.

valid ──RevokeToken──▶ revoked
  ├────time──────────▶ expired
  └────for one worker, which came──▶ spent
"""

from dataclasses import dataclass

from dtf.api.v1 import events_pb2


@dataclass(slots=True)
class JoinToken:
    """One token. Only evolve changes it."""

    token_id: str
    secret_hash: bytes
    """SHA-256 of the secret."""
    pool: str
    expires_at_ns: int
    """The first instant at which it admits nobody."""
    is_single_use: bool = False
    launch_id: str = ""
    """The launch whose worker alone it admits; empty: any worker."""
    issued_by: str = ""
    issued_at_ns: int = 0
    revoked_at_ns: int = 0
    """When it was revoked; 0: it was not."""
    revoked_by: str = ""
    use_count: int = 0
    """Sessions it opened."""
    last_worker_id: str = ""
    """The worker it admitted last."""

    @classmethod
    def of(cls, said: events_pb2.TokenIssued, issued_at_ns: int) -> "JoinToken":
        """A token as it is issued."""
        return cls(
            token_id=said.token_id,
            secret_hash=said.secret_hash,
            pool=said.pool,
            expires_at_ns=said.expires_unix_nanos,
            is_single_use=said.is_single_use,
            launch_id=said.launch_id,
            issued_by=said.issued_by,
            issued_at_ns=issued_at_ns,
        )

    @property
    def is_revoked(self) -> bool:
        """Whether somebody revoked it."""
        return self.revoked_at_ns != 0

    @property
    def is_spent(self) -> bool:
        """Whether it was for one worker, which came."""
        return self.is_single_use and self.use_count > 0

    def is_expired(self, now_ns: int) -> bool:
        """Whether its time is over."""
        return now_ns >= self.expires_at_ns
