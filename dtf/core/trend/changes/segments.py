"""What a stretch of a series costs under a level and under a straight line.

A segment [i, j) is weighted least squares: the cost is the weighted sum of squared residuals. Prefix sums
make each cost a few additions, whatever the length, and let arrays of segments be priced at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.noise import added
from dtf.core.trend.compiled import loaded_kernels

BLOCK = 48
"""Rows of a table of segments that are priced at once."""


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
        compiled = loaded_kernels()
        if compiled is not None:
            self._sums: Vector = compiled.prefix(positions, values, weights, self.stretch)
            return
        x = positions / self.stretch
        wx, wy = weights * x, weights * values
        terms = np.array([weights, wx, wx * x, wy, wx * values, wy * values])
        self._sums = np.zeros((6, self.length + 1))
        np.cumsum(terms, axis=1, out=self._sums[:, 1:])

    @property
    def prefix(self) -> Vector:
        """The sums of w, wx, wxx, wy, wxy and wyy up to each place, positions over `stretch`; shape (6, length + 1)."""
        return self._sums

    def cost(self, start: int, end: int) -> tuple[float, float]:
        """Costs of one segment as a level and as a line."""
        w, x, xx, y, xy, yy = self.between(start, end)
        level = max(yy - y * y / w, 0.0)
        cross = xy - x * y / w
        return level, max(level - cross * cross / max(xx - x * x / w, 1e-12), 0.0)

    def halves(self, start: int, end: int) -> tuple[tuple[Vector, Vector], tuple[Vector, Vector]]:
        """Costs of [start, i) and of [i, end), for start < i < end."""
        at = self._sums[:, start + 1 : end]
        return costs_of(at - self._sums[:, start : start + 1]), costs_of(self._sums[:, end : end + 1] - at)

    def pairs(self, places: Places, least: int) -> Vector:
        """Costs as a level and as a line of each segment between two rising places; shape (2, places, places).

        At [:, b, a] and at [:, a, b] that of [places[a], places[b]), infinite where shorter than `least`. In
        blocks of rows, since what stays in the processor's cache is several times faster.
        """
        count = len(places)
        at = self._sums[:, places]
        table: Vector = np.empty((2, count, count))
        work = np.empty(6 * BLOCK * count)
        for first in range(0, count, BLOCK):
            last = min(first + BLOCK, count)
            differences = work[: 6 * (last - first) * last].reshape(6, last - first, last)
            np.subtract(at[:, first:last, None], at[:, None, :last], out=differences)
            near = max(first - least + 1, 0)  # places before are not short of any of these
            is_short = places[first:last, None] - places[None, near:last] < least
            np.copyto(differences[0, :, near:], 1.0, where=is_short)
            for whole, part in zip(table, costs_of(differences), strict=True):
                np.copyto(part[:, near:], np.inf, where=is_short)
                whole[first:last, :last] = part
                whole[:first, first:last] = part[:, :first].T
        return table

    def pairs_with(self, places: Places, chosen: Places, least: int) -> Vector:
        """The rows of `pairs` that belong to places[chosen]; shape (2, chosen, places)."""
        ends = self._sums[:, places[chosen], None]
        differences = ends - self._sums[:, None, places]
        np.copyto(differences, -differences, where=np.arange(len(places)) > chosen[:, None])
        is_short = np.abs(places[chosen, None] - places) < least
        np.copyto(differences[0], 1.0, where=is_short)
        rows = np.array(costs_of(differences))
        np.copyto(rows, np.inf, where=is_short)
        return rows

    def sliding(self, lengths: Sequence[int], reach: int) -> list[tuple[Vector, Vector]]:
        """For each length l: costs of the stretches [a, a + l), cut off at the ends, for reach - l <= a <= length - reach."""
        most = max(lengths)
        padded = np.empty((6, self.length + 1 + 2 * most))
        padded[:, :most] = 0.0
        padded[:, most : most + self.length + 1] = self._sums
        padded[:, most + self.length + 1 :] = self._sums[:, -1:]
        counts = [self.length - 2 * reach + 1 + length for length in lengths]
        differences = np.empty((6, sum(counts)))
        begin = 0
        for length, count in zip(lengths, counts, strict=True):
            first = most + reach - length
            np.subtract(
                padded[:, first + length : first + length + count],
                padded[:, first : first + count],
                out=differences[:, begin : begin + count],
            )
            begin += count
        level, line = costs_of(differences)
        ends = list(accumulate(counts))
        return [
            (level[end - count : end], line[end - count : end])
            for end, count in zip(ends, counts, strict=True)
        ]

    def between(self, start: int, end: int) -> list[float]:
        """The six sums of segment [start, end): of w, wx, wxx, wy, wxy and wyy, positions over `stretch`."""
        sums: list[float] = (self._sums[:, end] - self._sums[:, start]).tolist()
        return sums

    def line(self, start: int, end: int) -> Line:
        """The line that fits segment [start, end) best."""
        w, x, xx, y, xy, _ = self.between(start, end)
        return _line_of(w, x, xx, y, xy, self.stretch)


def line_through(positions: Vector, values: Vector, weights: Vector) -> Line:
    """The line that fits all of these best; positions near 0."""
    stretch = float(len(values))
    x = positions / stretch
    wx = weights * x
    return _line_of(
        added(weights), added(wx), added(wx * x), added(weights * values), added(wx * values), stretch
    )


def _line_of(w: float, x: float, xx: float, y: float, xy: float, stretch: float) -> Line:
    spread = max(xx - x * x / w, 0.0)
    slope = (xy - x * y / w) / spread if spread > 1e-12 else 0.0
    return Line(x / w * stretch, y / w, slope / stretch, w, spread * (stretch * stretch))


def costs_of(sums: Vector) -> tuple[Vector, Vector]:
    """Costs as levels and as lines of segments with these sums, shape (6, ...), which are used up."""
    w, x, xx, y, xy, level = sums
    term = y * y
    term /= w
    level -= term
    np.maximum(level, 0.0, out=level)
    y *= x
    y /= w
    xy -= y
    x *= x
    x /= w
    xx -= x
    np.maximum(xx, 1e-12, out=xx)
    xy *= xy
    xy /= xx
    np.subtract(level, xy, out=xy)
    np.maximum(xy, 0.0, out=xy)
    return level, xy
