"""The same arithmetic as in `changes.watch`."""

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.kernels.jit import compiled


@compiled
def is_calm(
    positions: Places,
    values: Vector,
    weights: Vector,
    line: tuple[float, float, float, float, float],
    bounds: Vector,
    fresh: int,
    limits: tuple[float, float, int],
) -> bool:
    """Whether no score of the `fresh` newest values can count: sums of the newest k stay below the k-th bound.

    `line` is the regime's centre, level, slope, standard deviation and unit of weights; only for weights of that unit.
    """
    count = len(values)
    centre, level, slope, sigma, unit = line
    limit, far_at, few = limits
    sums, limited = np.empty(count + 1), np.empty(count + 1)
    sums[0] = limited[0] = size = 0.0
    for at in range(count):
        if weights[at] != unit:
            return False
        deviation = (values[at] - level - slope * (positions[at] - centre)) / sigma
        size = max(size, abs(deviation))
        sums[at + 1] = sums[at] + deviation
        limited[at + 1] = limited[at] + min(max(deviation, -limit), limit)
    if size > far_at:
        return False
    reach = len(bounds)
    for end in range(count - fresh + 1, count + 1):
        if size > limit:
            for k in range(1, min(few, end) + 1):
                if abs(sums[end] - sums[end - k]) >= bounds[k - 1]:
                    return False
        for k in range(1, min(reach, end) + 1):
            if abs(limited[end] - limited[end - k]) >= bounds[k - 1]:
                return False
    return True


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
