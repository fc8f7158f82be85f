"""What is checked of join tokens: that they admitted nobody whom they should not have."""

from dtf.api.v1 import events_pb2
from dtf.core.check.books import Books, TokenBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings


def issued(books: Books, findings: Findings, said: events_pb2.TokenIssued) -> None:
    """Workers may join with it."""
    what = f"token {said.token_id} is issued a second time"
    findings.expect(Property.ADMISSION, said.token_id not in books.tokens, what)
    for token_id in said.forgotten_token_ids:
        books.tokens.pop(token_id, None)
    books.tokens[said.token_id] = TokenBook(
        said.pool, said.launch_id, said.expires_unix_nanos, said.is_single_use
    )


def revoked(books: Books, findings: Findings, said: events_pb2.TokenRevoked) -> None:
    """It admits nobody any more."""
    token = books.tokens.get(said.token_id)
    what = f"token {said.token_id} is revoked, which {'is revoked already' if token else 'nobody issued'}"
    findings.expect(Property.ADMISSION, token is not None and not token.is_revoked, what)
    if token is not None:
        token.is_revoked = True


def admitted(
    books: Books, findings: Findings, said: events_pb2.WorkerRegistered, came_with: str, now_ns: int
) -> None:
    """A worker registers that names a token; `came_with`: the one of its incarnation before."""
    if not said.join_token_id:
        return
    token = books.tokens.get(said.join_token_id)
    fault = "nobody issued"
    if token is not None:
        fault = _fault(token, said, came_with == said.join_token_id, now_ns)
        token.use_count += 1
    what = f"worker {said.worker_id} is admitted by token {said.join_token_id}, which {fault}"
    findings.expect(Property.ADMISSION, not fault, what)


def _fault(token: TokenBook, said: events_pb2.WorkerRegistered, is_coming_back: bool, now_ns: int) -> str:
    """Why the token does not admit the worker; "": it does. One that comes back shows its last session's secret."""
    if token.is_revoked:
        return "was revoked before"
    if said.pool != token.pool:
        return f"is for pool {token.pool!r} and not {said.pool!r}"
    if token.launch_id and said.launch_id != token.launch_id:
        return f"is for launch {token.launch_id!r} and not {said.launch_id!r}"
    if is_coming_back:
        return ""
    if token.is_single_use and token.use_count:
        return "was for one worker, and admitted one before"
    return "had expired" if now_ns >= token.expires_at_ns else ""
