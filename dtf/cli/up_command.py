"""`dtf up`: start this project's stack and keep it running."""

import json
import sys

import click

from dtf.cli.invocation import Invocation
from dtf.client.stack import addresses_document, join_stack


@click.command()
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Have N workers at all times.")
@click.option(
    "--store", type=click.Choice(["duckdb", "influxdb"]), help="Metric store; influxdb takes INFLUXDB_V2_*."
)
@click.option("--standby", is_flag=True, help="Run a second coordinator that takes over within seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object: the addresses.")
@click.pass_obj
def command(
    invocation: Invocation, workers: int | None, store: str | None, standby: bool, as_json: bool
) -> None:
    """Start this project's stack and keep it running until `dtf down`.

    \b
    Example:
        dtf up --workers 4
        dtf run tests/          # joins it; no start-up to wait for
        dtf down
    """
    loaded = invocation.load(
        pool__min_workers=workers,
        pool__max_workers=workers,
        store__kind=store,
        coordinator__standbys=1 if standby else None,
        run__server="",
    )

    def say(text: str) -> None:
        if not as_json:
            click.echo(f"dtf: {text}", file=sys.stderr)

    with join_stack(loaded.project_dir, loaded.settings, on_progress=say, keep_up=True) as membership:
        addresses, is_new = membership.addresses, membership.is_started_here
    if as_json:
        click.echo(json.dumps({**addresses_document(addresses), "is_new": is_new}))
        return
    click.echo("the stack serves" if is_new else "a stack served already; it stays until `dtf down`")
    click.echo(f"  server    {addresses.server}   (token in {addresses.token_file})")
    click.echo(f"  analysis  {addresses.analysis}")
    tap = addresses.nats_tap_credentials_file
    readers = f"; to read only: {tap}" if tap else ""
    click.echo(f"  nats      {addresses.nats}   (user in {addresses.nats_credentials_file}{readers})")
    if addresses.nats_websocket:
        click.echo(f"  websocket {addresses.nats_websocket}")
