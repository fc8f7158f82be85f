"""Where a series is best cut: the partition into levels and lines that costs least.

Exact optimal partitioning (Jackson et al., IEEE Signal Processing Letters 12, 2005) over candidate
positions: all of them in a short window, in a long one those where some scale sees a break, and a grid.
"""

import numpy as np

from dtf.core.trend.changes.arrays import Flags, Places, Vector
from dtf.core.trend.changes.segments import Sums
from dtf.core.trend.compiled import kernels, loaded_kernels

LEAST_SEGMENT = 5
"""Values that a segment has at least: fewer are an outlier's or an alarm's matter."""
ALL_UP_TO = 128
"""Positions up to which each is a candidate."""
MOST_CANDIDATES = 144
FEW_NEW = 0.3
"""Share of new places up to which the others' costs are kept."""
WORTH_A_SEARCH = 0.65
"""Share of a change's price that the best single cut at some scale saves at least where any partition pays."""
WORTH_A_PLACE = 0.25
"""The same of a place, for it to be a candidate."""
GRID = 32
"""Places that are candidates anyway."""
SCALES = (6, 12, 24, 48, 96, 192, 384)
"""Half widths at which candidates are looked for."""


class Search:
    """Partitions of one series under several prices."""

    __slots__ = ("_best", "_costs", "_gains", "_is_peak", "_kernels", "_most", "_places", "_sums")

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._kernels = kernels()
        self._gains = self._found_gains()
        self._best: Vector = self._gains.max(axis=0)
        self._most = float(self._best.max())
        self._is_peak: Flags | None = None
        self._places: Places = np.empty(0, dtype=np.int64)
        self._costs: Vector = np.empty((2, 0, 0))

    def best_partition(self, *, change_cost: float, slope_cost: float) -> list[int]:
        """Inner boundaries of the cheapest partition: each segment pays `change_cost`, each slope `slope_cost`."""
        if self._most < WORTH_A_SEARCH * change_cost:
            return []
        candidates = self._candidates(change_cost)
        if not len(candidates):
            return []
        places = np.concatenate([[0], candidates, [self._sums.length]]).astype(np.int64)
        if self._kernels is not None:
            sums = self._sums.prefix
            return _path(
                self._kernels.origins(sums, places, LEAST_SEGMENT, change_cost, slope_cost).tolist(), places
            )
        self._price(places)
        level, line = self._costs
        prices = line + slope_cost
        np.minimum(level, prices, out=prices)
        prices += change_cost
        return _path(_origins(prices), places)

    def _found_gains(self) -> Vector:
        if self._sums.length < 2 * LEAST_SEGMENT:
            return np.zeros((1, self._sums.length + 1))
        if self._kernels is None:
            return _scale_gains(self._sums)
        scales = np.array([scale for scale in SCALES if scale <= self._sums.length], dtype=np.int64)
        gains: Vector = self._kernels.scale_gains(self._sums.prefix, scales, LEAST_SEGMENT)
        return gains

    def _candidates(self, change_cost: float) -> Places:
        length = self._sums.length
        if length <= ALL_UP_TO:
            return np.arange(LEAST_SEGMENT, length - LEAST_SEGMENT + 1)
        places = self._likely(WORTH_A_PLACE * change_cost, max(1, length // GRID))
        return (
            places
            if len(places) <= MOST_CANDIDATES
            else places[_largest(self._best[places], MOST_CANDIDATES)]
        )

    def _likely(self, least_gain: float, step: int) -> Places:
        """Where some scale has a peak above this gain, and every so many places."""
        if self._kernels is not None:
            likely: Places = self._kernels.likely(self._gains, least_gain, step, LEAST_SEGMENT)
            return likely
        if self._is_peak is None:
            self._is_peak = _peaks(self._gains)
        chosen: Flags = np.any(self._is_peak & (self._gains > least_gain), axis=0)
        chosen[::step] = True
        return np.flatnonzero(chosen[LEAST_SEGMENT : self._sums.length - LEAST_SEGMENT + 1]) + LEAST_SEGMENT

    def _price(self, places: Places) -> None:
        """Costs of each segment between two places; those of places that were there before are kept, as most are."""
        if np.array_equal(places, self._places):
            return
        found = np.searchsorted(self._places, places)
        is_known = np.append(self._places, -1)[found] == places
        fresh = np.flatnonzero(~is_known)
        if len(fresh) > FEW_NEW * len(places):
            self._costs = self._sums.pairs(places, LEAST_SEGMENT)
        else:
            before = len(self._places)
            found = np.minimum(found, before - 1)
            cells = (found[:, None] * before + found).ravel()  # much faster than rows, then columns
            costs = self._costs.reshape(2, -1).take(cells, axis=1).reshape(2, len(places), len(places))
            rows = self._sums.pairs_with(places, fresh, LEAST_SEGMENT)
            costs[:, fresh] = rows
            costs[:, :, fresh] = rows.transpose(0, 2, 1)
            self._costs = costs
        self._places = places


def _largest(values: Vector, count: int) -> Flags:
    """Which of more than `count` values are the largest; of equal ones the first."""
    least = np.partition(values, len(values) - count)[len(values) - count]
    is_kept: Flags = values > least
    is_kept[np.flatnonzero(values == least)[: count - np.count_nonzero(is_kept)]] = True
    return is_kept


def profile(sums: Sums, start: int, end: int, slope_cost: float) -> Vector:
    """Cost of a stretch when it is cut at start + 1, start + 2 … end - 1."""
    compiled = loaded_kernels()
    if compiled is not None:
        costs: Vector = compiled.profile(sums.prefix, start, end, slope_cost)
        return costs
    left, right = sums.halves(start, end)
    plain: Vector = np.minimum(left[0], left[1] + slope_cost)
    plain += np.minimum(right[0], right[1] + slope_cost)
    return plain


def _scale_gains(sums: Sums) -> Vector:
    """For each scale and position: what cutting there saves in the stretch of that scale around it; shape (scales, n + 1)."""
    length = sums.length
    scales = [scale for scale in SCALES if scale <= length]
    gains = np.zeros((len(scales) + 1, length + 1))
    spans = sorted({*scales, *(2 * scale for scale in scales)})
    costs = dict(zip(spans, sums.sliding(spans, LEAST_SEGMENT), strict=True))
    count = length - 2 * LEAST_SEGMENT + 1
    inner = slice(LEAST_SEGMENT, LEAST_SEGMENT + count)
    for row, scale in zip(gains, scales, strict=False):
        saved = [
            whole[scale : scale + count] - half[:count] - half[scale : scale + count]
            for whole, half in zip(costs[2 * scale], costs[scale], strict=True)
        ]
        np.maximum(saved[0], saved[1], out=row[inner])
    at = slice(LEAST_SEGMENT - 1, LEAST_SEGMENT - 1 + count)
    saved = [
        cost - left[at] - right[at]
        for cost, left, right in zip(sums.cost(0, length), *sums.halves(0, length), strict=True)
    ]
    np.maximum(saved[0], saved[1], out=gains[-1, inner])
    return gains


def _peaks(gains: Vector) -> Flags:
    """Where a gain is above 0 and no neighbour's is higher; shape like gains'."""
    is_peak: Flags = np.zeros(gains.shape, dtype=np.bool_)
    inner = gains[:, 1:-1]
    is_peak[:, 1:-1] = (inner > 0.0) & (inner >= gains[:, :-2]) & (inner >= gains[:, 2:])
    return is_peak


def _origins(prices: Vector) -> list[int]:
    """For each place: the one before it on the cheapest path from the first; prices[b, a] is that of [a, b) for a before b."""
    count = len(prices)
    best = np.full(count, np.inf)
    best[0] = 0.0
    totals = np.empty(count)
    origin = [0] * count
    for end, row in enumerate(prices[1:], 1):  # what is not before `end` is not reached yet: infinite
        np.add(best, row, totals)
        origin[end] = cheapest = int(totals.argmin())
        best[end] = totals[cheapest]
    return origin


def _path(origin: list[int], places: Places) -> list[int]:
    """The inner places on the path to the last one."""
    path: list[int] = []
    place = origin[-1]
    while place > 0:
        path.append(int(places[place]))
        place = origin[place]
    return path[::-1]
