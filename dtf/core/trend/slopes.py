"""Where the newest regime of a series is going, and whether that is more than its noise wanders.

The slope is Theil's and Sen's: the median of the slopes of all pairs (Theil 1950; Sen 1968), which a third
of odd values cannot move. Its interval comes from Kendall's S, whose variance ties lower and memory raises;
for memory it is multiplied as Hamed and Rao (Journal of Hydrology 204, 1998) do, with the autocorrelation of
the ranks of what the line leaves. Of noise with a memory .5 the plain interval would be twice too narrow.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtf.core.trend.findings import Interval, Trend, TrendLabel

Vector = NDArray[np.float64]

LEAST_VALUES = 8
"""Below it no slope can be told from noise at 95 % if the values remember each other at all."""
LOOKED_AT = 600
"""Points of which all pairs are taken; a longer regime is summed up in so many medians of neighbours."""
LEAST_CHANGE_RATIO = 0.02
"""A change over the regime that is a smaller share of its level is none: a slope that matters to nobody."""
LEAST_CHANGE_SIGMA = 0.5
"""Nor is one that is a smaller part of the noise."""
VOLATILE_RATIO = 0.25
"""Noise of a larger share of the level hides what a user would care for."""
LARGEST_MEMORY_LAGS = 30
NORMAL_95 = 1.959964
SIGMA_PER_MAD = 1.4826


def find_trend(
    values: ArrayLike,
    times: ArrayLike | None = None,
    *,
    since_index: int = 0,
    lower_is_better: bool | None = None,
) -> Trend:
    """Direction of the regime that begins at `since_index`, with a 95 % interval of the slope.

    `times` are seconds (the slope is then the unit a second) and do not fall; without them positions
    count. NaN and infinite values are left out. Raises ValueError if lengths differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    moments = np.arange(len(numbers), dtype=np.float64) if times is None else np.asarray(times, np.float64)
    if len(moments) != len(numbers):
        raise ValueError(f"{len(moments)} times for {len(numbers)} values; each value has one time")
    numbers, moments = numbers[since_index:], moments[since_index:]
    is_known = np.isfinite(numbers) & np.isfinite(moments)
    numbers, moments = numbers[is_known], moments[is_known]
    if len(numbers) < LEAST_VALUES:
        return _unknown(f"{len(numbers)} values since the last change; a trend needs {LEAST_VALUES}")
    if moments[-1] <= moments[0]:
        return _unknown("all values have the same time")
    return _judged(numbers, moments, lower_is_better)


def _unknown(reason: str) -> Trend:
    return Trend(TrendLabel.UNKNOWN, math.nan, Interval(math.nan, math.nan), reason)


def _judged(values: Vector, times: Vector, lower_is_better: bool | None) -> Trend:
    """The trend of values that suffice."""
    slope, interval = robust_slope(values, times)
    span = float(times[-1] - times[0])
    rest = values - slope * (times - times[0])
    level = float(np.median(rest))
    noise = SIGMA_PER_MAD * float(np.median(np.abs(rest - level)))
    height = abs(float(np.median(values)))
    change = slope * span
    over = f"over {len(values)} values"
    share = f" ({100 * change / height:+.1f} %)" if height > 0 else ""
    said = f"{change:+.4g}{share} {over}"
    if interval.low <= 0.0 <= interval.high:
        if height > 0 and noise > VOLATILE_RATIO * height:
            return Trend(
                TrendLabel.VOLATILE,
                slope,
                interval,
                f"noise is {100 * noise / height:.0f} % of the level, and no direction shows {over}",
            )
        return Trend(TrendLabel.STABLE, slope, interval, f"{said}, which noise explains")
    if abs(change) < max(LEAST_CHANGE_RATIO * height, LEAST_CHANGE_SIGMA * noise):
        return Trend(TrendLabel.STABLE, slope, interval, f"{said}, too little to matter")
    return Trend(_direction(slope, lower_is_better), slope, interval, f"{said}, more than noise explains")


def _direction(slope: float, lower_is_better: bool | None) -> TrendLabel:
    """What a slope means."""
    if lower_is_better is None:
        return TrendLabel.RISING if slope > 0 else TrendLabel.FALLING
    return TrendLabel.IMPROVING if (slope < 0) == lower_is_better else TrendLabel.DEGRADING


def robust_slope(values: Vector, times: Vector) -> tuple[float, Interval]:
    """Median of the slopes of all pairs with its 95 % interval; `times` do not fall and are not all the same."""
    values, times = _summed_up(values, times)
    first, second = np.triu_indices(len(values), 1)
    spans = times[second] - times[first]
    is_apart = spans > 0
    rises = (values[second] - values[first])[is_apart]
    slopes = np.sort(rises / spans[is_apart])
    slope = float(np.median(slopes))
    variance = _kendall_variance(values) * _memory_factor(values - slope * (times - times[0]))
    reach = NORMAL_95 * math.sqrt(variance) / 2
    middle = (len(slopes) - 1) / 2
    low = slopes[max(0, math.floor(middle - reach))]
    high = slopes[min(len(slopes) - 1, math.ceil(middle + reach))]
    return slope, Interval(float(low), float(high))


def _summed_up(values: Vector, times: Vector) -> tuple[Vector, Vector]:
    """At most LOOKED_AT points: medians of neighbours, at the median of their times."""
    if len(values) <= LOOKED_AT:
        return values, times
    edges = np.linspace(0, len(values), LOOKED_AT + 1).astype(np.intp)
    medians = [(np.median(values[a:b]), np.median(times[a:b])) for a, b in pairwise(edges.tolist())]
    columns = np.asarray(medians, dtype=np.float64)
    return columns[:, 0], columns[:, 1]


def _kendall_variance(values: Vector) -> float:
    """Of S where nothing trends, with ties (Kendall, Rank Correlation Methods, 1975, section 4.9)."""
    count = len(values)
    _, ties = np.unique(values, return_counts=True)
    total = count * (count - 1) * (2 * count + 5)
    tied = float(np.sum(ties * (ties - 1) * (2 * ties + 5)))
    return (total - tied) / 18.0


def _memory_factor(rest: Vector) -> float:
    """By how much memory widens the variance of S; 1 where the rest has none."""
    count = len(rest)
    order = np.sort(rest)
    ranks = (np.searchsorted(order, rest, "left") + np.searchsorted(order, rest, "right")).astype(np.float64)
    ranks -= ranks.mean()
    total = float(ranks @ ranks)
    if total <= 0.0:
        return 1.0
    extra = 0.0
    for lag in range(1, min(LARGEST_MEMORY_LAGS, count // 4) + 1):
        correlation = float(ranks[:-lag] @ ranks[lag:]) / total
        correlation += (1 + 4 * correlation) / count  # what fitting took away (Marriott and Pope 1954)
        if correlation < NORMAL_95 / math.sqrt(count) / 2:
            break  # beyond the first that cannot be told from 0 there is nothing but noise
        extra += (count - lag) * (count - lag - 1) * (count - lag - 2) * min(1.0, correlation)
    return 1.0 + 2.0 * extra / (count * (count - 1) * (count - 2))
