"""What is said of a run at its end, and the exit code it gives."""

import json
from pathlib import Path
from typing import Any

import click

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.progress_display import COUNTED, duration_text
from dtf.cli.run_progress import RunProgress
from dtf.client.stack import StackAddresses


def exit_code_of(run: run_service_pb2.Run) -> ExitCode:
    """0 all passed, 1 some failed, 2 cancelled, 5 there was nothing."""
    if run.state in (common_pb2.RUN_STATE_CANCELLED, common_pb2.RUN_STATE_CANCELLING):
        return ExitCode.CANCELLED
    if run.counts.failed or run.counts.error:
        return ExitCode.FAILED
    return ExitCode.OK if run.case_count else ExitCode.EMPTY


def result_document(run: run_service_pb2.Run, progress: RunProgress | None) -> dict[str, Any]:
    """The run as `--json` prints it."""
    counts = {name: getattr(run.counts, name) for _, name in COUNTED}
    document: dict[str, Any] = {
        "run_id": run.run_id,
        "suite": run.suite,
        "state": state_text(run),
        "counts": counts,
        "cases": run.case_count,
        "duration_seconds": round(run.finished_at - run.created_at, 3) if run.finished_at else None,
        "exit_code": int(exit_code_of(run)),
    }
    if progress is not None and progress.finished is not None:
        document["unjudged"] = progress.finished.unjudged
        document["infrastructure_failures"] = progress.finished.infrastructure_failures
        document["failures"] = [
            {"name": note.name, "message": note.message, "worker": note.worker_id, "task": note.task}
            for note in progress.failures
        ]
    return document


def state_text(run: run_service_pb2.Run) -> str:
    """ "finished", "active", …"""
    return common_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()


def counts_line(run: run_service_pb2.Run) -> str:
    """ "226 passed, 3 failed, 1 flaky, 2 skipped in 19.8 s"."""
    parts = [f"{count} {name}" for _, name in COUNTED if (count := getattr(run.counts, name))]
    judged = sum(getattr(run.counts, name) for _, name in COUNTED)
    if run.state == common_pb2.RUN_STATE_CANCELLED:
        parts.append(f"{run.case_count - judged} not run (cancelled)")
    seconds = duration_text(run.finished_at - run.created_at) if run.finished_at else "unknown time"
    return f"{', '.join(parts) or 'nothing ran'} in {seconds}"


def show_result(
    run: run_service_pb2.Run,
    progress: RunProgress,
    project_dir: Path,
    addresses: StackAddresses,
    *,
    as_json: bool,
) -> None:
    """Print how the run ended, on standard output."""
    if as_json:
        click.echo(json.dumps(result_document(run, progress)))
        return
    click.echo(counts_line(run))
    if progress.pool_moves:
        moves = ", ".join(f"{move.change:+d}" for move in progress.pool_moves)
        click.echo(f"pool         {moves} workers")
    if progress.longest is not None:
        seconds, case, _ = progress.longest
        click.echo(f"slowest      {case} {duration_text(seconds)}")
    if progress.failures:
        first = progress.failures[0]
        click.echo(f"output       dtf logs {run.run_id} --task {first.task}")
