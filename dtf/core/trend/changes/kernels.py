"""The same arithmetic as in `search`, `evidence` and `waves`, compiled by numba: to the last bit what numpy gives.

Imported by `compiled.kernels` alone, which knows whether numba is there and worth its time.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compiled at its first call; kept beside this file, in the user's cache where that is read-only, or not at all."""
    try:
        return cast(Function, numba.njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither folder can be written to
        return cast(Function, numba.njit(error_model="numpy")(function))


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
def scores(
    positions: Places,
    deviations: Vector,
    weights: Vector,
    line: tuple[float, float, float, float],
    errors: Vector,
    limits: tuple[float, float, float],
    plausible_far: Vector,
    few: int,
    quantile: float,
) -> Vector:
    """Distance of the newest k values from the regime's line at each position, in standard errors over `quantile`; shape (k, values).

    `line` is its centre, weight and spread, and the long-run variance; `errors` the variance of k values' sum over k
    variances. Of `limits`, the first is that of values in the mean of many, the second that in the mean of up to `few`,
    and values beyond the third are left out where no more than `plausible_far` of the newest k are.
    """
    reach, count = len(errors), len(deviations)
    centre, weight, spread, long_run = line
    limit, short_limit, far_at = limits
    found = np.zeros((reach, count))
    for at in range(count):
        total = near_total = short_total = share = near_share = far = 0.0
        for k in range(min(reach, at + 1)):
            deviation, weighs = deviations[at - k], weights[at - k]
            limited = min(max(deviation, -limit), limit) * weighs
            total += limited
            share += weighs
            if abs(deviation) > far_at:
                far += 1.0
            else:
                near_total += limited
                near_share += weighs
            short_total += min(max(deviation, -short_limit), short_limit) * weighs
            mean, size = (near_total, near_share) if far <= plausible_far[k] else (total, share)
            if k < few:
                mean, size = short_total, share
            size = max(size, 1e-12)
            off = positions[at] - k / 2.0 - centre
            error = errors[k] / size + long_run * (1.0 / weight + off * off / spread)
            found[k, at] = abs(mean / size / np.sqrt(error) / quantile)
    return found


@compiled
def turned(waves: Vector, turns: Vector) -> None:
    """Fills in waves, shape (2, periods, count), whose first position is there, by doubling; turns: (2, doublings, periods)."""
    count = waves.shape[2]
    done, doubling = 1, 0
    while done < count:
        for period in range(waves.shape[1]):
            turn_cos, turn_sin = turns[0, doubling, period], turns[1, doubling, period]
            for at in range(min(done, count - done)):
                cosine, sine = waves[0, period, at], waves[1, period, at]
                waves[0, period, done + at] = cosine * turn_cos - sine * turn_sin
                waves[1, period, done + at] = cosine * turn_sin + sine * turn_cos
        done, doubling = 2 * done, doubling + 1
