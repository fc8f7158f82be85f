"""How much a series wanders where nothing changes: its variance from value to value and in the long run.

The mean of m values of noise with memory varies as (long-run variance) / m, not as (variance) / m: evidence
for a change is measured in the long-run variance, or autocorrelated noise passes for changes.
"""

import math
from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.compiled import loaded_kernels

SIGMA_PER_MAD = 1.4826
"""Standard deviation of a normal law over its median absolute deviation."""
MOST_MEMORY = 0.97
"""Autocorrelation assumed at most: beyond it a hundred points say nothing about a level."""
ROUNDING = 0.29
"""Standard deviation of rounding, over the resolution: a uniform law's."""
HAMPEL_REACH = 4
"""Positions on either side whose median a value is compared with."""
LONG = 192
"""Values from which on medians of nine are faster by comparing arrays than by sorting parts of them."""
HAMPEL_LIMIT = 3.5
"""Standard deviations beyond which a value is pulled back to the limit (Hampel, JASA 69, 1974)."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise of unit weight."""

    sigma: float
    """Standard deviation of one value around its level."""
    memory: float
    """Autocorrelation of neighbours, in [0, 1)."""
    long_run: float
    """Long-run variance over the variance, 1 or more."""

    @property
    def long_run_variance(self) -> float:
        return self.sigma * self.sigma * self.long_run


def added(terms: Vector) -> float:
    """Their sum, one after the other as in a compiled loop: numpy's own sums and products are added in pairs."""
    return float(np.add.accumulate(terms)[-1]) if len(terms) else 0.0


def ordered_of(values: Vector) -> Vector:
    """The values, ascending."""
    ordered = values.copy()
    ordered.sort()
    return ordered


def resolution(ordered: Vector) -> float:
    """Smallest distance between two of ascending values that differ, never less than what floats of this size can tell."""
    compiled = loaded_kernels()
    if compiled is not None:
        return float(compiled.resolution(ordered))
    grain = max(abs(float(ordered[0])), abs(float(ordered[-1]))) * 4e-16
    steps = ordered[1:] - ordered[:-1]
    least = float(steps.min()) if len(steps) else 0.0
    if least <= grain * 4.0:
        steps = steps[steps > grain * 4.0]
        least = float(steps.min()) if len(steps) else 0.0
    return max(least, grain, 1e-300)


def middle_of(values: Vector) -> float:
    """Median; much faster than numpy's for a few hundred values."""
    return middle_of_ordered(ordered_of(values))


def middle_of_ordered(ordered: Vector) -> float:
    """Median of ascending values."""
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else 0.5 * float(ordered[half - 1] + ordered[half])


def robust_scale(deviations: Vector) -> float:
    """Standard deviation of values around their median, by the median deviation; by its 80 % quantile where most are equal."""
    return _scale_of(deviations.copy())


