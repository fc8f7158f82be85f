"""`dtf trends`: what became slower or faster, and what people say of it."""

import click

from dtf.cli.command_group import LazyGroup
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode

_SUBCOMMANDS = {
    "list": ("dtf.cli.trends_list_command", "What became slower or faster; `dtf trends` alone means this."),
    "show": ("dtf.cli.trends_show_command", "One series: its values and changes, drawn."),
    "accept": ("dtf.cli.trends_accept_command", "Say that a finding is real."),
    "reject": ("dtf.cli.trends_reject_command", "Say that a finding is a false alarm."),
    "mute": ("dtf.cli.trends_mute_command", "Say that a finding is not to be spoken of."),
    "rules": ("dtf.cli.trends_rules_command", "How often each rule was right, and the evidence it needs."),
    "rebuild": ("dtf.cli.trends_rebuild_command", "Search the log anew and compare with what was found."),
    "import": ("dtf.cli.trends_import_command", "Bring in history measured elsewhere."),
    "analyze": ("dtf.cli.trends_analyze_command", "Analyse files, without any server."),
}


class _TrendsGroup(LazyGroup):
    """Without a subcommand it is `list`, with its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Name `list` where none is named."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand named first; what is none may be the name of a series."""
        if args[0] not in _SUBCOMMANDS:
            raise CommandError(
                f"no command 'trends {args[0]}'",
                f"of a series: `dtf trends show {args[0]}`; of a suite: `dtf trends --suite {args[0]}`",
                exit_code=ExitCode.USAGE,
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_TrendsGroup, subcommands=_SUBCOMMANDS)
def command() -> None:
    """What became slower or faster; `accept`, `reject` and `mute` say what is thought of it.

    Findings are events: they survive restarts, and the same log gives the same findings. Without a
    command it is `list`, whose options may follow at once.

    \b
    Example:
        dtf trends
        dtf trends --suite bench --all
        dtf trends show test_parse.py::test_big
        dtf trends reject 635d --reason "the machine was changed"
    """
