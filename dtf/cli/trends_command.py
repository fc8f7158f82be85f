"""`dtf trends`: what became slower or faster, and what people say of it."""

import click

from dtf.cli.command_group import LazyGroup

_SUBCOMMANDS = {
    "list": ("dtf.cli.trends_list_command", "What became slower or faster; the same as `dtf trends`."),
    "show": ("dtf.cli.trends_show_command", "One series: its values and changes, drawn."),
    "accept": ("dtf.cli.trends_accept_command", "Say that a finding is real."),
    "reject": ("dtf.cli.trends_reject_command", "Say that a finding is a false alarm."),
    "mute": ("dtf.cli.trends_mute_command", "Say that a finding is not to be spoken of."),
    "rules": ("dtf.cli.trends_rules_command", "How often each rule was right, and the evidence it needs."),
    "rebuild": ("dtf.cli.trends_rebuild_command", "Search the log anew and compare with what was found."),
    "import": ("dtf.cli.trends_import_command", "Bring in history measured elsewhere."),
    "analyze": ("dtf.cli.trends_analyze_command", "Analyse files, without any server."),
}


@click.group(cls=LazyGroup, subcommands=_SUBCOMMANDS, invoke_without_command=True)
@click.pass_context
def command(ctx: click.Context) -> None:
    """What became slower or faster; `accept`, `reject` and `mute` say what is thought of it.

    Findings are events: they survive restarts, and the same log gives the same findings.

    \b
    Example:
        dtf trends
        dtf trends show test_parse.py::test_big
        dtf trends reject 635d --reason "the machine was changed"
    """
    if ctx.invoked_subcommand is None:
        group = ctx.command
        assert isinstance(group, LazyGroup)
        list_command = group.get_command(ctx, "list")
        assert list_command is not None
        ctx.invoke(list_command)
