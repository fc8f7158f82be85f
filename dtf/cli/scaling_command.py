"""`dtf scaling`: what the size of a pool was, and what it would have been. Each command is imported when it is used."""

import click

from dtf.cli.command_group import LazyGroup

SUBCOMMANDS = {
    "history": ("dtf.cli.scaling_history_command", "How large the pools were, and what was decided why."),
    "export": ("dtf.cli.scaling_export_command", "Write the decisions to a portable file."),
    "backtest": ("dtf.cli.scaling_backtest_command", "Replay demand against policies in virtual time."),
}


@click.group(cls=LazyGroup, subcommands=SUBCOMMANDS)
def command() -> None:
    """What the size of a pool was and why, and what another policy would have made of it.

    \b
    Example:
        dtf scaling backtest --trace jobs.csv --policy hpa --policy default
    """
