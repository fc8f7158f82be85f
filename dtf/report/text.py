"""The lines a terminal shows at the end of a run."""

from pathlib import Path

from dtf.api.v1 import analysis_service_pb2, common_pb2
from dtf.core.run.summary import CaseSummary, Fault
from dtf.report.changes import changes_text, told_changes
from dtf.report.gather import RunReport
from dtf.report.output import plain_line
from dtf.report.wording import change_text, counted, counts_text, percent_text, seconds_text

_LABEL_WIDTH = 13
_FAILURES_SHOWN = 10
_SLOWEST_SHOWN = 3
_UNUSUAL_SHOWN = 3


def summary_lines(report: RunReport, page: Path | None = None) -> list[str]:
    """The summary, a line each; `page` is where the report page was written."""
    lines = [f"{counts_text(report.run)} in {seconds_text(report.run.seconds)}"]
    lines += [_failure_line(case) for case in report.run.failures[:_FAILURES_SHOWN]]
    more = len(report.run.failures) - _FAILURES_SHOWN
    if more > 0:
        lines.append(_labelled("", f"and {more:,} more"))
    facts = {
        "pool": pool_text(report),
        "slowest": _slowest_text(report),
        "flaky": ", ".join(case.name for case in report.run.flaky[:_UNUSUAL_SHOWN]),
        "performance": performance_text(report),
        "changes": changes_text(told_changes(report.findings, report.run.run_id)),
        "lost": _disturbance_text(report),
        "report": str(page) if page else "",
    }
    lines += [_labelled(label, text) for label, text in facts.items() if text]
    return [plain_line(line) for line in lines]


def pool_text(report: RunReport) -> str:
    """ "1 → 5 workers, 74 worker-seconds, 87 % busy"."""
    start = report.pool.size_at(report.run.created_ns)
    end = report.pool.size_at(report.run.finished_ns)
    sizes = [start, report.peak_workers, end]
    path = [size for index, size in enumerate(sizes) if not index or size != sizes[index - 1]]
    workers = f"{' → '.join(map(str, path))} {'worker' if path == [1] else 'workers'}"
    spent = f"{report.worker_seconds:,.0f} worker-seconds"
    return f"{workers}, {spent}, {percent_text(report.busy_ratio)} busy"


def comparison_text(report: RunReport) -> str:
    """How the run compares with its suite's history, without names."""
    comparison = report.comparison
    if comparison is None:
        return report.comparison_note
    if not comparison.run_count:
        return "the first recorded run of this suite: nothing to compare with"
    against = f"against {counted(comparison.run_count, 'earlier run')}"
    unusual = unusual_cases(comparison)
    return f"{counted(len(unusual), 'case') if unusual else 'nothing'} unusual {against}"


def performance_text(report: RunReport) -> str:
    """How the run compares with its suite's history, in one sentence."""
    unusual = unusual_cases(report.comparison) if report.comparison else []
    if not unusual:
        return comparison_text(report)
    named = ", ".join(f"{case.case_name} {change_text(case.ratio)}" for case in unusual[:_UNUSUAL_SHOWN])
    more = f", and {len(unusual) - _UNUSUAL_SHOWN} more" if len(unusual) > _UNUSUAL_SHOWN else ""
    return f"{comparison_text(report)}: {named}{more}"


def unusual_cases(
    comparison: analysis_service_pb2.CompareRunResponse,
) -> list[analysis_service_pb2.CaseComparison]:
    """Cases whose duration their own history does not explain, the largest change first."""
    found = [case for case in comparison.cases if case.is_unusual and case.ratio > 0]
    return sorted(found, key=lambda case: -max(case.ratio, 1 / case.ratio))


def verdict_sentence(report: RunReport) -> str:
    """The run in one sentence."""
    run = report.run
    failed = run.counts.failed + run.counts.error
    if run.state == common_pb2.RUN_STATE_CANCELLED:
        why = f" ({run.cancel_reason})" if run.cancel_reason else ""
        return f"Cancelled{why}: {counts_text(run)}."
    if not run.cases:
        return "Nothing ran."
    if not failed:
        flaky = f", {run.counts.flaky} only when tried again" if run.counts.flaky else ""
        skipped = f" or were skipped ({run.counts.skipped})" if run.counts.skipped else ""
        return f"All {counted(len(run.cases), 'case')} passed{skipped}{flaky}."
    infrastructure = sum(1 for case in run.failures if case.fault is Fault.INFRASTRUCTURE)
    blame = "" if not infrastructure else f", {infrastructure} of them through no fault of the test"
    return f"{failed:,} of {counted(len(run.cases), 'case')} failed{blame}."


def _failure_line(case: CaseSummary) -> str:
    word = "FAILED" if case.verdict == common_pb2.VERDICT_FAILED else "ERROR"
    fault = "  (infrastructure)" if case.fault is Fault.INFRASTRUCTURE else ""
    return _labelled(word, f"{case.name}  {case.message}".rstrip() + fault)


def _slowest_text(report: RunReport) -> str:
    return ", ".join(
        f"{case.name} {seconds_text(case.seconds)}" for case in report.run.slowest(_SLOWEST_SHOWN)
    )


def _disturbance_text(report: RunReport) -> str:
    happened = [what for _, what in report.run.disturbances]
    if not happened:
        return ""
    more = f", and {len(happened) - 1} more" if len(happened) > 1 else ""
    return f"through no fault of a test: {happened[0]}{more}"


def _labelled(label: str, text: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}{text}"
