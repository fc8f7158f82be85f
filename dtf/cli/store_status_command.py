"""`dtf store status`: what InfluxDB has of ours."""

import asyncio
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from dtf.adapters.influx_admin import TaskStatus
from dtf.adapters.influx_store import InfluxStore
from dtf.adapters.rejected_points import RejectedPoints
from dtf.adapters.system_clock import SystemClock
from dtf.cli.influx_choice import influx_address, influx_admin, store_error
from dtf.cli.invocation import Invocation
from dtf.cli.trend_analyzer_command import rejected_path
from dtf.core.trend.names import MOST_SERIES
from dtf.ports.metric_store import StoreError

STREAMS = ("log", "telemetry", "scaling", "analysis")
WARNING_RATIO = 0.8
"""Of MOST_SERIES: from there on new names will soon be summed up in groups."""


@dataclass(slots=True)
class StoreStatus:
    """What the command says."""

    url: str
    bucket: str
    keep_days: dict[str, int]
    sequences: dict[str, int]
    """Last sequence in the store, by stream."""
    series: dict[str, int]
    """By measurement."""
    tasks: list[TaskStatus]
    rejected: int
    rejected_file: str
    warnings: list[str] = field(default_factory=list)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, as_json: bool) -> None:
    """Say how far each stream has come into InfluxDB, how many series there are, and how the tasks do.

    \b
    Example:
        dtf store status
    """
    settings = invocation.load().settings
    aside = RejectedPoints(rejected_path(invocation, settings), SystemClock())
    try:
        status = asyncio.run(_gather(aside))
    except StoreError as error:
        raise store_error(error) from error
    if as_json:
        click.echo(json.dumps(asdict(status)))
    else:
        _print(status)


async def _gather(aside: RejectedPoints) -> StoreStatus:
    address = influx_address()
    async with influx_admin() as admin:
        status = StoreStatus(
            url=address.url,
            bucket=address.bucket,
            keep_days=dict(await admin.keep_days()),
            sequences={},
            series={},
            tasks=[],
            rejected=len(aside.read()),
            rejected_file=str(aside.path),
        )
        if address.bucket not in status.keep_days:
            status.warnings.append(f"no bucket {address.bucket!r}: `dtf store setup` makes it")
            return status
        status.series = dict(await admin.series_counts())
        status.tasks = list(await admin.tasks())
    status.sequences = await _sequences(address)
    status.warnings += _warnings(status)
    return status


async def _sequences(address: Any) -> dict[str, int]:
    store = await InfluxStore.open(address, clock=SystemClock())
    try:
        found = {stream: await store.checkpoint(stream) for stream in STREAMS}
    finally:
        await store.close()
    return {stream: checkpoint.sequence for stream, checkpoint in found.items() if checkpoint is not None}


def _warnings(status: StoreStatus) -> list[str]:
    warnings = []
    total = sum(status.series.values())
    if total > MOST_SERIES * WARNING_RATIO:
        most = max(status.series, key=status.series.__getitem__)
        warnings.append(
            f"{total:,} series, most of them of {most}; from {MOST_SERIES:,} cases on new names are summed up in "
            "groups: names that are made up in each run belong into parameters"
        )
    if not status.tasks:
        warnings.append("nothing sums up by hour and day: `dtf store setup` installs the tasks")
    if any(not task.is_current for task in status.tasks):
        warnings.append("tasks are of another version of dtf: `dtf store setup` changes them in place")
    warnings += [f"{task.name} failed: {task.last_error}" for task in status.tasks if task.last_error]
    if status.rejected:
        warnings.append(f"{status.rejected} points were refused: `dtf store rejected` says why")
    return warnings


def _print(status: StoreStatus) -> None:
    click.echo(f"store      {status.url}, bucket {status.bucket}")
    for name, days in status.keep_days.items():
        click.echo(f"bucket     {name}, keeps points {f'for {days} days' if days else 'for ever'}")
    for stream, sequence in status.sequences.items():
        click.echo(f"stream     {stream} up to {sequence}")
    for name, count in status.series.items():
        click.echo(f"series     {count:,} of {name}")
    for task in status.tasks:
        state = "active" if task.is_active else "inactive"
        click.echo(f"task       {task.name}, {state}, {task.last_run or 'not run yet'}")
    for warning in status.warnings:
        click.echo(f"warning    {warning}", err=True)
