"""A series with its regimes and findings, drawn: as text for a terminal, as SVG, as PNG."""

import html
import importlib
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dtf.core.trend.findings import Anomaly, ChangeKind, ChangePoint, ChangeState
from dtf.trends.inputs import LARGEST
from dtf.trends.moments import Floats, as_text
from dtf.trends.regimes import bounds, levels
from dtf.trends.wording import change_sentence

WIDTH, HEIGHT = 960, 360
LEFT, RIGHT, TOP, BOTTOM = 78, 24, 46, 54
VALUES_COLOR, LEVEL_COLOR, CHANGE_COLOR, ANOMALY_COLOR = "#5b7ba8", "#111111", "#d55e00", "#cc2a7a"
MOST_DRAWN = 4_000
"""Values drawn one by one; of more, the least and the greatest of each column are."""
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a braille character, from the top."""
NOT_DRAWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Characters of other people's names that XML forbids, or that change how a line is read."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is drawn."""

    title: str
    values: Floats
    """Shape (n,); NaN: missing."""
    times: Floats
    """Shape (n,)."""
    has_dates: bool
    changes: Sequence[ChangePoint]
    anomalies: Sequence[Anomaly] = ()
    unit: str = ""


def plot_lines(picture: Picture, width: int = 78, height: int = 14) -> list[str]:
    """Text in so many columns and lines, and a line of marks: ▲ a change, △ a provisional one, × an anomaly."""
    low, high = value_range(picture.values)
    labels = [f"{high:.5g}", f"{(low + high) / 2:.5g}", f"{low:.5g}"]
    margin = max(len(label) for label in labels) + 1
    columns = max(16, width - margin - 1)
    rows = _dots(picture.values, columns, height, low, high)
    shown = {0: labels[0], height // 2: labels[1], height - 1: labels[2]}
    lines = [f"{shown.get(number, ''):>{margin}}┤{row}".rstrip() for number, row in enumerate(rows)]
    marks = _marks(picture, columns)
    if marks.strip():
        lines.append(f"{'':>{margin}} {marks}".rstrip())
    lines.append(f"{'':>{margin}} {_ends(picture, columns)}")
    return lines


def value_range(values: Floats) -> tuple[float, float]:
    """Least and greatest value, a little apart."""
    known = np.clip(values[np.isfinite(values)], -LARGEST, LARGEST)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    spread = (high - low) or abs(high) * 0.1 or 1.0
    return (low, high) if high > low else (low - spread / 2, high + spread / 2)


def _dots(values: Floats, columns: int, height: int, low: float, high: float) -> list[str]:
    grid = np.zeros((height, columns), dtype=np.int64)
    known = np.flatnonzero(np.isfinite(values))
    across = (known * (2 * columns - 1) / max(1, len(values) - 1)).astype(int)
    down = (
        ((high - np.clip(values[known], -LARGEST, LARGEST)) / (high - low) * (4 * height - 1))
        .round()
        .astype(int)
    )
    for x, y in zip(across.tolist(), down.tolist(), strict=True):
        grid[y // 4, x // 2] |= BRAILLE[y % 4][x % 2]
    return ["".join(chr(0x2800 + int(cell)) if cell else " " for cell in row) for row in grid]


def _marks(picture: Picture, columns: int) -> str:
    row = [" "] * columns
    last = max(1, len(picture.values) - 1)
    for anomaly in picture.anomalies:
        row[min(columns - 1, int(anomaly.index * columns / last))] = "×"
    for change in picture.changes:
        mark = "▲" if change.state is ChangeState.CONFIRMED else "△"
        row[min(columns - 1, int(change.index * columns / last))] = mark
    return "".join(row)


def _ends(picture: Picture, columns: int) -> str:
    if not len(picture.times):
        return "no values"
    first, last = (_moment_text(picture, float(picture.times[at])) for at in (0, -1))
    return first + last.rjust(max(1, columns - len(first)))


def _moment_text(picture: Picture, moment: float) -> str:
    return as_text(moment) if picture.has_dates else f"{moment:.10g}"


def draw_svg(picture: Picture) -> str:
    """An SVG of WIDTH by HEIGHT units: values, the level of each regime, change points with their intervals."""
    low, high = value_range(picture.values)
    x, y = _scale(len(picture.values), LEFT, WIDTH - RIGHT), _value_scale(low, high)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" role="img">',
        f"<title>{_escaped(picture.title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{_escaped(picture.title)}</text>',
        *_value_axis(low, high, y, picture.unit),
        *_time_axis(picture, x),
        *_change_marks(picture, x),
        *_value_marks(picture, x, y),
        *_level_lines(picture, x, y),
        *_anomaly_marks(picture, x, y),
        "</svg>",
    ]
    return "\n".join(parts)


def _drawable(text: str) -> str:
    return NOT_DRAWN.sub("\N{REPLACEMENT CHARACTER}", text)


def _escaped(text: str) -> str:
    return html.escape(_drawable(text))


Scale = Callable[[float], float]


def _scale(count: int, left: float, right: float) -> Scale:
    return lambda position: left + (position + 0.5) / max(1, count) * (right - left)


def _value_scale(low: float, high: float) -> Scale:
    room = (high - low) * 0.05
    bottom, top = HEIGHT - BOTTOM, TOP
    return lambda value: bottom - (value - low + room) / (high - low + 2 * room) * (bottom - top)


def _value_axis(low: float, high: float, y: Scale, unit: str) -> list[str]:
    step = _round_step((high - low) / 5)
    parts = []
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        value = number * step
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e4e4e4"/>'
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.6g}</text>'
        )
    if unit:
        parts.append(f'<text x="{LEFT - 8}" y="{TOP - 10}" text-anchor="end">{_escaped(unit)}</text>')
    return parts


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _time_axis(picture: Picture, x: Scale) -> list[str]:
    count = len(picture.values)
    places = sorted({round(number * (count - 1) / 4) for number in range(5)}) if count else []
    return [
        f'<text x="{x(at):.1f}" y="{HEIGHT - BOTTOM + 20}" '
        f'text-anchor="{"start" if at == 0 else "end" if at == count - 1 else "middle"}">'
        f"{_moment_text(picture, float(picture.times[at]))}</text>"
        for at in places
    ]


