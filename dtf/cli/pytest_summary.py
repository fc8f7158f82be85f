"""A pytest plug-in that `dtf run` adds: after pytest's own last line come dtf's, and the report is written.

A stack that cannot be had ends it with the words and the exit code of every other `dtf` command.

It is loaded in the workers' pytest too, where it does nothing; so it imports when it is needed.
"""

from typing import TYPE_CHECKING

import pytest

from dtf.pytest_plugin.plugin import CONTROLLER_NAME

if TYPE_CHECKING:
    from collections.abc import Generator

    from dtf.pytest_plugin.preparation import Stack


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main() -> "Generator[None, int | None, int | None]":
    """`pytest --dtf` knows one exit code for what keeps it from beginning; `dtf` tells them apart."""
    try:
        return (yield)
    except pytest.UsageError as refusal:
        from dtf.cli.errors import explain, print_error
        from dtf.client.stack import StackError

        known = explain(refusal.__cause__) if isinstance(refusal.__cause__, StackError) else None
        if known is None:
            raise
        print_error(known)
        return known.exit_code


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say what the pool did and where the report is, while the stack is still held."""
    controller = config.pluginmanager.get_plugin(CONTROLLER_NAME)
    stack: Stack | None = getattr(controller, "stack", None)
    if stack is None or not stack.run_id:
        return
    import asyncio

    for line in asyncio.run(_lines(stack)):
        print(line)  # noqa: T201  # pytest has let go of standard output by now


async def _lines(stack: "Stack") -> list[str]:
    from dtf.cli.connection import client_of
    from dtf.cli.run_result import report_of, result_lines

    async with client_of(stack.membership.addresses) as client:
        written = await report_of(client, stack.run_id, stack.loaded.project_dir)
    return result_lines(written) if written is not None else []
