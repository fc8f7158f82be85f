"""Where a series is best cut: the partition into levels and lines that costs least.

Exact optimal partitioning (Jackson et al., IEEE Signal Processing Letters 12, 2005) over candidate
positions: all of them in a short window, in a long one those where some scale sees a break, and a grid.
"""

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.segments import Sums, costs_of

LEAST_SEGMENT = 5
"""Values that a segment has at least: fewer are an outlier's or an alarm's matter."""
ALL_UP_TO = 128
"""Positions up to which each is a candidate."""
MOST_CANDIDATES = 144
WORTH_A_SEARCH = 0.65
"""Share of a change's price that the best single cut at some scale saves at least where any partition pays."""
SCALES = (6, 12, 24, 48, 96, 192, 384)
"""Half widths at which candidates are looked for."""


class Search:
    """Partitions of one series under several prices."""

    __slots__ = ("_gains", "_sums")

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._gains = (
            _scale_gains(sums) if sums.length >= 2 * LEAST_SEGMENT else np.zeros((1, sums.length + 1))
        )

    def best_partition(self, *, change_cost: float, slope_cost: float) -> list[int]:
        """Inner boundaries of the cheapest partition: each segment pays `change_cost`, each slope `slope_cost`."""
        candidates = _candidates(self._gains, change_cost)
        if not len(candidates):
            return []
        places = np.concatenate([[0], candidates, [self._sums.length]]).astype(np.int64)
        prices = _prices(self._sums, places, slope_cost) + change_cost
        return _cheapest_path(prices, places)


def _candidates(gains: Vector, change_cost: float) -> Places:
    length = gains.shape[1] - 1
    best = gains.max(axis=0)
    if float(best.max()) < WORTH_A_SEARCH * change_cost:
        return np.empty(0, dtype=np.int64)
    inner = np.arange(LEAST_SEGMENT, length - LEAST_SEGMENT + 1)
    if length <= ALL_UP_TO:
        return inner
    chosen = np.zeros(length + 1, dtype=np.bool_)
    chosen[:: max(1, length // 32)] = True
    for row in gains:
        peaks = _peaks(row)
        chosen[peaks[row[peaks] > 0.25 * change_cost]] = True
    places = np.flatnonzero(chosen[inner]) + LEAST_SEGMENT
    if len(places) > MOST_CANDIDATES:
        places = np.sort(places[np.argsort(-best[places], kind="stable")[:MOST_CANDIDATES]])
    return places.astype(np.int64)


def _scale_gains(sums: Sums) -> Vector:
    """For each scale and position: what cutting there saves in the stretch of that scale around it; shape (scales, n + 1)."""
    length = sums.length
    scales = [scale for scale in (*SCALES, length) if scale <= length]
    gains = np.zeros((len(scales), length + 1))
    for row, scale in zip(gains, scales, strict=True):
        parts = [costs_of(part) for part in sums.around(LEAST_SEGMENT, scale)]
        (left_level, left_line), (right_level, right_line), (whole_level, whole_line) = parts
        row[LEAST_SEGMENT : length - LEAST_SEGMENT + 1] = np.maximum(
            whole_level - left_level - right_level, whole_line - left_line - right_line
        )
    return gains


def _peaks(row: Vector) -> Places:
    inner = row[1:-1]
    is_peak = (inner > 0.0) & (inner >= row[:-2]) & (inner >= row[2:])
    return (np.flatnonzero(is_peak) + 1).astype(np.int64)


def _prices(sums: Sums, places: Places, slope_cost: float) -> Vector:
    """Price of each segment between two places, infinite where it is too short; shape (places, places)."""
    count = len(places)
    first, second = np.triu_indices(count, 1)
    is_long = places[second] - places[first] >= LEAST_SEGMENT
    first, second = first[is_long], second[is_long]
    level, line = sums.costs(places[first], places[second])
    prices = np.full((count, count), np.inf)
    prices[second, first] = np.minimum(level, line + slope_cost)
    return prices


def _cheapest_path(prices: Vector, places: Places) -> list[int]:
    """Inner places of the cheapest path from the first to the last; prices[b, a] is that of [a, b)."""
    count = len(places)
    best = np.full(count, np.inf)
    best[0] = 0.0
    origin = [0] * count
    for end in range(1, count):
        totals = best[:end] + prices[end, :end]
        origin[end] = int(totals.argmin())
        best[end] = totals[origin[end]]
    path: list[int] = []
    place = origin[count - 1]
    while place > 0:
        path.append(int(places[place]))
        place = origin[place]
    return path[::-1]
