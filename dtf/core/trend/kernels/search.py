"""The same arithmetic as in `changes.search`, `changes.segments`, `changes.settling` and `changes.evidence`."""

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.kernels.jit import compiled


@compiled
def origins(sums: Vector, places: Places, least: int, change_cost: float, slope_cost: float) -> Places:
    """For each of the rising places: the index of the one before it on the cheapest path from the first.

    `sums` are prefix sums, shape (6, n + 1). A segment between two places costs `change_cost` and what a level or, at
    `slope_cost`, a line leaves; none is shorter than `least`.
    """
    count = len(places)
    at = np.empty((6, count))
    for row in range(6):
        for column in range(count):
            at[row, column] = sums[row, places[column]]
    best, totals = np.empty(count), np.empty(count)
    best[0] = 0.0
    origin = np.zeros(count, dtype=np.int64)
    starts = 0
    for end in range(1, count):
        while places[end] - places[starts] >= least:
            starts += 1
        w1, x1, xx1 = at[0, end], at[1, end], at[2, end]
        y1, xy1, yy1 = at[3, end], at[4, end], at[5, end]
        for start in range(starts):
            w, x, y = w1 - at[0, start], x1 - at[1, start], y1 - at[3, start]
            level = max((yy1 - at[5, start]) - y * y / w, 0.0)
            cross = (xy1 - at[4, start]) - x * y / w
            spread = max((xx1 - at[2, start]) - x * x / w, 1e-12)
            line = max(level - cross * cross / spread, 0.0)
            totals[start] = best[start] + (min(level, line + slope_cost) + change_cost)
        cheapest = np.inf
        for start in range(starts):
            if totals[start] < cheapest:
                cheapest, origin[end] = totals[start], start
        best[end] = cheapest
    return origin


@compiled
def stretches(sums: Vector, length: int, first: int, costs: Vector) -> None:
    """Fills in the costs, as levels and as lines, of stretches [a, a + length) from a = first on, cut off at the ends."""
    most = sums.shape[1] - 1
    for at in range(costs.shape[1]):
        start, end = max(first + at, 0), min(first + at + length, most)
        w, x, y = sums[0, end] - sums[0, start], sums[1, end] - sums[1, start], sums[3, end] - sums[3, start]
        level = max((sums[5, end] - sums[5, start]) - y * y / w, 0.0)
        cross = (sums[4, end] - sums[4, start]) - x * y / w
        spread = max((sums[2, end] - sums[2, start]) - x * x / w, 1e-12)
        costs[0, at] = level
        costs[1, at] = max(level - cross * cross / spread, 0.0)


@compiled
def profile(sums: Vector, start: int, end: int, slope_cost: float) -> Vector:
    """Cost of the stretch when it is cut at start + 1, start + 2 … end - 1."""
    costs = np.empty(end - start - 1)
    for cut in range(start + 1, end):
        w, x, y = sums[0, cut] - sums[0, start], sums[1, cut] - sums[1, start], sums[3, cut] - sums[3, start]
        level = max((sums[5, cut] - sums[5, start]) - y * y / w, 0.0)
        cross = (sums[4, cut] - sums[4, start]) - x * y / w
        spread = max((sums[2, cut] - sums[2, start]) - x * x / w, 1e-12)
        left = min(level, max(level - cross * cross / spread, 0.0) + slope_cost)
        w, x, y = sums[0, end] - sums[0, cut], sums[1, end] - sums[1, cut], sums[3, end] - sums[3, cut]
        level = max((sums[5, end] - sums[5, cut]) - y * y / w, 0.0)
        cross = (sums[4, end] - sums[4, cut]) - x * y / w
        spread = max((sums[2, end] - sums[2, cut]) - x * x / w, 1e-12)
        costs[cut - start - 1] = left + min(level, max(level - cross * cross / spread, 0.0) + slope_cost)
    return costs