def _change_marks(picture: Picture, x: Scale) -> list[str]:
    parts = []
    for change in picture.changes:
        left, right, at = x(change.first_index - 0.5), x(change.last_index + 0.5), x(change.index - 0.5)
        dash = "" if change.state is ChangeState.CONFIRMED else ' stroke-dasharray="5 4"'
        parts.append(
            f"<g><title>{html.escape(change_sentence(change))}</title>"
            f'<rect x="{left:.1f}" width="{max(1.0, right - left):.1f}" y="{TOP}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="{CHANGE_COLOR}" opacity="0.12"/>'
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="{CHANGE_COLOR}" '
            f'stroke-width="1.5"{dash}/>'
            f'<text x="{at + 4:.1f}" y="{TOP + 12}" fill="{CHANGE_COLOR}">{html.escape(_label(change))}</text></g>'
        )
    return parts


def _label(change: ChangePoint) -> str:
    if change.kind is ChangeKind.VARIANCE:
        return "spread"
    relative = change.effect.relative
    return f"{100 * relative:+.3g} %" if math.isfinite(relative) else f"{change.effect.absolute:+.3g}"


def _value_marks(picture: Picture, x: Scale, y: Scale) -> list[str]:
    values = picture.values
    known = np.flatnonzero(np.isfinite(values))
    if len(known) > MOST_DRAWN:
        known = _extremes(values, known)
    radius = 2.4 if len(known) <= 400 else 1.4
    return [
        f'<circle cx="{x(float(at)):.1f}" cy="{y(float(values[at])):.1f}" r="{radius}" fill="{VALUES_COLOR}"/>'
        for at in known.tolist()
    ]


def _extremes(values: Floats, known: Any) -> Any:
    pieces = np.array_split(known, MOST_DRAWN // 2)
    kept = {int(piece[pick(values[piece])]) for piece in pieces for pick in (np.argmin, np.argmax)}
    return np.asarray(sorted(kept))


def _level_lines(picture: Picture, x: Scale, y: Scale) -> list[str]:
    level = levels(picture.values, picture.changes)
    return [
        f'<line x1="{x(start - 0.5):.1f}" y1="{y(float(level[start])):.1f}" x2="{x(end - 0.5):.1f}" '
        f'y2="{y(float(level[end - 1])):.1f}" stroke="{LEVEL_COLOR}" stroke-width="2"/>'
        for start, end, _ in bounds(len(picture.values), picture.changes)
        if np.isfinite(level[start])
    ]


def _anomaly_marks(picture: Picture, x: Scale, y: Scale) -> list[str]:
    return [
        f'<circle cx="{x(float(at)):.1f}" cy="{y(float(picture.values[at])):.1f}" r="6" fill="none" '
        f'stroke="{ANOMALY_COLOR}" stroke-width="1.6"><title>score {anomaly.score:.4f}</title></circle>'
        for anomaly in picture.anomalies
        for at in range(anomaly.index, anomaly.end_index)
        if np.isfinite(picture.values[at])
    ]


class PlotUnavailable(ValueError):
    """A PNG was asked for and matplotlib is not installed."""


def draw_png(picture: Picture) -> bytes:
    """The same as a PNG. Raises PlotUnavailable without matplotlib (`pip install 'dtf[plot]'`)."""
    try:
        figures = importlib.import_module("matplotlib.figure")
        canvases = importlib.import_module("matplotlib.backends.backend_agg")
    except ImportError:
        raise PlotUnavailable("a PNG needs matplotlib: pip install 'dtf[plot]', or ask for .svg") from None
    figure: Any = figures.Figure(figsize=(11, 4.2), layout="constrained")
    canvases.FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    _draw_axes(axes, picture)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_axes(axes: Any, picture: Picture) -> None:
    positions = np.arange(len(picture.values))
    axes.plot(positions, picture.values, ".", color=VALUES_COLOR, markersize=4)
    level = levels(picture.values, picture.changes)
    for start, end, _ in bounds(len(picture.values), picture.changes):
        axes.plot([start - 0.5, end - 0.5], [level[start], level[end - 1]], color=LEVEL_COLOR)
    for change in picture.changes:
        style = "-" if change.state is ChangeState.CONFIRMED else "--"
        axes.axvspan(change.first_index - 0.5, change.last_index + 0.5, color=CHANGE_COLOR, alpha=0.12)
        axes.axvline(change.index - 0.5, color=CHANGE_COLOR, linestyle=style)
        axes.annotate(
            _label(change), (change.index, 0.96), xycoords=("data", "axes fraction"), color=CHANGE_COLOR
        )
    odd = [at for each in picture.anomalies for at in range(each.index, each.end_index)]
    axes.plot(odd, picture.values[odd], "o", markerfacecolor="none", markeredgecolor=ANOMALY_COLOR)
    places = (
        sorted({round(number * (len(positions) - 1) / 4) for number in range(5)}) if len(positions) else []
    )
    axes.set_xticks(places, [_moment_text(picture, float(picture.times[at])) for at in places])
    axes.set_ylabel(_drawable(picture.unit), parse_math=False)
    axes.set_title(_drawable(picture.title), parse_math=False)
