"""`dtf runs`: list runs; `dtf runs show ID`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click
from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.cli.connection import client_of, join
from dtf.cli.invocation import Invocation
from dtf.cli.run_result import counts_line, state_text
from dtf.client.stack import StackAddresses
from dtf.core.run.run_story import confirmation_text
from dtf.report.output import plain_line

_VERDICT_WORDS = {
    common_pb2.VERDICT_UNSPECIFIED: "-",
    common_pb2.VERDICT_PASSED: "passed",
    common_pb2.VERDICT_FAILED: "FAILED",
    common_pb2.VERDICT_ERROR: "ERROR",
    common_pb2.VERDICT_SKIPPED: "skipped",
    common_pb2.VERDICT_FLAKY: "flaky",
}


@click.group(invoke_without_command=True)
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many, the newest first."
)
@click.option("--suite", default="", help="Only this suite.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def command(ctx: click.Context, limit: int, suite: str, as_json: bool) -> None:
    """List runs, newest first; `runs show ID` has the cases of one.

    \b
    Example:
        dtf runs --limit 5
        dtf runs show 7f3k
    """
    if ctx.invoked_subcommand is not None:
        return
    with join(ctx.obj) as membership:
        runs = asyncio.run(_list(membership.addresses, suite, limit))
    for run in runs:
        click.echo(json.dumps(run_document(run)) if as_json else run_line(run))
    if not runs and not as_json:
        click.echo("no runs yet")


@command.command()
@click.argument("run_id", metavar="ID")
@click.option("--all", "shows_all", is_flag=True, help="Every case, not only those that did not pass.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def show(invocation: Invocation, run_id: str, shows_all: bool, as_json: bool) -> None:
    """Show one run and its cases.

    \b
    Example:
        dtf runs show 7f3k --all
    """
    with join(invocation) as membership:
        run, tasks = asyncio.run(_fetch(membership.addresses, run_id))
    if as_json:
        documents = [MessageToDict(task, preserving_proto_field_name=True) for task in tasks]
        click.echo(json.dumps({**run_document(run), "tasks": documents}))
        return
    click.echo(run_line(run))
    if run.waiting_reason:
        click.echo(plain_line(run.waiting_reason))
    for line in case_lines(tasks, shows_all=shows_all):
        click.echo(line)


def case_lines(tasks: list[run_service_pb2.Task], *, shows_all: bool) -> list[str]:
    """One line a case."""
    quiet = (common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED)
    return [
        f"{_VERDICT_WORDS[case.verdict]:<8}  task {task.task}  {plain_line(case.name)}"
        for task in tasks
        for case in task.cases
        if shows_all or case.verdict not in quiet
    ]


def run_document(run: run_service_pb2.Run) -> dict[str, object]:
    """The run as JSON has it."""
    document: dict[str, object] = MessageToDict(run, preserving_proto_field_name=True)
    return {**document, "state": state_text(run)}


def run_line(run: run_service_pb2.Run) -> str:
    """ "7f3k  2026-11-22 19:06:02  examples/skewed  finished  226 passed, 3 failed in 19.8 s"."""
    created = datetime.fromtimestamp(run.created_at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    line = f"{run.run_id}  {created}  {plain_line(run.suite)}  {state_text(run)}  {counts_line(run)}"
    if run.HasField("confirmation"):
        line += plain_line(f"  {confirmation_text(run.confirmation)}")
    return line


async def _list(addresses: StackAddresses, suite: str, limit: int) -> list[run_service_pb2.Run]:
    async with client_of(addresses) as client:
        return await client.list_runs(suite=suite, limit=limit)


async def _fetch(
    addresses: StackAddresses, run_id: str
) -> tuple[run_service_pb2.Run, list[run_service_pb2.Task]]:
    async with client_of(addresses) as client:
        run = await client.get_run(run_id)
        tasks: AsyncIterator[run_service_pb2.Task] = client.list_tasks(run_id)
        return run, [task async for task in tasks]
