"""`dtf store downsample`: sum up the past again, where points came later than the tasks go back."""

import asyncio
from datetime import UTC, datetime

import click

from dtf.cli.influx_choice import influx_admin, store_error
from dtf.ports.metric_store import StoreError

_DAY = "%Y-%m-%d"


@click.command()
@click.option("--since", type=click.DateTime([_DAY]), required=True, help="First day (UTC), as 2026-05-01.")
@click.option("--until", type=click.DateTime([_DAY]), required=True, help="Day behind the last.")
def command(since: datetime, until: datetime) -> None:
    """Write the sums of these days anew into the long-term bucket. What is there is replaced.

    The tasks go back 3 days (by the hour) and 14 days (by the day). Points that came later still, after an
    outage or because the log was read again, are summed up by this. Days that the bucket has forgotten, even
    in part, must be left out: their sums would be replaced by those of what is left.

    \b
    Example:
        dtf store downsample --since 2026-05-01 --until 2026-06-01
    """
    if until <= since:
        raise click.BadParameter(f"--until {until:{_DAY}} is not behind --since {since:{_DAY}}")
    try:
        asyncio.run(_downsample(since, until))
    except StoreError as error:
        raise store_error(error) from error
    click.echo(f"summed up {since:{_DAY}} to {until:{_DAY}}")


async def _downsample(since: datetime, until: datetime) -> None:
    async with influx_admin() as admin:
        first, behind = (
            moment.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (since, until)
        )
        await admin.downsample(first, behind)
