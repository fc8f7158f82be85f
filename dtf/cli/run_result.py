"""What is said of a run at its end, and the exit code it gives."""

import json
from pathlib import Path
from typing import Any

import click
import grpc

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.cli.errors import explain
from dtf.cli.exit_codes import ExitCode
from dtf.cli.progress_display import COUNTED, duration_text
from dtf.cli.run_progress import RunProgress
from dtf.client.client import Client
from dtf.report.gather import RunNotFinished
from dtf.report.write import WrittenReport, report_run
from dtf.settings.project import make_private_dir, state_dir


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


async def report_of(client: Client, run_id: str, project_dir: Path) -> WrittenReport | None:
    """The report of a run that ended, written under the state directory; None (and why, on standard
    error) if it cannot be made: the run is what it is all the same."""
    reports = make_private_dir(state_dir(project_dir)) / "reports"
    try:
        return await report_run(client, run_id, reports)
    except (RunNotFinished, grpc.RpcError, TimeoutError, OSError) as error:
        known = explain(error)
        reason = known.what if known else str(error) or type(error).__name__
        click.echo(f"dtf: no report of run {run_id}: {reason}", err=True)
        return None


def result_lines(written: WrittenReport) -> list[str]:
    """The summary's lines, with the page's path as short as it can be typed here."""
    here = Path.cwd()
    page = written.page
    short = str(page.relative_to(here)) if page.is_relative_to(here) else str(page)
    return [line.replace(str(page), short) for line in written.lines]


def show_result(
    run: run_service_pb2.Run, progress: RunProgress, written: WrittenReport | None, *, as_json: bool
) -> None:
    """Print how the run ended, on standard output."""
    if as_json:
        document = result_document(run, progress)
        document["report"] = str(written.page) if written else None
        click.echo(json.dumps(document))
        return
    for line in result_lines(written) if written else [counts_line(run)]:
        click.echo(line)
    if progress.failures:
        first = progress.failures[0]
        click.echo(f"{'output':<13}dtf logs {run.run_id} --task {first.task}")
