"""`dtf down`: stop this project's stack."""

import json

import click

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.supervisor_connection import SupervisorConnection
from dtf.client.supervisor_process import STOP_TIMEOUT_SECONDS, await_end
from dtf.settings.project import SUPERVISOR_LOCK, state_dir


@click.command()
@click.option("--now", is_flag=True, help="Stop even if runs use it; they end unfinished.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, now: bool, as_json: bool) -> None:
    """Stop this project's stack, once nobody uses it.

    \b
    Example:
        dtf down          # with its last user
        dtf down --now    # at once
    """
    state = state_dir(invocation.project_dir)
    connection = SupervisorConnection.open(state)
    if connection is None:
        click.echo(json.dumps({"stopped": False, "was_running": False}) if as_json else "no stack runs here")
        return
    held = _ask(connection, now=now)
    if held is None:
        await_end(state / SUPERVISOR_LOCK)
    if as_json:
        click.echo(json.dumps({"stopped": held is None, "was_running": True, "members": held or 0}))
    elif held is None:
        click.echo("the stack has stopped")
    else:
        click.echo(f"{held} still use the stack; it stops with the last of them (`--now` stops it at once)")


def _ask(connection: SupervisorConnection, *, now: bool) -> int | None:
    """How many still hold the stack; None: it has stopped."""
    connection.send(op="down", now=now)
    try:
        answer = connection.receive(STOP_TIMEOUT_SECONDS)
    except TimeoutError:
        raise CommandError(
            f"the stack did not stop within {STOP_TIMEOUT_SECONDS:.0f} s",
            ".dtf/logs/supervisor.log says what it waits for",
            exit_code=ExitCode.UNAVAILABLE,
        ) from None
    finally:
        connection.close()
    return None if answer is None else int(answer["members"])
