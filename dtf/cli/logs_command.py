"""`dtf logs`: output of a run, task or case."""

import asyncio
import base64
import json
import sys

import click

from dtf.api.v1 import run_service_pb2
from dtf.cli.connection import client_of, join
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client
from dtf.client.stack import StackAddresses


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("case", required=False)
@click.option("--task", type=click.IntRange(min=0), metavar="N", help="Only this task.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a piece; its data is base64.")
@click.pass_obj
def command(
    invocation: Invocation, run_id: str, case: str | None, task: int | None, follow: bool, as_json: bool
) -> None:
    """Print what the attempts of a run, a task or a case wrote.

    \b
    Example:
        dtf logs 7f3k                      everything
        dtf logs 7f3k --task 4 -f          one task, as it appears
        dtf logs 7f3k test_io.py::test_a   the task that ran this case
    """
    with join(invocation) as membership:
        asyncio.run(_print(membership.addresses, run_id, case, task, follow=follow, as_json=as_json))


async def _print(
    addresses: StackAddresses, run_id: str, case: str | None, task: int | None, *, follow: bool, as_json: bool
) -> None:
    async with client_of(addresses) as client:
        if case is not None:
            task = await _task_of(client, run_id, case)
        last: tuple[int, int] | None = None
        async for piece in client.tail_logs(run_id, task=task, follow=follow):
            if as_json:
                click.echo(_document(piece))
                continue
            source = (piece.task, piece.attempt)
            if task is None and source != last:
                click.echo(f"--- task {piece.task}, attempt {piece.attempt}")
            last = source
            sys.stdout.buffer.write(piece.data)
            sys.stdout.buffer.flush()


def _document(piece: run_service_pb2.TailLogsResponse) -> str:
    return json.dumps(
        {"task": piece.task, "attempt": piece.attempt, "data": base64.b64encode(piece.data).decode()}
    )


async def _task_of(client: Client, run_id: str, case: str) -> int:
    """The task that has a case of this name, or the only one whose case ends like it."""
    similar: dict[int, str] = {}
    async for task in client.list_tasks(run_id):
        for found in task.cases:
            if found.name == case:
                return task.task
            if case in found.name:
                similar[task.task] = found.name
    if len(similar) == 1:
        return next(iter(similar))
    hint = f"{len(similar)} cases contain it: {', '.join(list(similar.values())[:3])}" if similar else ""
    raise CommandError(
        f"run {run_id} has no case {case!r}",
        *filter(None, [hint, f"`dtf runs show {run_id} --all` lists its cases"]),
        exit_code=ExitCode.FAILED,
    )
