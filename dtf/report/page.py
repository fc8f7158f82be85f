"""The report page: one file, no scripts, no requests to anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files

import jinja2
from markupsafe import Markup

from dtf.api.v1 import analysis_service_pb2
from dtf.core.run.summary import CaseSummary
from dtf.report.changes import MOST_TOLD, ToldChange, told_changes
from dtf.report.gather import OUTPUTS_LIMIT, RunReport
from dtf.report.output import OutputPart, plain
from dtf.report.sparkline import Sparkline, draw_sparkline
from dtf.report.text import comparison_text, performance_text, pool_text, unusual_cases, verdict_sentence
from dtf.report.timeline import Timeline, draw_timeline, mark_text
from dtf.report.wording import (
    bytes_text,
    change_text,
    counted,
    counts_text,
    outcome_word,
    percent_text,
    seconds_text,
    verdict_word,
)

SLOWEST_SHOWN = 15
UNUSUAL_SHOWN = 30
CASES_LIMIT = 2000
MARKS_LIMIT = 60
USUAL_SIGMAS = 3.5
"""Half the width of the range called usual, in standard deviations estimated from the MAD."""
SIGMA_PER_MAD = 1.4826


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed or flaky case with what there is to say of it."""

    case: CaseSummary
    parts: Sequence[OutputPart]
    is_open: bool


@dataclass(frozen=True, slots=True)
class SlowCase:
    """A slow case with its history."""

    case: CaseSummary
    history: str
    line: Sparkline | None


@dataclass(frozen=True, slots=True)
class Change:
    """A case that took unusually long or short."""

    name: str
    now: str
    usual: str
    change: str
    word: str
    line: Sparkline | None


@dataclass(slots=True)
class Page:
    """What the template is given, all of it ready to print."""

    report: RunReport
    sentence: str
    verdict: str
    counts: str
    pool: str
    comparison: str
    performance: str
    created: str
    failures: list[Failure]
    omitted_failures: int
    flaky: list[Failure]
    timeline: Timeline
    slowest: list[SlowCase]
    changes: list[Change]
    omitted_changes: int
    told: list[ToldChange]
    omitted_told: int
    is_search_behind: bool
    cases: list[CaseSummary] = field(default_factory=list)


def render_page(report: RunReport) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": seconds_text,
        "bytes": bytes_text,
        "verdict": verdict_word,
        "outcome": outcome_word,
        "mark": mark_text,
        "percent": percent_text,
    }
    environment.globals["counted"] = counted
    templates = files("dtf.report") / "templates"
    template = environment.from_string((templates / "report.html.j2").read_text("utf-8"))
    style = (templates / "report.css").read_text("utf-8")
    return template.render(page=make_page(report), run=report.run, style=style, marks_limit=MARKS_LIMIT)


def _printable(value: object) -> object:
    """Every text that the template prints, without escapes, control characters and lone surrogates."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def make_page(report: RunReport) -> Page:
    """Everything the page says."""
    run = report.run
    comparisons = {case.case_name: case for case in report.comparison.cases} if report.comparison else {}
    changes = unusual_cases(report.comparison) if report.comparison else []
    told = told_changes(report.findings, run.run_id)
    created = datetime.fromtimestamp(run.created_ns / 1e9, UTC)
    failed = bool(run.counts.failed or run.counts.error)
    return Page(
        report=report,
        sentence=verdict_sentence(report),
        verdict="failed" if failed else "passed",
        counts=counts_text(run),
        pool=pool_text(report),
        comparison=comparison_text(report),
        performance=performance_text(report),
        created=f"{created:%Y-%m-%d %H:%M:%S} UTC",
        failures=[
            _failure(report, case, index < 5) for index, case in enumerate(run.failures[:OUTPUTS_LIMIT])
        ],
        omitted_failures=max(0, len(run.failures) - OUTPUTS_LIMIT),
        flaky=[_failure(report, case, False) for case in run.flaky[:OUTPUTS_LIMIT]],
        timeline=draw_timeline(report),
        slowest=[_slow(case, comparisons.get(case.name)) for case in run.slowest(SLOWEST_SHOWN)],
        changes=[_change(case) for case in changes[:UNUSUAL_SHOWN]],
        omitted_changes=max(0, len(changes) - UNUSUAL_SHOWN),
        told=told[:MOST_TOLD],
        omitted_told=max(0, len(told) - MOST_TOLD),
        is_search_behind=report.is_search_behind,
        cases=run.cases if len(run.cases) <= CASES_LIMIT else [],
    )


def _failure(report: RunReport, case: CaseSummary, is_open: bool) -> Failure:
    return Failure(case, report.outputs.get((case.task, case.case), []), is_open)


def _slow(case: CaseSummary, comparison: analysis_service_pb2.CaseComparison | None) -> SlowCase:
    if comparison is None or not comparison.history.count:
        return SlowCase(case, "no history", None)
    history = comparison.history
    text = f"usually {usual_text(history)} ({counted(history.count, 'run')})"
    return SlowCase(case, text, _line(comparison))


def _change(comparison: analysis_service_pb2.CaseComparison) -> Change:
    return Change(
        name=comparison.case_name,
        now=seconds_text(comparison.duration_seconds),
        usual=f"{usual_text(comparison.history)} in {counted(comparison.history.count, 'run')}",
        change=change_text(comparison.ratio),
        word="slower" if comparison.ratio > 1 else "faster",
        line=_line(comparison),
    )


def usual_text(history: analysis_service_pb2.CaseStatistics) -> str:
    """ "3.1 s (2.9 s to 3.3 s)": the median, and the range that its own spread explains."""
    half = USUAL_SIGMAS * SIGMA_PER_MAD * history.mad_seconds
    low, high = max(0.0, history.median_seconds - half), history.median_seconds + half
    return f"{seconds_text(history.median_seconds)} ({seconds_text(low)} to {seconds_text(high)})"


def _line(comparison: analysis_service_pb2.CaseComparison) -> Sparkline | None:
    values = [*comparison.recent_seconds]
    said = ", ".join(seconds_text(value) for value in values[-5:])
    return draw_sparkline(values, f"newest durations of {comparison.case_name}: {said}")