def _scale_of(deviations: Vector) -> float:
    """The same of an array that is used up."""
    if not len(deviations):
        return 0.0
    deviations.sort()
    deviations -= middle_of_ordered(deviations)
    np.abs(deviations, out=deviations)
    deviations.sort()
    middle, high = float(deviations[len(deviations) // 2]), float(deviations[len(deviations) * 4 // 5])
    return max(middle * SIGMA_PER_MAD, high / 1.2816 * 0.8)


def noise_of_differences(values: Vector, grain: float) -> Noise:
    """Noise told from neighbours' differences, which steps and drifts hardly touch.

    For an autoregression of order one the variances of differences at lag two and one have the ratio 1 + memory.
    """
    compiled = loaded_kernels()
    if compiled is not None:
        sigma, memory = compiled.noise_of_ordered(*differences_of(values), grain)
        return Noise(sigma, memory, long_run_of(memory))
    one, two = _scale_of(values[1:] - values[:-1]), _scale_of(values[2:] - values[:-2])
    if one <= 0.0:
        return Noise(grain * ROUNDING, 0.0, 1.0)
    ratio = two / one
    memory = min(max(ratio * ratio - 1.0, 0.0), MOST_MEMORY)
    sigma = one / math.sqrt(2.0 * (1.0 - memory))
    return Noise(max(sigma, grain * ROUNDING), memory, long_run_of(memory))


def differences_of(values: Vector) -> tuple[Vector, Vector]:
    """Differences of neighbours, and of neighbours but one; each ascending."""
    one, two = values[1:] - values[:-1], values[2:] - values[:-2]
    one.sort()
    two.sort()
    return one, two


def long_run_of(memory: float) -> float:
    """Long-run variance over the variance of an autoregression of order one."""
    return (1.0 + memory) / (1.0 - memory)


def noise_of_residuals(residuals: Vector, parameters: int, grain: float) -> Noise:
    """Noise of what a fit with so many parameters leaves: autoregression plus what is left beyond it.

    The memory is corrected for the bias of short series (Kendall, Biometrika 41, 1954) and of the fit; what
    the autoregression leaves is summed with Bartlett's weights (Andrews and Monahan, Econometrica 60, 1992).
    """
    compiled = loaded_kernels()
    if compiled is not None:
        return Noise(*compiled.noise_of_residuals(residuals, parameters, grain))
    count = len(residuals)
    total = added(residuals * residuals)
    variance = total / max(count - parameters, 1)
    least = grain * ROUNDING
    sigma = max(math.sqrt(variance), least)
    if count < 4 or variance <= least * least:
        return Noise(
            sigma, 0.0, 1.0
        )  # what is below the values' resolution is rounding, whose memory means nothing
    raw = added(residuals[1:] * residuals[:-1]) / total
    memory = min(max(raw + (parameters + 1.0 + 3.0 * max(raw, 0.0)) / count, 0.0), MOST_MEMORY)
    return Noise(sigma, memory, long_run_of(memory) * _beyond(residuals, raw))


def _beyond(residuals: Vector, memory: float) -> float:
    """Long-run variance over the variance of what the autoregression leaves; 1 or more, and at most 4."""
    count = len(residuals) - 1
    if count < 40:
        return 1.0
    left = residuals[1:] - memory * residuals[:-1]
    total = added(left * left)
    if total <= 0.0:
        return 1.0
    reach = int(4.0 * (count / 100.0) ** 0.25) + 1
    ratio = 1.0
    for lag in range(1, reach + 1):
        ratio += 2.0 * (1.0 - lag / (reach + 1.0)) * added(left[lag:] * left[:-lag]) / total
    return min(max(ratio - 1.3 * math.sqrt(reach / count), 1.0), 4.0)


def running_median(values: Vector, reach: int = HAMPEL_REACH) -> Vector:
    """Median of each value and `reach` neighbours on either side; the ends are mirrored."""
    padded = np.concatenate([values[reach - 1 :: -1], values, values[: -reach - 1 : -1]])
    if reach == HAMPEL_REACH and len(values) >= LONG:
        return _medians_of_nine(padded)
    step = padded.itemsize
    windows = np.ndarray((len(values), 2 * reach + 1), np.float64, padded, 0, (step, step)).copy()
    windows.partition(reach, axis=1)
    middle: Vector = windows[:, reach]
    return middle


def _medians_of_nine(padded: Vector) -> Vector:
    """Medians of each value, its four before and its four behind.

    Three neighbours are put in order once for the three nines that they are a third of. The middle of nine is the
    middle of: the largest of the three least, the middle of the three middles, the least of the three largest.
    """
    one, two, three = padded[:-2], padded[1:-1], padded[2:]
    low, high = np.minimum(one, two), np.maximum(one, two)
    middle = np.minimum(high, three)
    np.maximum(high, three, out=high)
    one, two = np.minimum(low, middle), np.maximum(low, middle)
    count = len(padded) - 2 * HAMPEL_REACH
    lows, middles, highs = ([each[:count], each[3 : count + 3], each[6:]] for each in (one, two, high))
    least = np.maximum(lows[0], lows[1])
    np.maximum(least, lows[2], out=least)
    most = np.minimum(highs[0], highs[1])
    np.minimum(most, highs[2], out=most)
    return _middle_of_three(least, _middle_of_three(*middles), most)


def _middle_of_three(one: Vector, two: Vector, three: Vector) -> Vector:
    middle: Vector = np.maximum(one, two)
    np.minimum(middle, three, out=middle)
    np.maximum(middle, np.minimum(one, two), out=middle)
    return middle


def clipped(values: Vector, sigma: float) -> Vector:
    """The values with spikes pulled back to the limit around the median of their neighbourhood."""
    if len(values) <= HAMPEL_REACH:
        return values
    compiled = loaded_kernels()
    if compiled is not None:
        cut: Vector = compiled.clipped(values, sigma)
        return cut
    middle = running_median(values)
    limit = HAMPEL_LIMIT * sigma
    pulled: Vector = np.minimum(np.maximum(values, middle - limit), middle + limit)
    return pulled
