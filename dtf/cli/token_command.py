"""`dtf token`: join tokens, which let workers of other machines in."""

import json
import re
from datetime import UTC, datetime

import click

from dtf.api.v1 import token_service_pb2
from dtf.cli.connection import ask_coordinator
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.owner import default_owner
from dtf.report.output import plain_line

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")


def parse_duration(text: str) -> float:
    """Seconds of "90s", "15m", "1h", "7d". Raises CommandError."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise CommandError(f"{text!r} is no duration", "30m, 1h or 7d is", exit_code=ExitCode.USAGE)
    return float(found[1]) * _UNITS[found[2]]


@click.group(invoke_without_command=True)
@click.option("--all", "includes_ended", is_flag=True, help="Also those that admit nobody any more.")
@click.option("--pool", default="", help="Only this pool.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, includes_ended: bool, pool: str, as_json: bool) -> None:
    """List join tokens; `create` makes one, `revoke` ends one. No secret is ever listed.

    \b
    Example:
        dtf token
        dtf token create --pool gpu --expires 1h
        dtf token revoke k7wm3c9p
    """
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, includes_ended, pool, as_json)


@command.command(name="list")
@click.option("--all", "includes_ended", is_flag=True, help="Also those that admit nobody any more.")
@click.option("--pool", default="", help="Only this pool.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def list_tokens(invocation: Invocation, includes_ended: bool, pool: str, as_json: bool) -> None:
    """List join tokens; the same as `dtf token`.

    \b
    Example:
        dtf token list --all
    """
    _list(invocation, includes_ended, pool, as_json)


def _list(invocation: Invocation, includes_ended: bool, pool: str, as_json: bool) -> None:
    tokens = ask_coordinator(
        invocation, lambda client: client.tokens.list(pool=pool, include_ended=includes_ended)
    )
    for token in tokens:
        click.echo(json.dumps(token_document(token)) if as_json else token_line(token))
    if not tokens and not as_json:
        click.echo("no join tokens")


@command.command()
@click.option("--pool", help="Pool that workers join with it. Default: the settings' pool.")
@click.option("--expires", default="1h", metavar="DURATION", help="How long it admits workers: 30m, 1h, 7d.")
@click.option("--single-use", is_flag=True, help="It admits one worker.")
@click.option("--launch-id", default="", help="It admits the worker of this launch only.")
@click.option("--server", default="", metavar="HOST:PORT[,…]", help="Where workers find the coordinator.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the token, its text and command.")
@click.pass_obj
def create(
    invocation: Invocation,
    pool: str | None,
    expires: str,
    single_use: bool,
    launch_id: str,
    server: str,
    as_json: bool,
) -> None:
    """Make a join token and print it: one line, on standard output, that is said only once.

    Whoever has it can start workers in the pool until it expires, and those are handed the code
    and the data of what they run.

    \b
    Example:
        dtf token create --pool gpu --expires 1h
        dtf token create --expires 5m --single-use | ssh host dtf worker --join-file /dev/stdin
        dtf token create | kubectl create secret generic dtf-join --from-file=token=/dev/stdin
    """
    request = token_service_pb2.IssueTokenRequest(
        pool=pool or invocation.load().settings.pool.name,
        lifetime_seconds=parse_duration(expires),
        is_single_use=single_use,
        launch_id=launch_id,
        issued_by=default_owner(),
        addresses=[part for part in server.split(",") if part],
    )
    made = ask_coordinator(invocation, lambda client: client.tokens.make(request))
    if as_json:
        command_line = "dtf worker --join-file FILE"
        document = {**token_document(made.token), "text": made.text, "command": command_line}
        click.echo(json.dumps({**document, "warning": made.warning}))
        return
    click.echo(made.text)
    uses = "one worker" if made.token.is_single_use else "workers"
    until = _clock_time(made.token.expires_at)
    click.echo(f"token {made.token.token_id}: {uses} of pool {made.token.pool} until {until}", err=True)
    if made.warning:
        click.echo(f"warning: {made.warning}", err=True)


@command.command()
@click.argument("token_id", metavar="ID")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the token.")
@click.pass_obj
def revoke(invocation: Invocation, token_id: str, reason: str, as_json: bool) -> None:
    """Let a token, named by its id or the beginning of it, admit nobody any more.

    Workers that came with it go on until their session ends; `dtf workers quarantine` stops one.

    \b
    Example:
        dtf token revoke k7wm3c9p --reason "posted in a chat"
    """
    token = ask_coordinator(
        invocation,
        lambda client: client.tokens.revoke(token_id, revoked_by=default_owner(), reason=reason),
    )
    click.echo(json.dumps(token_document(token)) if as_json else token_line(token))


def token_document(token: token_service_pb2.JoinToken) -> dict[str, object]:
    """The token as JSON has it."""
    return {
        "token_id": token.token_id,
        "state": _state(token),
        "pool": token.pool,
        "issued_at": token.issued_at,
        "expires_at": token.expires_at,
        "is_single_use": token.is_single_use,
        "launch_id": token.launch_id,
        "issued_by": token.issued_by,
        "use_count": token.use_count,
        "last_worker_id": token.last_worker_id,
        "revoked_by": token.revoked_by,
        "cluster_id": token.cluster_id,
    }


def token_line(token: token_service_pb2.JoinToken) -> str:
    """ "k7wm3c9p  valid  gpu  until 14:05 UTC  2 joined, last w-3f2a  by ann@host"."""
    joined = f"{token.use_count} joined, last {token.last_worker_id}" if token.use_count else "unused"
    parts = [
        token.token_id,
        _state(token),
        token.pool,
        f"until {_clock_time(token.expires_at)}",
        *(["single use"] if token.is_single_use else []),
        *([f"launch {token.launch_id}"] if token.launch_id else []),
        joined,
        *([f"by {token.issued_by}"] if token.issued_by else []),
        *([f"revoked by {token.revoked_by}"] if token.revoked_by else []),
    ]
    return plain_line("  ".join(parts))


def _clock_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _state(token: token_service_pb2.JoinToken) -> str:
    return token_service_pb2.JoinTokenState.Name(token.state).removeprefix("JOIN_TOKEN_STATE_").lower()
