"""What a stretch of a series costs under a level and under a straight line.

A segment [i, j) is weighted least squares: the cost is the weighted sum of squared residuals. Prefix sums
make each cost a few additions, whatever the length, and let arrays of segments be priced at once.
"""

from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line fitted to a segment, and what its uncertainty needs."""

    centre: float
    """Weighted mean position."""
    level: float
    """At `centre`."""
    slope: float
    """A position."""
    weight: float
    spread: float
    """Weighted sum of squared distances from `centre`."""

    def at(self, position: float) -> float:
        return self.level + self.slope * (position - self.centre)

    def variance_at(self, position: float) -> float:
        """Of `at(position)`, in units of the noise's variance."""
        tilt = (position - self.centre) ** 2 / self.spread if self.spread > 0.0 else 0.0
        return 1.0 / self.weight + tilt

    def flat(self) -> "Line":
        """The same without its slope."""
        return Line(self.centre, self.level, 0.0, self.weight, float("inf"))


class Sums:
    """Prefix sums of a series without gaps; values near 0 and of scale 1 keep them exact enough."""

    __slots__ = ("_sums", "length", "stretch")

    def __init__(self, positions: Vector, values: Vector, weights: Vector) -> None:
        self.length = len(values)
        self.stretch = float(max(self.length, 1))
        x = positions / self.stretch
        terms = np.stack([weights, weights * x, weights * x * x, weights * values, weights * x * values])
        terms = np.concatenate([terms, (weights * values * values)[None, :]])
        self._sums = np.zeros((6, self.length + 1))
        np.cumsum(terms, axis=1, out=self._sums[:, 1:])

    def costs(self, starts: Places, ends: Places) -> tuple[Vector, Vector]:
        """Costs of segments as levels and as lines; a segment must not be empty."""
        return costs_of(self._sums[:, ends] - self._sums[:, starts])

    def around(self, reach: int, scale: int) -> tuple[Vector, Vector, Vector]:
        """Sums of the stretches [i - scale, i), [i, i + scale), cut off at the ends, and both, for reach <= i <= length - reach."""
        low, high = reach, self.length - reach + 1
        here = self._sums[:, low:high]
        before = np.zeros_like(here)
        behind = np.repeat(self._sums[:, -1:], here.shape[1], axis=1)
        if low + here.shape[1] > scale:
            first = max(scale - low, 0)
            before[:, first:] = self._sums[:, low + first - scale : high - scale]
            last = here.shape[1] - first
            behind[:, :last] = self._sums[:, low + scale : low + scale + last]
        return here - before, behind - here, behind - before

    def line(self, start: int, end: int) -> Line:
        """The line that fits segment [start, end) best."""
        w, x, xx, y, xy, _ = (float(term) for term in self._sums[:, end] - self._sums[:, start])
        spread = max(xx - x * x / w, 0.0)
        slope = (xy - x * y / w) / spread if spread > 1e-12 else 0.0
        return Line(x / w * self.stretch, y / w, slope / self.stretch, w, spread * self.stretch**2)


def costs_of(sums: Vector) -> tuple[Vector, Vector]:
    """Costs as levels and as lines of segments with these sums; shape (6, ...)."""
    w, x, xx, y, xy, yy = sums
    level = np.maximum(yy - y * y / w, 0.0)
    spread = np.maximum(xx - x * x / w, 1e-12)
    cross = xy - x * y / w
    return level, np.maximum(level - cross * cross / spread, 0.0)
