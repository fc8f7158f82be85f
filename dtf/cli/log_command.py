"""`dtf log`: what keeps the event log safe and bounded. Each command is imported when it is used."""

import click

from dtf.cli.command_group import LazyGroup

SUBCOMMANDS = {
    "status": ("dtf.cli.log_status_command", "Where the log ends, its snapshots, spool and archive."),
    "snapshot": ("dtf.cli.log_snapshot_command", "Take a snapshot now."),
    "repair": ("dtf.cli.log_repair_command", "Put back what the log lost."),
    "archive": ("dtf.cli.log_archive_command", "Move the log's beginning into files."),
}


@click.group(cls=LazyGroup, subcommands=SUBCOMMANDS)
def command() -> None:
    """Keep the event log safe and bounded.

    \b
    Example:
        dtf log status      where it ends, and what would bring it back
        dtf log repair      put back what a broker lost, from this machine's spool
    """
