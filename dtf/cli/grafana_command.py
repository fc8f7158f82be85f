"""`dtf grafana`: Grafana's data source and dashboards. Each command is imported when it is used."""

import click

from dtf.cli.command_group import LazyGroup

SUBCOMMANDS = {
    "export": ("dtf.cli.grafana_export_command", "Write what Grafana is provisioned with to a directory."),
}


@click.group(cls=LazyGroup, subcommands=SUBCOMMANDS)
def command() -> None:
    """Dashboards of fleet, suites, single cases and machines, on the InfluxDB store.

    \b
    Example:
        dtf grafana export /etc/grafana/dtf
    """
