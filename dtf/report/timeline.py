"""The timeline as numbers ready to draw: time across, workers down, pool size and queue above."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2
from dtf.core.run.pool_summary import ScaleMark
from dtf.core.run.summary import FAILING, NANOS, Verdict
from dtf.report.axis import round_step, tick_text, ticks
from dtf.report.gather import RunReport
from dtf.report.lanes import DrawnBar, Lane, lay_out, shown
from dtf.report.wording import counted, seconds_text, verdict_word

WIDTH = 1000.0
LEFT = 92.0
RIGHT = 12.0
PANEL_HEIGHT = 64.0
PANEL_GAP = 26.0
LANE_GAP = 5.0
ROW_HEIGHT = 12.0
TOP = 22.0
FAILURE_WIDTH = 9.0
POINTS_LIMIT = 600
_NAME_CHARACTERS = 13


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A bar."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    """Class that says the verdict: passed, failed, …"""
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """A piece of text at a place."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity drawn as a line over the area of its panel."""

    path: str
    kind: str
    """desired or requested."""
    title: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A quantity over time."""

    y: float
    title: str
    path: str
    """Of an SVG path."""
    most: str
    """The value at its top, with its unit."""
    lines: Sequence[Line] = ()
    """Other quantities on the same scale."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A scale action; `number` is its place in the list below the timeline."""

    x: float
    number: int
    is_growth: bool
    title: str


@dataclass(slots=True)
class Timeline:
    """Everything the picture holds."""

    height: float = 0.0
    grid: list[Label] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    lanes: list[Label] = field(default_factory=list)
    bars: list[Rectangle] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    """Kinds of bars there are, for the legend."""
    omitted_lanes: int = 0
    panels_bottom: float = 0.0


