"""`dtf store rejected`: points that InfluxDB refuses, and why."""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import click

from dtf.adapters.influx_store import InfluxStore
from dtf.adapters.rejected_points import RejectedPoint, RejectedPoints
from dtf.adapters.system_clock import SystemClock
from dtf.cli.influx_choice import influx_address, store_error
from dtf.cli.invocation import Invocation
from dtf.cli.trend_analyzer_command import rejected_path
from dtf.ports.metric_store import StoreError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a point, the point in line protocol.")
@click.option("--retry", is_flag=True, help="Write them again; what is refused again stays.")
@click.option("--clear", is_flag=True, help="Forget them.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool, retry: bool, clear: bool) -> None:
    """Show the points that were kept aside because InfluxDB refuses them for good, by reason.

    A field has another type in the bucket than dtf writes (somebody else wrote it), or a point is older than
    the bucket keeps. Everything else went on. Mend the bucket, then `--retry`.

    \b
    Example:
        dtf store rejected
        dtf store rejected --retry
    """
    aside = RejectedPoints(rejected_path(invocation, invocation.load().settings), SystemClock())
    if clear:
        click.echo(f"forgot {len(aside.take())} points")
        aside.forget_taken()
    elif retry:
        _retry(aside)
    elif as_json:
        for point in aside.read():
            click.echo(json.dumps(asdict(point)))
    else:
        _print(aside.read(), aside)


def _retry(aside: RejectedPoints) -> None:
    points = aside.take()
    try:
        asyncio.run(_write([point.point for point in points], aside))
    except StoreError as error:
        raise store_error(error) from error
    aside.forget_taken()
    left = len(aside.read())
    click.echo(f"wrote {len(points) - left} points, {left} are refused still")


async def _write(points: Sequence[str], aside: RejectedPoints) -> None:
    store = await InfluxStore.open(influx_address(), clock=SystemClock(), rejected=aside)
    try:
        await store.write_lines(points)
    finally:
        await store.close()


def _print(points: Sequence[RejectedPoint], aside: RejectedPoints) -> None:
    if not points:
        click.echo("no point was refused")
        return
    for (measurement, reason), count in Counter((p.measurement, p.reason) for p in points).most_common():
        click.echo(f"{count:>8,}  {measurement}: {reason}")
    click.echo(f"last {points[-1].at}; {aside.path}")
