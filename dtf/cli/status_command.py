"""`dtf status`: what runs here, and where it listens."""

import asyncio
import json
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import fleet_service_pb2
from dtf.cli.connection import client_of
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.stack import (
    StackAddresses,
    remote_addresses,
)
from dtf.client.supervisor_connection import REPLY_TIMEOUT_SECONDS, SupervisorConnection
from dtf.settings.project import state_dir


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool) -> int:
    """What runs for this project, and where it listens. Exit code 6: nothing does.

    \b
    Example:
        dtf status
        dtf status --json | jq .fleet.workers
    """
    loaded = invocation.load()
    remote = remote_addresses(loaded.settings)
    stack = None if remote else ask_supervisor(invocation)
    addresses = remote or (StackAddresses.from_json(stack["addresses"]) if stack else None)
    if addresses is None:
        click.echo(json.dumps({"running": False}) if as_json else f"no stack runs for {loaded.project_dir}")
        return ExitCode.UNAVAILABLE
    fleet = asyncio.run(_ask_fleet(addresses)) if addresses.server else None
    if as_json:
        fleet_document = MessageToDict(fleet, preserving_proto_field_name=True) if fleet else None
        click.echo(json.dumps({"running": True, "stack": stack, "fleet": fleet_document}))
    else:
        print_status(addresses, stack, fleet)
    return ExitCode.OK


def ask_supervisor(invocation: Invocation) -> dict[str, Any] | None:
    """What the project's supervisor says of its stack; None if there is none."""
    connection = SupervisorConnection.open(state_dir(invocation.project_dir))
    if connection is None:
        return None
    try:
        connection.send(op="status")
        return connection.receive(REPLY_TIMEOUT_SECONDS)
    except (TimeoutError, OSError):
        return None
    finally:
        connection.close()


async def _ask_fleet(addresses: StackAddresses) -> fleet_service_pb2.GetFleetResponse:
    async with client_of(addresses) as client:
        return await client.get_fleet()


def print_status(
    addresses: StackAddresses,
    stack: dict[str, Any] | None,
    fleet: fleet_service_pb2.GetFleetResponse | None,
) -> None:
    """Write it for people, a line a thing."""
    click.echo(f"server    {addresses.server or 'starting'}")
    for name, value in (("analysis", addresses.analysis), ("nats", addresses.nats)):
        if value:
            click.echo(f"{name:<8}  {value}")
    if stack is not None:
        kept = "until `dtf down`" if stack["is_kept_up"] else "as long as someone uses it"
        click.echo(f"stack     supervisor {addresses.supervisor_pid}, {stack['members']} users, kept {kept}")
        for part in stack["parts"]:
            restarts = f", restarted {_times(part['restarts'])}" if part["restarts"] else ""
            process = f"process {part['process_id']}" if part["process_id"] else "not running"
            click.echo(f"          {part['name']}: {process}{restarts}")
    if fleet is not None:
        workers = ", ".join(f"{count} {state}" for state, count in sorted(fleet.workers.items()) if count)
        click.echo(f"workers   {workers or 'none'}")
        click.echo(f"runs      {fleet.active_run_count} active")
        click.echo(f"tasks     {fleet.queued_count} queued, {fleet.leased_count} leased")
        click.echo(
            f"log       sequence {fleet.log_sequence}, epoch {fleet.epoch}, namespace {fleet.namespace}"
        )
        click.echo(f"blobs     {_blobs(fleet)}")
        if fleet.live_feed_skipped_count:
            click.echo(f"live feed {fleet.live_feed_skipped_count:,} lines were not sent: too much happened")
        if fleet.refusing_reason:
            click.echo(f"REFUSING  new work: {fleet.refusing_reason}")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _blobs(fleet: fleet_service_pb2.GetFleetResponse) -> str:
    limit = f" of {fleet.blob_limit_bytes / 2**30:.1f} GiB" if fleet.blob_limit_bytes else ""
    removed = f", {fleet.blob_removed_count:,} removed" if fleet.blob_removed_count else ""
    return f"{fleet.blob_bytes / 2**30:.1f} GiB{limit} with output{removed}"
