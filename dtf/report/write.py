"""Writes reports to files, and makes whole ones for the commands that end a run.

written = await report_run(client, run_id, reports_dir)      # in asyncio
written = report_run_blocking(peer, analyzer, run_id, reports_dir)
written.lines, written.page
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from dtf.client.client import Client
from dtf.report.document import report_document
from dtf.report.gather import ANALYZER_TIMEOUT_SECONDS, RunReport, gather_report
from dtf.report.text import summary_lines
from dtf.rpc.channel import Peer


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report, the page it was written to, and the lines a terminal shows."""

    report: RunReport
    page: Path
    lines: list[str]


def default_page(reports_dir: Path, run_id: str) -> Path:
    """Where the page of a run goes: .dtf/reports/<run>/index.html, for `reports_dir` .dtf/reports."""
    return reports_dir / run_id / "index.html"


def write_page(report: RunReport, path: Path) -> None:
    """Write the page, replacing one that is there."""
    from dtf.report.page import render_page  # jinja2 is a tenth of a second that --json need not pay

    _write(path, render_page(report))


def write_document(report: RunReport, path: Path) -> None:
    """Write the JSON, replacing what is there."""
    _write(path, json.dumps(report_document(report), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


async def report_run(
    client: Client,
    run_id: str,
    reports_dir: Path,
    *,
    analyzer_timeout_seconds: float = ANALYZER_TIMEOUT_SECONDS,
) -> WrittenReport:
    """Gather the report of a run that has ended and write its page. Raises RunNotFinished or gRPC's errors."""
    report = await gather_report(client, run_id, analyzer_timeout_seconds=analyzer_timeout_seconds)
    page = default_page(reports_dir, run_id)
    await asyncio.to_thread(write_page, report, page)
    return WrittenReport(report, page, summary_lines(report, page))


def report_run_blocking(
    coordinator: Peer,
    analyzer: Peer | None,
    run_id: str,
    reports_dir: Path,
    *,
    analyzer_timeout_seconds: float = ANALYZER_TIMEOUT_SECONDS,
) -> WrittenReport:
    """The same for code without an event loop."""

    async def make() -> WrittenReport:
        async with Client(coordinator, analyzer) as client:
            return await report_run(
                client, run_id, reports_dir, analyzer_timeout_seconds=analyzer_timeout_seconds
            )

    return asyncio.run(make())
