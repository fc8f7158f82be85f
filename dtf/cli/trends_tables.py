"""Analyses of series as lines for people."""

import math
from collections.abc import Sequence

import numpy as np

from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Forecast, Impact
from dtf.core.trend.scarcity import LEAST_POINTS, scarcity_text
from dtf.report.output import plain_line
from dtf.report.wording import counted
from dtf.trends.analysis import Analysis
from dtf.trends.plotting import plot_lines
from dtf.trends.wording import amount, change_sentence, percent, percent_interval

HEADS = ["at", "time", "revision", "what", "change", "level", "confidence", "state"]
MOST_LISTED = 20
SHORT_REVISION = 10
CONFIDENCE_DIGITS = 4


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as it needs; columns without anything are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]


def series_lines(analysis: Analysis, unit: str, horizon: int | None = None) -> list[str]:
    """Everything of one series: its plot, its change points, trend, season, what is unusual, what comes."""
    lines = [_heading(analysis, unit), "", *plot_lines(analysis.picture(unit=unit)), ""]
    lines += change_lines(analysis)
    trend, season = analysis.trend, analysis.seasonality
    lines.append(f"trend    {trend.label!s:<10} {trend.reason}")
    if season is not None:
        lines.append(f"season   every {season.period} values, {100 * season.strength:.0f} % of the variance")
    lines += _anomaly_lines(analysis)
    if horizon is not None:
        lines += _forecast_lines(analysis.forecast(horizon))
    return lines


def _heading(analysis: Analysis, unit: str) -> str:
    known = analysis.values[np.isfinite(analysis.values)]
    count = counted(len(analysis.values), "value")
    missing = len(analysis.values) - len(known)
    if missing:
        count += f" ({missing:,} missing)"
    middle = f", median {np.median(known):.4g}{' ' + unit if unit else ''}" if len(known) else ""
    return f"{plain_line(analysis.name or 'series')}: {count}{middle}"


def change_lines(analysis: Analysis) -> list[str]:
    """The change points as a table, or that there are none."""
    if not analysis.change_points and analysis.is_too_short:
        return [f"changes  none could be found in fewer than {LEAST_POINTS} values"]
    if not analysis.change_points:
        return ["changes  none: one regime from the first value to the last"]
    rows = [HEADS, *(change_cells(analysis, each) for each in analysis.change_points)]
    return [*aligned(rows), ""]


def change_cells(analysis: Analysis, change: ChangePoint) -> list[str]:
    """One line of the table; the levels of a spread are standard deviations of the noise."""
    effect = change.effect
    size = percent(effect.relative) if math.isfinite(effect.relative) else amount(effect.absolute)
    spread = "± " if change.kind is ChangeKind.VARIANCE else ""
    where = f"{change.index}"
    if change.last_index > change.first_index:
        where += f" ({change.first_index}–{change.last_index})"
    return [
        where,
        analysis.time_text(change.index) if analysis.has_times else "",
        plain_line(analysis.revision(change.index))[:SHORT_REVISION],
        what(change),
        f"{size} {percent_interval(effect.relative_interval)}".strip(),
        f"{spread}{change.level_before:.4g} → {change.level_after:.4g}",
        confidence_text(change.confidence),
        change.state.replace("_", " "),
    ]


def what(change: ChangePoint) -> str:
    """As: step, regression."""
    kind = "spread" if change.kind is ChangeKind.VARIANCE else str(change.kind)
    return kind if change.impact is Impact.CHANGE else f"{kind}, {change.impact}"


def confidence_text(confidence: float) -> str:
    """With the digits that say something, never as a certainty."""
    most = 1.0 - 10.0**-CONFIDENCE_DIGITS
    return f"> {most:.{CONFIDENCE_DIGITS}f}" if confidence > most else f"{confidence:.{CONFIDENCE_DIGITS}f}"


def _anomaly_lines(analysis: Analysis) -> list[str]:
    found = analysis.anomalies
    if not found:
        return ["unusual  no value"]
    listed = [
        f"{analysis.time_text(each.index) if analysis.has_times else each.index} ({each.value:.4g})"
        for each in found[:MOST_LISTED]
    ]
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return [f"unusual  {', '.join(listed)}{more}"]


def _forecast_lines(forecast: Forecast) -> list[str]:
    covered = (
        "too few values to check on"
        if math.isnan(forecast.backtested_coverage)
        else f"{100 * forecast.backtested_coverage:.0f} % of this series' own past was inside"
    )
    first = f"next     by {forecast.method}, {100 * forecast.coverage:.0f} % intervals ({covered})"
    columns = zip(forecast.values, forecast.low, forecast.high, strict=True)
    rows = [["", "ahead", "value", "interval"]]
    rows += [
        ["", f"{number}", f"{value:.5g}", f"{low:.5g} to {high:.5g}"]
        for number, (value, low, high) in enumerate(columns, start=1)
    ]
    return [first, *("         " + line for line in aligned([row[1:] for row in rows]))]


def overview_lines(analyses: Sequence[Analysis], units: Sequence[str]) -> list[str]:
    """A line for each series, those with a confirmed regression first, then other changes."""
    rows = [["series", "values", "median", "changes", "newest change", "trend"]]
    order = sorted(range(len(analyses)), key=lambda number: (_rank(analyses[number]), number))
    for number in order:
        analysis, unit = analyses[number], units[number]
        known = analysis.values[np.isfinite(analysis.values)]
        changes = analysis.change_points
        newest = changes[-1] if changes else None
        rows.append(
            [
                plain_line(analysis.name),
                f"{len(analysis.values):,}",
                f"{np.median(known):.4g} {unit}".strip() if len(known) else "–",
                str(len(changes)),
                f"{change_sentence(newest)}{_meaning(newest)}" if newest else "none",
                str(analysis.trend.label),
            ]
        )
    changed = sum(bool(each.change_points) for each in analyses)
    short = scarcity_text(sum(each.is_too_short for each in analyses), len(analyses), LEAST_POINTS)
    return [
        *aligned(rows),
        "",
        f"{changed} of {len(analyses)} series changed; name one with --column to see all of it",
        *([short] if short else []),
    ]


def _meaning(change: ChangePoint) -> str:
    return "" if change.impact is Impact.CHANGE else f", {change.impact}"


def _rank(analysis: Analysis) -> int:
    confirmed = [each for each in analysis.change_points if each.state is ChangeState.CONFIRMED]
    if any(each.impact is Impact.REGRESSION for each in confirmed):
        return 0
    return 1 if confirmed else 2 if analysis.change_points else 3
