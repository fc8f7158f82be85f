"""`dtf store`: the metric store. Each command is imported when it is used."""

import click

from dtf.cli.command_group import LazyGroup

SUBCOMMANDS = {
    "setup": ("dtf.cli.store_setup_command", "Make InfluxDB's buckets, retention and downsampling tasks."),
    "status": (
        "dtf.cli.store_status_command",
        "How far the streams have come, and how many series there are.",
    ),
    "rejected": (
        "dtf.cli.store_rejected_command",
        "Points that the store refuses; `--retry` writes them again.",
    ),
    "downsample": ("dtf.cli.store_downsample_command", "Sum up the past again, after a long outage."),
}


@click.group(cls=LazyGroup, subcommands=SUBCOMMANDS)
def command() -> None:
    """The metric store on InfluxDB 2: INFLUXDB_V2_URL, _TOKEN, _ORG and _BUCKET say which.

    \b
    Example:
        dtf store setup --keep-days 90
        dtf store status
    """
