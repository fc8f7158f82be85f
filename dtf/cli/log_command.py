"""`dtf log`: what keeps the event log safe and bounded. Each command is imported when it is used."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "status": ("dtf.cli.log_status_command", "Where the log ends, its snapshots, spool and archive."),
    "snapshot": ("dtf.cli.log_snapshot_command", "Take a snapshot now."),
    "repair": ("dtf.cli.log_repair_command", "Put back what the log lost."),
    "archive": ("dtf.cli.log_archive_command", "Move the log's beginning into files."),
}


class LogGroup(click.Group):
    """The commands by name, imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        entry = SUBCOMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: Any = importlib.import_module(entry[0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in SUBCOMMANDS.items()])


@click.group(cls=LogGroup)
def command() -> None:
    """Keep the event log safe and bounded.

    \b
    Example:
        dtf log status      where it ends, and what would bring it back
        dtf log repair      put back what a broker lost, from this machine's spool
    """
