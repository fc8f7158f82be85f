"""A group of commands, each imported when it is used, so that help and completion import little."""

import importlib
from collections.abc import Mapping
from typing import Any

import click

Subcommands = Mapping[str, tuple[str, str]]
"""By name: the module that has the command as `command`, and its line in the help."""


class LazyGroup(click.Group):
    """Its commands are those of a table."""

    def __init__(self, *args: Any, subcommands: Subcommands, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._subcommands = subcommands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the help."""
        return list(self._subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        entry = self._subcommands.get(cmd_name)
        if entry is None:
            return None
        command: Any = importlib.import_module(entry[0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._subcommands.items()])
