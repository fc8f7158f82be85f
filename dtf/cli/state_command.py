"""`dtf state`: what was true at a sequence or a time."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dtf.adapters.event_lines import format_time
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_fold import fold_to, nearest_fold
from dtf.cli.log_source import LogSource, source_options, with_log_source
from dtf.cli.log_time import sequence_of
from dtf.core.run.portrait import (
    Document,
    judged_cases,
    leases,
    portrait,
    run_portrait,
    task_portrait,
    worker_portrait,
)
from dtf.core.run.state import Run, State
from dtf.core.run.state_hash import state_hash
from dtf.report.output import plain_line

_SHOWN = 20
_PLAIN_WIDTH = 200
"""Of tables that go to a file or a pipe."""
_TROUBLE = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR, common_pb2.VERDICT_FLAKY)


@click.command()
@source_options
@click.option(
    "--at",
    "point",
    metavar="SEQ|TIME",
    help="Sequence (812), time ago (-10m) or RFC 3339 time. Default: the log's end.",
)
@click.option("--run", "run_id", default="", metavar="ID", help="One run, by its id or the beginning of it.")
@click.option("--worker", "worker_id", default="", metavar="ID", help="One worker.")
@click.option("--task", type=click.IntRange(min=0), metavar="N", help="One task of the run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(
    invocation: Invocation,
    source: Path | None,
    namespace: str | None,
    point: str | None,
    run_id: str,
    worker_id: str,
    task: int | None,
    as_json: bool,
) -> None:
    """Show queue, leases, workers, runs and verdicts as they were at a point of the log.

    \b
    Example:
        dtf state                            now
        dtf state --at -10m                  ten minutes ago
        dtf state --at 812 --run 7f3k        one run at a sequence
        dtf state --at 812 --run 7f3k --task 4
    """
    if task is not None and not run_id:
        raise CommandError("--task counts in a run; name it with --run", exit_code=ExitCode.USAGE)

    async def look(opened: LogSource) -> State:
        head = await opened.head()
        if not head.last_sequence:
            raise CommandError(f"{opened.name} is empty: nothing has happened yet")
        at = head.last_sequence
        if point is not None:
            at = await sequence_of(opened, point, SystemClock().now_ns())
        return (await fold_to(opened, await nearest_fold(opened, at), at)).state

    state = with_log_source(invocation, source, namespace, look)
    document = _document(state, run_id, worker_id, task)
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print(document)


def find_run(state: State, run_id: str) -> Run:
    """The run of this id, or of the only one that begins so. Raises CommandError."""
    if run_id in state.runs:
        return state.runs[run_id]
    matching = [known for known in state.runs if known.startswith(run_id)]
    if len(matching) == 1:
        return state.runs[matching[0]]
    if matching:
        raise CommandError(f"{run_id} begins {len(matching)} runs: {', '.join(sorted(matching)[:8])}")
    retired = [known for known in state.retired_runs if known.startswith(run_id)]
    if retired:
        last = state.retired_runs[retired[0]].last_sequence
        raise CommandError(
            f"run {retired[0]} ended and left the working state", f"`dtf state --at {last}` is where it ended"
        )
    raise CommandError(
        f"there is no run {run_id} at sequence {state.last_sequence}", f"runs there: {_some(state.runs)}"
    )


def _document(state: State, run_id: str, worker_id: str, task: int | None) -> Document:
    document = portrait(state)
    document["time"] = format_time(state.now_ns)
    document["state_hash"] = state_hash(state)
    run = find_run(state, run_id) if run_id else None
    if worker_id:
        if worker_id not in state.workers:
            raise CommandError(
                f"there is no worker {worker_id} at sequence {state.last_sequence}",
                f"workers there: {_some(state.workers)}",
            )
        document["workers"] = {worker_id: worker_portrait(state.workers[worker_id])}
    if run is not None:
        document["runs"] = {run.run_id: run_portrait(run)}
        document["trouble"] = list(judged_cases(run, _TROUBLE))
    if run is not None and task is not None:
        if task >= run.task_count:
            raise CommandError(
                f"run {run.run_id} has {run.task_count} tasks there, counted from 0; not {task}"
            )
        document["task"] = task_portrait(state, run, task)
    document["leases"] = list(leases(state, run.run_id if run else "", worker_id))
    return document


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[-8:]) or "none"


def _print(document: Document) -> None:
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    console = Console(highlight=False, soft_wrap=True, width=width)
    console.print(
        f"sequence {document['sequence']:,}  {document['time']}  epoch {document['epoch']} "
        f"({plain_line(document['leader'])})",
        markup=False,
    )
    console.print(
        f"queue {document['queued']:,} tasks, {document['leased']:,} leased   state {document['state_hash'][:16]}",
        markup=False,
    )
    for table in _tables(document):
        if table.row_count:
            console.print()
            console.print(table)


def _tables(document: Document) -> Iterator[Table]:
    yield _table(
        ("run", "suite", "state", "queued", "leased", "ended", "verdicts", "sequences"),
        [_run_row(run_id, run) for run_id, run in list(document["runs"].items())[-_SHOWN:]],
    )
    yield _table(
        ("worker", "state", "pool", "slots", "leases", "cases done", "reason"),
        [
            (
                f"{worker_id}/{worker['incarnation']}",
                *(worker[key] for key in ("state", "pool", "slots", "leases", "cases_done", "reason")),
            )
            for worker_id, worker in document["workers"].items()
        ],
    )
    held = document["leases"]
    yield _table(
        ("fence", "run", "task", "attempt", "worker", "name"),
        [
            tuple(lease[key] for key in ("fence", "run", "task", "attempt", "worker", "name"))
            for lease in held
        ],
        title="leases",
    )
    yield _table(
        ("task", "case", "verdict", "name"),
        [
            tuple(case[key] for key in ("task", "case", "verdict", "name"))
            for case in document.get("trouble", ())
        ],
        title="not simply passed",
    )
    if "task" in document:
        yield _task_table(document["task"])


def _run_row(run_id: str, run: Document) -> tuple[Any, ...]:
    tasks, verdicts = run["tasks"], run["verdicts"]
    judged = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    ended = tasks.get("finished", 0) + tasks.get("cancelled", 0)
    span = f"{run['first_sequence']} to {run['last_sequence'] or '…'}"
    waiting = "; ".join(run["waiting"].values())
    state = run["state"] + (f" ({waiting})" if waiting else "")
    return (run_id, run["suite"], state, tasks.get("queued", 0), tasks.get("leased", 0), ended, judged, span)


def _task_table(task: Document) -> Table:
    lease = task["lease"]
    held = f", leased to {lease['worker']} (fence {lease['fence']})" if lease else ""
    title = f"task {task['task']} {task['name']}: {task['state']}, attempt {task['attempts']}{held}"
    rows = [
        tuple(case[key] for key in ("case", "name", "verdict", "failed_before", "infrastructure_charges"))
        for case in task["cases"]
    ]
    return _table(("case", "name", "verdict", "failed before", "died with it"), rows, title=title)


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]], title: str = "") -> Table:
    shown = rows[:_SHOWN]
    left = len(rows) - len(shown)
    table = Table(
        *columns,
        title=escape(plain_line(title)) or None,
        title_justify="left",
        caption=f"… {left:,} more (--json has them all)" if left else None,
        caption_justify="left",
        box=None,
        pad_edge=False,
    )
    for row in shown:
        table.add_row(*(escape(plain_line(str(cell))) for cell in row))
    return table