@compiled
def scale_gains(sums: Vector, scales: Places, least: int) -> Vector:
    """What cutting at a place saves in the stretch of each scale around it, and, last, in all; shape (scales + 1, n + 1)."""
    length = sums.shape[1] - 1
    gains = np.zeros((len(scales) + 1, length + 1))
    count = length - 2 * least + 1
    halves, wholes = np.empty((2, 0)), np.empty((2, 0))
    for row in range(len(scales)):
        scale = scales[row]
        halves = wholes  # scales double
        if row == 0:
            halves = np.empty((2, count + scale))
            stretches(sums, scale, least - scale, halves)
        wholes = np.empty((2, count + 2 * scale))
        stretches(sums, 2 * scale, least - 2 * scale, wholes)
        for at in range(count):
            level = wholes[0, scale + at] - halves[0, at] - halves[0, scale + at]
            line = wholes[1, scale + at] - halves[1, at] - halves[1, scale + at]
            gains[row, least + at] = max(level, line)
    whole, left, right = np.empty((2, 1)), np.empty((2, length)), np.empty((2, length))
    stretches(sums, length, 0, whole)
    stretches(sums, length, least - length, left[:, :count])
    stretches(sums, length, least, right[:, :count])
    for at in range(count):
        level = whole[0, 0] - left[0, at] - right[0, at]
        line = whole[1, 0] - left[1, at] - right[1, at]
        gains[len(scales), least + at] = max(level, line)
    return gains


@compiled
def prefix(positions: Vector, values: Vector, weights: Vector, stretch: float) -> Vector:
    """Sums of w, wx, wxx, wy, wxy and wyy up to each place, positions over `stretch`; shape (6, n + 1)."""
    sums = np.zeros((6, len(values) + 1))
    for at in range(len(values)):
        x, value = positions[at] / stretch, values[at]
        weighed, weighed_value = weights[at] * x, weights[at] * value
        sums[0, at + 1] = sums[0, at] + weights[at]
        sums[1, at + 1] = sums[1, at] + weighed
        sums[2, at + 1] = sums[2, at] + weighed * x
        sums[3, at + 1] = sums[3, at] + weighed_value
        sums[4, at + 1] = sums[4, at] + weighed * value
        sums[5, at + 1] = sums[5, at] + weighed_value * value
    return sums


@compiled
def likely(gains: Vector, least_gain: float, step: int, least: int) -> Places:
    """Places, `least` from the ends, at which some row of gains has a peak above `least_gain`, and every step-th."""
    length = gains.shape[1] - 1
    is_likely = np.zeros(length + 1, dtype=np.bool_)
    is_likely[::step] = True
    for row in range(gains.shape[0]):
        here = gains[row]
        for at in range(1, length):
            gain = here[at]
            is_peak = (gain > least_gain) & (gain > 0.0) & (gain >= here[at - 1]) & (gain >= here[at + 1])
            is_likely[at] |= is_peak
    places = np.empty(length + 1, dtype=np.int64)
    count = 0
    for at in range(least, length - least + 1):
        places[count] = at
        count += is_likely[at]
    return places[:count]


@compiled
def residuals(
    values: Vector, weights: Vector, sums: Vector, stretch: float, edges: Places, slope_cost: float
) -> tuple[Vector, int]:
    """Weighted residuals of the partition with these edges, and how many parameters it has."""
    left = np.empty(len(values))
    parameters = -1
    for part in range(len(edges) - 1):
        start, end = edges[part], edges[part + 1]
        w, x, y = sums[0, end] - sums[0, start], sums[1, end] - sums[1, start], sums[3, end] - sums[3, start]
        xx, xy = sums[2, end] - sums[2, start], sums[4, end] - sums[4, start]
        flat = max((sums[5, end] - sums[5, start]) - y * y / w, 0.0)
        cross, spread = xy - x * y / w, xx - x * x / w
        straight = max(flat - cross * cross / max(spread, 1e-12), 0.0)
        centre, level, slope = x / w * stretch, y / w, 0.0
        parameters += 2
        if straight + slope_cost < flat:
            parameters += 1
            slope = (cross / spread if spread > 1e-12 else 0.0) / stretch
        for at in range(start, end):
            left[at] = (values[at] - level - slope * (at - centre)) * np.sqrt(weights[at])
    return left, parameters


@compiled
def spread_bound(squares: Vector, least: int) -> float:
    """No less than twice the log likelihood ratio of two spreads and one, cut anywhere `least` from the ends; no logarithms.

    -ln y is no more than 1 / y - 1.
    """
    count = len(squares)
    sums = np.cumsum(squares)
    total = sums[-1]
    floor = max(total / count * 1e-6, 1e-300)
    whole = max(total / count, floor)
    most = 0.0
    for cut in range(least, count - least + 1):
        left = max(sums[cut - 1] / cut, floor)
        right = max((total - sums[cut - 1]) / (count - cut), floor)
        most = max(most, cut * (whole / left - 1.0) + (count - cut) * (whole / right - 1.0))
    return most
