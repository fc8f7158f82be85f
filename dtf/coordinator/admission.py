"""Who may call the coordinator: operators by its token, workers by a join token, then by their session's secret.

    operator's token ─┐
    join token ───────┴─▶ CreateSession ─▶ secret of the session ─▶ Attach, output, blobs, the next session

Secrets are compared here, in a time that tells nothing; a join token's is only known by its hash.
Whether the token still admits anybody is decided by the core, so that the log can prove it.
"""

from dtf.api.v1 import common_pb2
from dtf.coordinator.session_secrets import SessionSecrets
from dtf.core.run.commands import Rejection, TokenRefused
from dtf.core.run.state import State
from dtf.rpc.auth import Caller, Joiner, Operator, SessionHolder, is_equal
from dtf.rpc.errors import Forbidden, Unauthenticated
from dtf.rpc.invitation import JOIN_SCHEME, SESSION_SCHEME, secret_hash

_NO_HASH = bytes(32)
_LONGEST_SHOWN = 64


class Admission:
    """The coordinator's Access. The state is bound when the reign begins, before anybody is served."""

    def __init__(self, token: str, secrets: SessionSecrets) -> None:
        self._token = token
        self._secrets = secrets
        self._state = State()

    def bind(self, state: State) -> None:
        """Name the state whose join tokens and sessions are known."""
        self._state = state
        self._secrets.bind(state)

    def identify(self, credential: str) -> Caller:
        """Who shows this. Raises Unauthenticated, TokenRefused."""
        if is_equal(credential, self._token):
            return Operator()
        scheme, _, rest = credential.partition("/")
        match scheme:
            case _ if scheme == JOIN_SCHEME:
                return self._joiner(rest)
            case _ if scheme == SESSION_SCHEME:
                return self._session_holder(rest)
            case _:
                raise Unauthenticated(
                    "this call needs `authorization: Bearer <token>`; the token is missing or wrong"
                )

    def _joiner(self, text: str) -> Joiner:
        cluster_id, _, rest = text.partition("/")
        token_id, _, secret = rest.partition("/")
        if cluster_id != self._state.cluster_id:
            raise TokenRefused(
                f"the join token is of cluster {cluster_id[:_LONGEST_SHOWN]!r}, this is "
                f"{self._state.cluster_id or 'one without join tokens'}; ask for one of this cluster"
            )
        token = self._state.tokens.get(token_id)
        is_right = is_equal_hash(secret, token.secret_hash if token is not None else _NO_HASH)
        if token is None:
            raise TokenRefused(
                f"join token {token_id[:_LONGEST_SHOWN]!r} is not known here: it ended long ago; ask for a new one"
            )
        if not is_right:
            raise Unauthenticated(
                f"the secret is not that of join token {token.token_id}; copy the whole line"
            )
        return Joiner(token.token_id)

    def _session_holder(self, text: str) -> SessionHolder:
        worker_id, _, rest = text.partition("/")
        number, _, secret = rest.partition("/")
        incarnation = int(number) if number.isascii() and number.isdigit() and len(number) < 20 else 0
        if not self._secrets.is_right(secret, worker_id, incarnation):
            raise Unauthenticated("the session token does not belong to this worker and incarnation")
        return SessionHolder(worker_id, incarnation)


def is_equal_hash(secret: str, expected: bytes) -> bool:
    """Whether a secret has this hash, in a time that does not tell where they differ."""
    return is_equal(secret_hash(secret).hex(), expected.hex())


def refusal_of_session(state: State, caller: Caller) -> Rejection | None:
    """Why a worker's session may not fetch or upload any more; None if it may, or is no worker's."""
    if not isinstance(caller, SessionHolder):
        return None
    worker = state.workers.get(caller.worker_id)
    if worker is not None and worker.incarnation == caller.incarnation and worker.is_present:
        if worker.state != common_pb2.WORKER_STATE_QUARANTINED:
            return None
        return Forbidden(f"worker {caller.worker_id!r} is in quarantine: {worker.distrust}")
    return Unauthenticated(
        f"session {caller.incarnation} of worker {caller.worker_id!r} is over; open a new one"
    )


def check_name(state: State, token_id: str, worker_id: str) -> None:
    """Raises TokenRefused if a worker that came with a launch's token takes another name than the launch's.

    Not for the core to say: the log does not tell a name that was asked for from one that was given.
    """
    token = state.tokens.get(token_id)
    if token is not None and token.launch_id and worker_id not in ("", token.launch_id):
        raise TokenRefused(
            f"join token {token_id} is for launch {token.launch_id!r}, whose worker has that name or is given "
            f"one, and this one is called {worker_id[:_LONGEST_SHOWN]!r}; leave out --name",
            token_id=token_id,
        )
