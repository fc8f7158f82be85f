"""`dtf store setup`: InfluxDB's buckets, how long they keep points, and the tasks that sum up."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from dtf.adapters.influx_admin import Change
from dtf.cli.influx_choice import influx_admin, store_error
from dtf.ports.metric_store import StoreError


@click.command()
@click.option(
    "--keep-days",
    type=click.IntRange(min=0),
    default=None,
    help="Days the bucket keeps points; 0: for ever. Else as it is.",
)
@click.option(
    "--long-keep-days",
    type=click.IntRange(min=0),
    default=None,
    help="The same for the sums by hour and day, in the bucket's namesake with _long.",
)
@click.option("--shorten", is_flag=True, help="Allow a bucket to forget what it has.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(keep_days: int | None, long_keep_days: int | None, shorten: bool, as_json: bool) -> None:
    """Make what is missing in InfluxDB, and change what differs. Asking again changes nothing.

    The token must be allowed to make buckets and tasks; the analyzer's own needs to read and write only.

    \b
    Example:
        dtf store setup --keep-days 90
    """
    try:
        changes = asyncio.run(_set_up(keep_days, long_keep_days, shorten))
    except StoreError as error:
        raise store_error(error) from error
    for change in changes:
        if as_json:
            click.echo(json.dumps(asdict(change)))
        else:
            click.echo(f"{change.done:<10} {change.what}" + (f", {change.detail}" if change.detail else ""))


async def _set_up(keep_days: int | None, long_keep_days: int | None, shorten: bool) -> Sequence[Change]:
    async with influx_admin() as admin:
        return await admin.set_up(keep_days=keep_days, long_keep_days=long_keep_days, may_shorten=shorten)
