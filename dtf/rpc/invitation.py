"""What a worker of another machine is given: one line that says where, whom to trust, and a secret.

    dtfjoin1_<base64url of a JSON object><its check>

The object has short keys: `a` addresses, `f` SHA-256 of the certificate to trust, `n` the name that
every certificate of the cluster carries, `c` cluster, `i` token, `k` secret, `p` pool, `e` expiry.
The check, the first six digits of the text's SHA-256, tells a line that was cut when it was copied
from one that is refused. A `1` in the prefix is the version of all this.

On the wire a worker shows `dtf-join/<cluster>/<token>/<secret>` once, to open its session, and
`dtf-session/<worker>/<incarnation>/<secret of the session>` from then on.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

PREFIX = "dtfjoin1_"
SYSTEM_ROOTS = "system"
"""In the place of a fingerprint: the certificates are signed by an authority that machines trust anyway."""
JOIN_SCHEME = "dtf-join"
SESSION_SCHEME = "dtf-session"
_CHECK_DIGITS = 6


class InvitationDamaged(ValueError):
    """A text that is no join token, or not all of one; the message never holds the text."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How a caller knows that it talks to the cluster."""

    fingerprint: str = ""
    """SHA-256 of a certificate that the server sends, in hexadecimal digits; SYSTEM_ROOTS; empty: no TLS."""
    server_name: str = ""
    """The name that every certificate of the cluster carries; empty: that of the host is asked for."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A join token, as a worker has it."""

    addresses: tuple[str, ...]
    trust: Trust
    cluster_id: str
    token_id: str
    secret: str = field(repr=False)
    pool: str
    expires_at: float
    """Seconds since 1970, by the coordinator's clock."""

    @property
    def credential(self) -> str:
        """What is shown to open a session."""
        return f"{JOIN_SCHEME}/{self.cluster_id}/{self.token_id}/{self.secret}"

    @property
    def text(self) -> str:
        """The line. `parse_invitation` reads it."""
        document = {
            "a": list(self.addresses),
            "f": self.trust.fingerprint,
            "n": self.trust.server_name,
            "c": self.cluster_id,
            "i": self.token_id,
            "k": self.secret,
            "p": self.pool,
            "e": round(self.expires_at),
        }
        encoded = json.dumps(document, separators=(",", ":")).encode()
        body = base64.urlsafe_b64encode(encoded).decode().rstrip("=")
        return f"{PREFIX}{body}{_check(body)}"


def parse_invitation(text: str) -> Invitation:
    """The join token in a line. Raises InvitationDamaged, without saying what the line holds."""
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        known = line.startswith("dtfjoin")
        what = "is of another version of dtf" if known else f"does not begin with {PREFIX}"
        raise InvitationDamaged(f"the join token {what}")
    body, check = line[len(PREFIX) : -_CHECK_DIGITS], line[-_CHECK_DIGITS:]
    if not body or check != _check(body):
        raise InvitationDamaged(
            f"the join token is damaged: its {len(line)} characters do not belong together; copy the whole line"
        )
    try:
        document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return Invitation(
            addresses=tuple(map(str, document["a"])),
            trust=Trust(str(document["f"]), str(document["n"])),
            cluster_id=str(document["c"]),
            token_id=str(document["i"]),
            secret=str(document["k"]),
            pool=str(document["p"]),
            expires_at=float(document["e"]),
        )
    except (ValueError, KeyError, TypeError):
        raise InvitationDamaged("the join token is damaged: it does not say what a token says") from None


def session_credential(worker_id: str, incarnation: int, secret: str) -> str:
    """What a worker shows from the moment its session is open."""
    return f"{SESSION_SCHEME}/{worker_id}/{incarnation}/{secret}"


def secret_hash(secret: str) -> bytes:
    """What the log keeps of a token's secret, which is random: nothing slower is needed."""
    return hashlib.sha256(secret.encode()).digest()


def _check(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:_CHECK_DIGITS]
