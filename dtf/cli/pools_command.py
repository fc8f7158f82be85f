"""`dtf pools`: list pools; `dtf pools scale|pause|resume NAME`."""

import json
from collections.abc import Awaitable, Callable

import click
import grpc
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import resource_service_pb2, scaling_pb2
from dtf.cli.connection import ask_coordinator
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import CALL_TIMEOUT_SECONDS, Client
from dtf.client.owner import default_owner
from dtf.report.output import plain_line
from dtf.rpc.errors import parse


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List pools; `scale`, `pause` and `resume` act on one. The resource manager follows within a second.

    What is wished is an event in the log: it survives restarts, and holds until it is taken back
    with `dtf pools scale NAME --auto` or `dtf pools resume NAME`. A pool that has no workers, no wish and
    no decision is refused, for its name may be mistyped; --ahead wishes all the same.

    \b
    Example:
        dtf pools
        dtf pools scale local --max 8 --reason "release day"
        dtf pools pause local --reason "kernel update"
    """
    if ctx.invoked_subcommand is not None:
        return

    async def ask(client: Client) -> list[resource_service_pb2.Pool]:
        request = resource_service_pb2.ListPoolsRequest()
        answer = await client.pools.ListPools(request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS)
        return list(answer.pools)

    pools = ask_coordinator(ctx.obj, ask)
    for pool in pools:
        _tell(pool, as_json)
    if not pools and not as_json:
        click.echo("no pools")


_reason = click.option("--reason", default="", help="Why, for the record.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object: the pool.")
_rehearsal = click.option(
    "--dry-run", "is_rehearsal", is_flag=True, help="Say what would be; change nothing."
)
_ahead = click.option(
    "--ahead",
    "is_ahead",
    is_flag=True,
    help="Also of a pool that nothing is known of yet; it will be followed.",
)
_pool = click.argument("name", metavar="NAME")
_size = click.IntRange(min=0)


@command.command()
@_pool
@click.option("--min", "min_workers", type=_size, metavar="N", help="Workers it keeps at least.")
@click.option("--max", "max_workers", type=_size, metavar="N", help="Workers it has at most.")
@click.option("--workers", type=_size, metavar="N", help="So many workers, whatever there is to do.")
@click.option("--auto", "is_auto", is_flag=True, help="Back to the pool's settings and its policy.")
@_reason
@_ahead
@_rehearsal
@_json
@click.pass_obj
def scale(
    invocation: Invocation,
    name: str,
    min_workers: int | None,
    max_workers: int | None,
    workers: int | None,
    is_auto: bool,
    reason: str,
    is_ahead: bool,
    is_rehearsal: bool,
    as_json: bool,
) -> None:
    """Set a pool's bounds, or its size. A bound that is not named stays as it was wished before.

    Workers that are too many are drained when they are idle; none is taken from its work.

    \b
    Example:
        dtf pools scale local --min 2 --max 8
        dtf pools scale local --workers 4
        dtf pools scale local --auto
    """
    has_bounds = min_workers is not None or max_workers is not None
    if sum((has_bounds, workers is not None, is_auto)) != 1:
        raise CommandError(
            "it is not said what the pool shall be",
            "pass --min and --max, or --workers, or --auto",
            exit_code=ExitCode.USAGE,
        )

    async def ask(client: Client) -> resource_service_pb2.Pool:
        request = resource_service_pb2.ScalePoolRequest(
            pool=name,
            min_workers=min_workers,
            max_workers=max_workers,
            workers=workers,
            keep_others=has_bounds,
            requested_by=default_owner(),
            reason=reason,
            dry_run=is_rehearsal,
            must_be_known=not is_ahead,
        )
        answer = await client.pools.ScalePool(request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS)
        return answer.pool

    _tell(_wish_of(invocation, ask), as_json, is_rehearsal=is_rehearsal)


@command.command()
@_pool
@_reason
@_ahead
@_rehearsal
@_json
@click.pass_obj
def pause(
    invocation: Invocation, name: str, reason: str, is_ahead: bool, is_rehearsal: bool, as_json: bool
) -> None:
    """Let a pool's size stay as it is, but for the minimum that it keeps.

    \b
    Example:
        dtf pools pause local --reason "kernel update"
    """

    async def ask(client: Client) -> resource_service_pb2.Pool:
        request = resource_service_pb2.PausePoolRequest(
            pool=name,
            requested_by=default_owner(),
            reason=reason,
            dry_run=is_rehearsal,
            must_be_known=not is_ahead,
        )
        answer = await client.pools.PausePool(request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS)
        return answer.pool

    _tell(_wish_of(invocation, ask), as_json, is_rehearsal=is_rehearsal)


@command.command()
@_pool
@_ahead
@_rehearsal
@_json
@click.pass_obj
def resume(invocation: Invocation, name: str, is_ahead: bool, is_rehearsal: bool, as_json: bool) -> None:
    """Let a paused pool change its size again.

    \b
    Example:
        dtf pools resume local
    """

    async def ask(client: Client) -> resource_service_pb2.Pool:
        request = resource_service_pb2.ResumePoolRequest(
            pool=name,
            requested_by=default_owner(),
            dry_run=is_rehearsal,
            must_be_known=not is_ahead,
        )
        answer = await client.pools.ResumePool(
            request, metadata=client.metadata, timeout=CALL_TIMEOUT_SECONDS
        )
        return answer.pool

    _tell(_wish_of(invocation, ask), as_json, is_rehearsal=is_rehearsal)


def _wish_of(
    invocation: Invocation, ask: Callable[[Client], Awaitable[resource_service_pb2.Pool]]
) -> resource_service_pb2.Pool:
    """What the coordinator makes of a wish. Raises CommandError, which says how to name a pool that is to come."""
    try:
        return ask_coordinator(invocation, ask)
    except grpc.RpcError as error:
        failure = parse(error)
        if failure.code is not grpc.StatusCode.NOT_FOUND:
            raise
        raise CommandError(
            failure.message,
            "correct the name, or pass --ahead for a pool whose resource manager has not run yet",
            exit_code=ExitCode.USAGE,
        ) from error


def _tell(pool: resource_service_pb2.Pool, as_json: bool, *, is_rehearsal: bool = False) -> None:
    if as_json:
        click.echo(json.dumps(pool_document(pool)))
        return
    lines = pool_lines(pool)
    if is_rehearsal:
        lines[0] += "  (dry run: nothing was changed)"
    click.echo("\n".join(lines))


def pool_document(pool: resource_service_pb2.Pool) -> dict[str, object]:
    """The pool as JSON has it, zeros included."""
    document: dict[str, object] = MessageToDict(
        pool, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return document


def pool_lines(pool: resource_service_pb2.Pool) -> list[str]:
    """ "local  3 active, 1 draining, 5 leases", what is wished of it, and what was decided last."""
    counts = (
        (pool.active_count, "active"),
        (pool.draining_count, "draining"),
        (pool.quarantined_count, "quarantined"),
    )
    workers = ", ".join(f"{count} {state}" for count, state in counts if count) or "no workers"
    leases = f"{pool.lease_count} {'lease' if pool.lease_count == 1 else 'leases'}"
    lines = [plain_line(f"{pool.name}  {workers}, {leases}")]
    if pool.HasField("wish"):
        lines.append(plain_line(f"  wished   {_wish(pool.wish)}"))
    if pool.HasField("last_decision"):
        lines.append(plain_line(f"  decided  {_decision(pool.last_decision)}"))
    else:
        lines.append("  decided  nothing yet: no resource manager looks after it, or it has not begun")
    return lines


def _wish(wish: resource_service_pb2.PoolWish) -> str:
    parts = ["paused"] if wish.is_paused else []
    if wish.HasField("workers"):
        parts.append(f"{wish.workers} workers")
    if wish.HasField("min_workers"):
        parts.append(f"at least {wish.min_workers}")
    if wish.HasField("max_workers"):
        parts.append(f"at most {wish.max_workers}")
    who = f", by {wish.requested_by}" if wish.requested_by else ""
    return ", ".join(parts) + who + (f": {wish.reason}" if wish.reason else "")


def _decision(decision: scaling_pb2.ScalingDecision) -> str:
    action = scaling_pb2.ScalingAction.Name(decision.action).removeprefix("SCALING_ACTION_").lower()
    figures = ""
    if decision.HasField("demand"):
        figures = (
            f" ({decision.desired} wanted, {decision.requested} on their way, {decision.observed} there)"
        )
    return f"{action.replace('_', ' ')}{figures}: {decision.reason}  [{decision.decision_id}]"
