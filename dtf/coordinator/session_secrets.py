"""The secrets of workers' sessions: made of the operators' token, the cluster, the namespace, worker and incarnation.

None is kept: whoever leads next, by the same token, makes the same. The same token may serve several
clusters and namespaces; a session of one is none of another.

A log has no name of its cluster before its first join token. Sessions that were opened before go on
afterwards, so what was made without the name is taken too: those workers came with the operators' own
token, and who holds that needs to forge nothing.
"""

from dtf.core.run.state import State
from dtf.rpc.auth import is_equal, session_token


class SessionSecrets:
    """Makes and knows the secrets. The state is bound when the reign begins, before anybody is served."""

    def __init__(self, token: str, namespace: str, state: State | None = None) -> None:
        self._token = token
        self._namespace = namespace
        self._state = state or State()

    def bind(self, state: State) -> None:
        """Name the state that says how the cluster is called."""
        self._state = state

    def of(self, worker_id: str, incarnation: int) -> str:
        """The secret of a session."""
        return self._secret(self._state.cluster_id, worker_id, incarnation)

    def is_right(self, secret: str, worker_id: str, incarnation: int) -> bool:
        """Whether this is the secret of a session, in a time that does not tell where it differs."""
        clusters = {self._state.cluster_id, ""}
        found = [is_equal(secret, self._secret(each, worker_id, incarnation)) for each in clusters]
        return any(found)

    def _secret(self, cluster_id: str, worker_id: str, incarnation: int) -> str:
        return session_token(self._token, f"{cluster_id}/{self._namespace}", worker_id, incarnation)