class _Scale:
    """From instants to places across."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self._begin_ns = begin_ns
        self.span_ns = max(end_ns - begin_ns, 1_000_000)

    def x(self, at_ns: int) -> float:
        share = min(1.0, max(0.0, (at_ns - self._begin_ns) / self.span_ns))
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    @property
    def pixel_ns(self) -> float:
        return self.span_ns / (WIDTH - LEFT - RIGHT)


def draw_timeline(report: RunReport) -> Timeline:
    """The picture of a run."""
    run = report.run
    scale = _Scale(run.created_ns, run.finished_ns)
    timeline = Timeline()
    _draw_panels(timeline, report, scale)
    lanes, timeline.omitted_lanes = shown(lay_out(run.bars, scale.pixel_ns))
    bottom = timeline.panels_bottom + PANEL_GAP
    for lane in lanes:
        bottom = _draw_lane(timeline, lane, bottom, scale, run.created_ns)
    _draw_grid(timeline, scale)
    timeline.height = bottom + 4.0
    # Failures are drawn last and wide enough for their cross, so that none hides among its neighbours.
    timeline.bars.sort(key=lambda bar: bar.kind in ("failed", "error"))
    timeline.verdicts = list(dict.fromkeys(bar.kind for bar in timeline.bars))
    return timeline


def _draw_panels(timeline: Timeline, report: RunReport, scale: _Scale) -> None:
    run, end, pool = report.run, report.run.finished_ns, report.pool
    sizes: _Steps = [(point.at_ns, point.workers) for point in pool.sizes]
    queue: _Steps = [(point.at_ns, point.queued) for point in run.queue]
    backlog: _Steps = [(reading.at_ns, reading.backlog_seconds) for reading in pool.readings]
    wishes: dict[str, _Steps] = {
        "desired": [(reading.at_ns, reading.desired) for reading in pool.readings],
        "requested": [(reading.at_ns, reading.requested) for reading in pool.readings],
    }
    top = TOP
    for title, steps, over in (
        ("workers", sizes, wishes),
        ("queued tasks", queue, {}),
        ("backlog", backlog, {}),
    ):
        if not steps:
            continue
        drawn = {kind: line for kind, line in over.items() if line}
        most = max(1, *(value for line in (steps, *drawn.values()) for _, value in line))
        lines = [
            Line(_step_line(line, end, most, top, scale), kind, f"workers {kind}")
            for kind, line in drawn.items()
        ]
        text = seconds_text(most) if title == "backlog" else f"{most:g}"
        timeline.panels.append(Panel(top, title, _step_path(steps, end, most, top, scale), text, lines))
        top += PANEL_HEIGHT + PANEL_GAP
    timeline.panels_bottom = top - PANEL_GAP
    for number, mark in enumerate(report.pool.marks, 1):
        timeline.marks.append(Mark(scale.x(mark.at_ns), number, mark.change > 0, mark_text(mark)))


def mark_text(mark: ScaleMark) -> str:
    """ "scale out +2, to 4: backlog 48.1 s …"."""
    sign = "+" if mark.change > 0 else "−"
    return f"{mark.action} {sign}{abs(mark.change)}, to {mark.desired}: {mark.reason}"


_Steps = list[tuple[int, float]]
"""Instants, and the value that holds from each on."""


def _step_path(steps: _Steps, end_ns: int, most: float, top: float, scale: _Scale) -> str:
    """A filled staircase."""
    base = top + PANEL_HEIGHT
    stairs = _stairs(steps, most, base, scale)
    return f"M{scale.x(steps[0][0]):.1f} {base:.1f}{stairs}H{scale.x(end_ns):.1f}V{base:.1f}Z"


def _step_line(steps: _Steps, end_ns: int, most: float, top: float, scale: _Scale) -> str:
    """A staircase that is not filled."""
    base = top + PANEL_HEIGHT
    start = base - steps[0][1] / most * PANEL_HEIGHT
    return f"M{scale.x(steps[0][0]):.1f} {start:.1f}{_stairs(steps, most, base, scale)}H{scale.x(end_ns):.1f}"


def _stairs(steps: _Steps, most: float, base: float, scale: _Scale) -> str:
    """Thinned to the highest value of each stretch where they are finer than the picture."""
    stretch = max(1, len(steps) // POINTS_LIMIT)
    thinned = [
        (steps[index][0], max(value for _, value in steps[index : index + stretch]))
        for index in range(0, len(steps), stretch)
    ]
    return "".join(f"H{scale.x(at):.1f}V{base - value / most * PANEL_HEIGHT:.1f}" for at, value in thinned)


def _draw_lane(timeline: Timeline, lane: Lane, top: float, scale: _Scale, begin_ns: int) -> float:
    name = lane.worker_id
    short = name if len(name) <= _NAME_CHARACTERS else f"…{name[1 - _NAME_CHARACTERS :]}"
    timeline.lanes.append(Label(LEFT - 8, top + ROW_HEIGHT - 2.5, short))
    for row in lane.rows:
        for bar in row:
            timeline.bars.append(_rectangle(bar, lane, top, scale, begin_ns))
        top += ROW_HEIGHT + 1
    return top + LANE_GAP


def _rectangle(bar: DrawnBar, lane: Lane, top: float, scale: _Scale, begin_ns: int) -> Rectangle:
    x = scale.x(bar.began_ns)
    width = max(FAILURE_WIDTH if bar.verdict in FAILING else 0.8, scale.x(bar.ended_ns) - x)
    what = bar.name if bar.count == 1 else counted(bar.count, "case")
    began = seconds_text((bar.began_ns - begin_ns) / NANOS)
    took = seconds_text((bar.ended_ns - bar.began_ns) / NANOS)
    title = f"{what}: {_word(bar.verdict)}, {took} on {lane.worker_id}, from {began}"
    return Rectangle(x, top, width, ROW_HEIGHT, _kind(bar.verdict), title)


def _kind(verdict: Verdict) -> str:
    return "cut" if verdict == common_pb2.VERDICT_UNSPECIFIED else verdict_word(verdict)


def _word(verdict: Verdict) -> str:
    return "cut off" if verdict == common_pb2.VERDICT_UNSPECIFIED else verdict_word(verdict)


def _draw_grid(timeline: Timeline, scale: _Scale) -> None:
    seconds = scale.span_ns / NANOS
    step = round_step(seconds / 10)
    for value in ticks(seconds, 10):
        x = LEFT + value / seconds * (WIDTH - LEFT - RIGHT)
        timeline.grid.append(Label(x, 12.0, tick_text(value, step)))
