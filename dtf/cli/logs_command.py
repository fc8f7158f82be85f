"""`dtf logs`: output of a run, task or case."""

import asyncio
import base64
import json
import sys
from dataclasses import dataclass, replace

import click

from dtf.api.v1 import common_pb2
from dtf.cli.case_output import CaseOutput, CaseOutputs
from dtf.cli.connection import client_of, join
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.client.client import Client
from dtf.client.stack import StackAddresses

_QUIET_SECONDS = 2.0
"""A run that goes on and says nothing for this long has said what there was."""


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("case", required=False)
@click.option("--task", type=click.IntRange(min=0), metavar="N", help="Only this task.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a piece; data of commands is base64.")
@click.pass_obj
def command(
    invocation: Invocation, run_id: str, case: str | None, task: int | None, follow: bool, as_json: bool
) -> None:
    """Print what the attempts of a run, a task or a case wrote.

    \b
    Example:
        dtf logs 7f3k                      everything
        dtf logs 7f3k --task 4 -f          one task, as it appears
        dtf logs 7f3k test_io.py::test_a   one case
    """
    with join(invocation) as membership:
        asyncio.run(_print(membership.addresses, run_id, _Wanted(task, case, follow, as_json)))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is printed, and how."""

    task: int | None
    case: str | None
    follows: bool
    as_json: bool


async def _print(addresses: StackAddresses, run_id: str, wanted: _Wanted) -> None:
    async with client_of(addresses) as client:
        if wanted.case is not None:
            task, name = await _find_case(client, run_id, wanted.case)
            wanted = replace(wanted, task=task, case=name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_print_streams(client, run_id, wanted))
            tasks.create_task(_print_results(client, run_id, wanted))


async def _print_streams(client: Client, run_id: str, wanted: _Wanted) -> None:
    """What commands wrote, as it appears."""
    last: tuple[int, int] | None = None
    async for piece in client.tail_logs(run_id, task=wanted.task, follow=wanted.follows):
        if wanted.as_json:
            data = base64.b64encode(piece.data).decode()
            click.echo(json.dumps({"task": piece.task, "attempt": piece.attempt, "data": data}))
            continue
        source = (piece.task, piece.attempt)
        if wanted.task is None and source != last:
            click.echo(f"--- task {piece.task}, attempt {piece.attempt}")
        last = source
        sys.stdout.buffer.write(piece.data)
        sys.stdout.buffer.flush()


async def _print_results(client: Client, run_id: str, wanted: _Wanted) -> None:
    """What cases of pytest printed and why they failed, from their results."""
    run = await client.attach(run_id)
    is_over = run.run.state in (common_pb2.RUN_STATE_FINISHED, common_pb2.RUN_STATE_CANCELLED)
    until = None if wanted.follows or is_over else (await client.get_fleet()).log_sequence
    outputs = CaseOutputs(client, run).follow(until)
    try:
        while True:
            async with asyncio.timeout(None if until is None else _QUIET_SECONDS):
                output = await anext(outputs)
            if wanted.task in (None, output.task) and wanted.case in (None, output.name):
                _print_output(output, wanted)
    except (StopAsyncIteration, TimeoutError):
        return


def _print_output(output: CaseOutput, wanted: _Wanted) -> None:
    for part in output.parts:
        if wanted.as_json:
            click.echo(
                json.dumps({"task": output.task, "case": output.name, "title": part.title, "text": part.text})
            )
        else:
            click.echo(f"--- {output.name} on {output.worker_id}: {part.title}\n{part.text.rstrip()}")


async def _find_case(client: Client, run_id: str, case: str) -> tuple[int, str]:
    """Task and name of the case that is called so, or of the only one whose name contains it."""
    similar: dict[int, str] = {}
    async for task in client.list_tasks(run_id):
        for found in task.cases:
            if found.name == case:
                return task.task, found.name
            if case in found.name:
                similar[task.task] = found.name
    if len(similar) == 1:
        return next(iter(similar.items()))
    hint = f"{len(similar)} cases contain it: {', '.join(list(similar.values())[:3])}" if similar else ""
    raise CommandError(
        f"run {run_id} has no case {case!r}",
        *filter(None, [hint, f"`dtf runs show {run_id} --all` lists its cases"]),
        exit_code=ExitCode.FAILED,
    )
