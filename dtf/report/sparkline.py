"""A case's newest durations as a small line."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 120.0
HEIGHT = 22.0
_MARGIN = 3.0


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Points of an SVG polyline, and where its last value is; `label` says it in words."""

    points: str
    last_x: float
    last_y: float
    label: str


def draw_sparkline(values: Sequence[float], label: str) -> Sparkline | None:
    """The line through `values`, oldest first; None if there are fewer than two."""
    if len(values) < 2:
        return None
    most = max(values) or 1.0
    step = (WIDTH - 2 * _MARGIN) / (len(values) - 1)
    places = [
        (_MARGIN + index * step, HEIGHT - _MARGIN - value / most * (HEIGHT - 2 * _MARGIN))
        for index, value in enumerate(values)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return Sparkline(points, places[-1][0], places[-1][1], label)
