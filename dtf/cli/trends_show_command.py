"""`dtf trends show SERIES`: its values and what was found in them, drawn in the terminal or into a file."""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import median

import click
import numpy as np

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import common_pb2, findings_pb2
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.trends_client import Analyzer, ask_analyzer
from dtf.cli.trends_list_command import finding_document, finding_lines, newest_findings
from dtf.cli.trends_picture import check_plot, write_picture
from dtf.core.trend.finding_groups import (
    FindingGroup,
    change_point_of,
    group_findings,
    groups_by_finding,
)
from dtf.core.trend.finding_text import value_text
from dtf.core.trend.finding_words import ANOMALIES, KIND_NAMES
from dtf.core.trend.findings import (
    Anomaly,
    AnomalyKind,
    ChangePoint,
    Interval,
)
from dtf.core.trend.group_text import group_sentence
from dtf.core.trend.scarcity import LEAST_POINTS
from dtf.report.output import plain_line
from dtf.report.wording import counted
from dtf.trends.plotting import Picture, plot_lines

MOST_VALUES = 10_000
_BAD_VERDICTS = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR, common_pb2.VERDICT_SKIPPED)


@dataclass(slots=True)
class History:
    """A series as it is shown: one value a run, or each that was imported."""

    key: pb.SeriesKey
    times: list[float]
    values: list[float]
    runs: list[str]
    """Of each value; "": it was imported."""
    findings: list[pb.TrackedFinding]
    groups: Mapping[str, FindingGroup] = field(default_factory=dict)
    """By finding: what it has in common with other series of the suite."""
    unit: str = ""
    is_lower_better: bool | None = None
    """None: not known."""


