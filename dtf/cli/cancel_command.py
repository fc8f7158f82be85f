"""`dtf cancel`: stop runs."""

import asyncio
import json

import click

from dtf.api.v1 import run_service_pb2
from dtf.cli.connection import client_of, running_addresses
from dtf.cli.invocation import Invocation
from dtf.cli.run_result import state_text
from dtf.client.stack import StackAddresses


@click.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", default="", help="Why, for the record.")
@click.option("--wait", "waits", is_flag=True, help="Return when nothing of them runs any more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a run.")
@click.pass_obj
def command(
    invocation: Invocation, run_ids: tuple[str, ...], reason: str, waits: bool, as_json: bool
) -> None:
    """Stop runs. What finished keeps its verdict; what runs is stopped.

    \b
    Example:
        dtf cancel 7f3k --reason "wrong branch"
    """
    for run in asyncio.run(_cancel(running_addresses(invocation), run_ids, reason, waits=waits)):
        state = state_text(run)
        click.echo(
            json.dumps({"run_id": run.run_id, "state": state}) if as_json else f"{run.run_id}  {state}"
        )


async def _cancel(
    addresses: StackAddresses, run_ids: tuple[str, ...], reason: str, *, waits: bool
) -> list[run_service_pb2.Run]:
    async with client_of(addresses) as client:
        runs = [await client.cancel_run(run_id, reason) for run_id in run_ids]
        if waits:
            runs = [await (await client.attach(run_id)).result() for run_id in run_ids]
        return runs
