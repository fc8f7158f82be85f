"""`dtf scaling`: what the size of a pool was, and what it would have been. Each command is imported when it is used."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "history": ("dtf.cli.scaling_history_command", "How large the pools were, and what was decided why."),
    "export": ("dtf.cli.scaling_export_command", "Write the decisions to a portable file."),
    "backtest": ("dtf.cli.scaling_backtest_command", "Replay demand against policies in virtual time."),
}


class ScalingGroup(click.Group):
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


@click.group(cls=ScalingGroup)
def command() -> None:
    """What the size of a pool was and why, and what another policy would have made of it.

    \b
    Example:
        dtf scaling backtest --trace jobs.csv --policy hpa --policy default
    """