@click.command("show")
@click.argument("series", metavar="SERIES")
@click.option("--metric", default="", help="Which metric, if the case has several.")
@click.option("--suite", default="", help="Which suite, if several have such a case.")
@click.option("--pool", default="", help="Only what this pool measured.")
@click.option("--all", "include_all", is_flag=True, help="Draw also what went away, was rejected or muted.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the picture to FILE.svg or FILE.png.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object: values and findings.")
@click.pass_obj
def command(
    invocation: Invocation,
    series: str,
    metric: str,
    suite: str,
    pool: str,
    include_all: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Draw one series with what was found in it.

    SERIES is a case's name or a part of it that only one has, the name of a suite for the suite as a
    whole, or the identity of a finding.

    \b
    Example:
        dtf trends show test_parse.py::test_big
        dtf trends show 635d259c51 --plot big.svg
    """
    check_plot(plot)

    async def ask(analyzer: Analyzer) -> History:
        await analyzer.settle()
        key = await _find_series(analyzer, series, pb.SeriesKey(suite=suite, metric=metric, pool=pool))
        return await _read(analyzer, key)

    history = ask_analyzer(invocation, ask)
    if pool and not history.values:
        raise CommandError(
            f"no values of {history.key.case_name or history.key.suite} {history.key.metric} on pool {pool!r}",
            "`dtf pools` lists those of this stack; imported history is of the pool imported",
            exit_code=ExitCode.EMPTY,
        )
    shown = [each for each in history.findings if include_all or _is_drawn(each)]
    if as_json:
        click.echo(json.dumps(document(history)))
    if plot is not None:
        write_picture(plot, picture(history, shown))
    if as_json:
        return
    for line in history_lines(history, shown):
        click.echo(line)
    if plot is not None:
        click.echo(f"picture      {plot}")


async def _find_series(analyzer: Analyzer, name: str, wanted: pb.SeriesKey) -> pb.SeriesKey:
    named = await _of_finding(analyzer, name)
    if named is not None:
        return named
    found: list[pb.SeriesKey] = []
    request = pb.ListSeriesRequest(suite=wanted.suite, page_size=10_000)
    while True:
        answer = await analyzer.stub.ListSeries(request, **analyzer.call)
        found += answer.series
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    key = choose(found, name, wanted.metric)
    key.pool = wanted.pool
    return key


async def _of_finding(analyzer: Analyzer, name: str) -> pb.SeriesKey | None:
    """The series of the finding of that identity; None: `name` is no identity of one."""
    if not 4 <= len(name) <= 10 or not set(name) <= set("0123456789abcdef"):
        return None
    request = pb.ListFindingsRequest(include_all=True, page_size=10_000)
    for each in (await analyzer.stub.ListFindings(request, **analyzer.call)).findings:
        if each.finding.finding_id.startswith(name):
            own = each.finding.series
            return pb.SeriesKey(suite=own.suite, case_name=own.case_name, metric=own.metric, pool=own.pool)
    return None


def choose(found: Sequence[pb.SeriesKey], name: str, metric: str = "") -> pb.SeriesKey:
    """The series that a case or suite called `name` has, of that metric if one is given. Raises CommandError."""
    exact = [key for key in found if name == (key.case_name or key.suite)]
    named = exact or [key for key in found if name in key.case_name]
    if not named:
        raise CommandError(
            f"no series {name!r} among {len(found)}",
            "a series begins with the first run that passes; `dtf trends list --all` names those with findings",
            exit_code=ExitCode.EMPTY,
        )
    metrics = ", ".join(dict.fromkeys(key.metric for key in named))
    chosen = [key for key in named if metric in ("", key.metric)]
    if not chosen:
        raise CommandError(
            f"{name!r} has no metric {metric!r}", f"it has {metrics}", exit_code=ExitCode.USAGE
        )
    cases = sorted({(key.suite, key.case_name) for key in chosen})
    if len(cases) > 1:
        names = ", ".join(f"{suite} {case}".strip() for suite, case in cases[:5])
        raise CommandError(
            f"{name!r} is in {len(cases)} series: {names}",
            "name it in full, or pass --suite",
            exit_code=ExitCode.USAGE,
        )
    first = "duration_seconds" if cases[0][1] else "busy_seconds"
    usual = next((key for key in chosen if key.metric == first), None)
    if len(chosen) > 1 and usual is None:
        raise CommandError(
            f"{name!r} has {len(chosen)} metrics: {metrics}", "pass --metric", exit_code=ExitCode.USAGE
        )
    return usual or chosen[0]


async def _read(analyzer: Analyzer, key: pb.SeriesKey) -> History:
    points = await analyzer.stub.QuerySeries(
        pb.QuerySeriesRequest(series=key, limit=MOST_VALUES), **analyzer.call
    )
    request = pb.ListFindingsRequest(
        suite=key.suite,
        case_name=key.case_name,
        metric=key.metric,
        pool=key.pool,
        include_all=True,
        page_size=1000,
    )
    found = (await analyzer.stub.ListFindings(request, **analyzer.call)).findings
    own = [each for each in found if each.finding.series.case_name == key.case_name]
    shared = await newest_findings(analyzer, key.suite, include_all=False) if own else []
    groups = groups_by_finding(group_findings(each.finding for each in shared if each.is_raised))
    direction = points.is_lower_better if points.HasField("is_lower_better") else None
    history = History(key, [], [], [], own, groups, points.unit, direction)
    good = [point for point in points.points if point.verdict not in _BAD_VERDICTS]
    for _, group in groupby(enumerate(good), key=lambda item: item[1].run_id or item[0]):
        members = [point for _, point in group]
        history.times.append(members[-1].time_at)
        history.values.append(median(point.value for point in members))
        history.runs.append(members[-1].run_id)
    return history


def _is_drawn(tracked: pb.TrackedFinding) -> bool:
    finding = tracked.finding
    if finding.state == findings_pb2.FINDING_STATE_WENT_AWAY:
        return False
    is_aside = tracked.triage.verdict in (
        findings_pb2.TRIAGE_VERDICT_REJECTED,
        findings_pb2.TRIAGE_VERDICT_MUTED,
    )
    return not is_aside and (tracked.is_raised or finding.kind in ANOMALIES)


def _index(history: History, finding: findings_pb2.Finding) -> int:
    if finding.run_id and finding.run_id in history.runs:
        return history.runs.index(finding.run_id)
    return min(bisect_left(history.times, finding.time_unix_nanos / 1e9 - 1e-6), len(history.times) - 1)


def picture(history: History, shown: list[pb.TrackedFinding]) -> Picture:
    """What is drawn of it."""
    found = [each.finding for each in shown if history.values]
    return Picture(
        title=", ".join(filter(None, (_name(history), _direction(history)))),
        values=np.array(history.values),
        times=np.array(history.times),
        has_dates=True,
        changes=sorted(
            (_change(history, each) for each in found if each.kind not in ANOMALIES), key=lambda c: c.index
        ),
        anomalies=[_anomaly(history, each) for each in found if each.kind in ANOMALIES],
        unit=_unit(history),
    )


def _unit(history: History) -> str:
    """Of the series, or, where it is on several pools that do not agree, of what was found in it."""
    return history.unit or next((each.finding.unit for each in history.findings), "")


def _name(history: History) -> str:
    return f"{history.key.case_name or history.key.suite} {history.key.metric}"


def _direction(history: History) -> str:
    """ "lower is better"; "": not known."""
    return {None: "", True: "lower is better", False: "higher is better"}[history.is_lower_better]


def _change(history: History, finding: findings_pb2.Finding) -> ChangePoint:
    index = _index(history, finding)
    return replace(
        change_point_of(finding),
        index=index,
        first_index=max(0, index - (finding.index - finding.first_index)),
        last_index=min(len(history.values) - 1, index + finding.last_index - finding.index),
    )


def _anomaly(history: History, finding: findings_pb2.Finding) -> Anomaly:
    index = _index(history, finding)
    expected = Interval(finding.level_before, finding.level_before)
    return Anomaly(
        index=index,
        end_index=index + 1,
        time=finding.time_unix_nanos / 1e9,
        kind=AnomalyKind(KIND_NAMES[finding.kind]),
        score=finding.confidence,
        value=finding.level_after,
        expected=expected,
    )


def history_lines(history: History, shown: list[pb.TrackedFinding]) -> list[str]:
    """The series drawn, and what is shown of what was found in it."""
    key = history.key
    if not history.values:
        return [f"{key.case_name or key.suite} {key.metric}: no values yet"]
    unit = _unit(history)
    newest = value_text(history.values[-1], unit)
    count = counted(len(history.values), "run" if any(history.runs) else "value")
    facts = ", ".join(filter(None, (count, f"newest {newest}", _direction(history))))
    lines = [
        plain_line(f"{key.case_name or key.suite}  {key.metric}  {facts}"),
        *plot_lines(picture(history, shown)),
    ]
    for each in sorted(shown, key=lambda tracked: tracked.finding.time_unix_nanos):
        lines += finding_lines(each)
        group = history.groups.get(each.finding.finding_id)
        lines += [plain_line(f"    with others: {group_sentence(group)}")] if group is not None else []
    aside = len(history.findings) - len(shown)
    if shown:
        return lines
    if aside:
        return [*lines, f"nothing stands; {aside} set aside, which --all shows"]
    if len(history.values) < LEAST_POINTS:
        return [*lines, f"fewer than {LEAST_POINTS} points; nothing could have been found"]
    return [*lines, "no change was found"]


def document(history: History) -> dict[str, object]:
    """The series as JSON has it."""
    key = history.key
    return {
        "suite": key.suite,
        "case_name": key.case_name,
        "metric": key.metric,
        "unit": _unit(history),
        "is_lower_better": history.is_lower_better,
        "times": history.times,
        "values": history.values,
        "runs": history.runs,
        "findings": [
            finding_document(each, history.groups.get(each.finding.finding_id)) for each in history.findings
        ],
    }
