"""Which repetition a series has, told from noise that merely wanders.

A repetition of P positions puts power at the frequencies 1/P, 2/P, 3/P …; noise with memory spreads its
power smoothly. So the periodogram is divided by its own neighbourhood (a running median), and the sum of
the first H quotients at the multiples of 1/P is compared with its law where nothing repeats: quotients are
exponential (Brillinger, Time Series, 1981, theorem 5.2.6), so their sum is gamma with shape H. The whole
grid of P and H is searched and the evidence has to pay for that.

What is looked at are differences of neighbours: a step is then one odd value and a drift a constant. It is
looked at twice: as it is but for clipping, in case the odd values are what repeats, and with spikes and
steps taken out, in case they are not. Differences are summed up again in the frequency domain.
Last, the pattern of the first half has to be that of the second: a wave without a clock (an autoregression
with complex roots) loses its phase.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtf.core.trend.compiled import loaded_kernels
from dtf.core.trend.findings import Seasonality

Vector = NDArray[np.float64]
Places = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST_CYCLES = 4
"""Repetitions seen before one is believed in: two in each half."""
LEAST_POINTS = 16
MOST_MEDIANS = 1 << 20
"""Values in the windows of running medians at most: beyond, means have to do."""
LOOKED_AT = 16_384
"""Newest positions that are looked at: four weeks of five-minute data are 8,064."""
HARMONICS = (1, 2, 3, 4, 6, 8, 12)
"""Numbers of multiples of the base frequency that are summed."""
FALSE_SEASONS = 3e-4
"""Chance of a season where there is none, if the quotients had exactly their law. They have heavier tails,
since the neighbourhood is estimated from few of them; simulated, it is below 1 %."""
SHAPES = np.array([-0.8, -0.5, -0.2, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0])
"""Memories of noise: the flattest spectrum, once divided by such an autoregression's, says which it is."""
NEIGHBOURS = 20
"""Frequencies on either side that say what the noise has here."""
CLIPPED_AT = 5.0
"""Standard deviations beyond which a difference counts as so many."""
ODD_AT = 4.0
"""Standard deviations beyond which a value is a spike, or a difference a step."""
BESIDE = 3
"""Positions on either side with which a spike is compared."""
NEARLY = 0.85
"""Share of the evidence with which a shorter period, of which the found one is a multiple, is preferred."""
LEAST_AGREEMENT = 0.5
"""Correlation of the pattern in the first half with that in the second."""
SIGMA_PER_MAD = 1.4826
SIGMA_PER_MEAN = 1.2533
"""Standard deviation of a normal law over its mean absolute deviation."""
TINY = 1e-9
ROUNDING = 1e-6
"""By what a bound may be wrong."""
REMEMBERED = 2_048
"""Length up to which what depends on the length alone is kept."""


def find_seasonality(values: ArrayLike) -> Seasonality | None:
    """The repetition with the most evidence, or None. NaN and infinite values are filled in by their neighbours."""
    filled = _filled(np.asarray(values, dtype=np.float64))
    skipped = max(0, len(filled) - LOOKED_AT)
    filled = filled[skipped:]
    if len(filled) < LEAST_POINTS:
        return None
    exponent = int(np.frexp(np.max(np.abs(filled)))[1])
    filled = np.ldexp(filled, -exponent)  # so that no square overflows, exactly
    found = [_most_evident(_quotients(look), len(filled)) for look in _looks(filled)]
    evident = [each for each in found if each is not None]
    if not evident:
        return None
    _, period, harmonics = min(evident)
    return _confirmed(filled, period, harmonics, skipped, exponent)


def _looks(values: Vector) -> list[Vector]:
    """Differences of neighbours: as they are but clipped, and, where that is another thing, of values without odd ones."""
    differences = values[1:] - values[:-1]
    clipped = _clipped(differences)
    if clipped is None:
        return []
    calm = _without_spikes(values)
    if calm is values and float(max(clipped.max(), -clipped.min())) <= ODD_AT:
        return [clipped]
    settled = _without_steps(calm[1:] - calm[:-1])
    return [clipped] if settled is None else [clipped, settled]


def _filled(values: Vector) -> Vector:
    """The same with gaps bridged by straight lines."""
    is_known = np.isfinite(values)
    if is_known.all():
        return values
    if is_known.sum() < LEAST_POINTS:
        return np.empty(0)
    positions = np.arange(len(values))
    return np.interp(positions, positions[is_known], values[is_known])


def _scale_of(deviations: Vector) -> float:
    """Robust standard deviation; 0 where there is no spread."""
    sizes = np.sort(np.abs(deviations))
    scale = SIGMA_PER_MAD * _middle(sizes)
    if scale <= TINY * float(sizes[-1]):  # mostly ties: the few others are the spread
        scale = SIGMA_PER_MEAN * float(np.mean(np.abs(deviations)))
    return scale


def _median(values: Vector) -> float:
    """Median of finite values; several times faster than numpy's for a few hundred."""
    return _middle(np.sort(values))


def _middle(ordered: Vector) -> float:
    half = len(ordered) // 2
    return float(ordered[half]) if len(ordered) % 2 else 0.5 * float(ordered[half - 1] + ordered[half])


def _running_median(values: Vector, reach: int, before: Vector, behind: Vector) -> Vector:
    """Median of each value and `reach` on either side, those beyond the ends given."""
    padded = np.concatenate([before, values, behind])
    compiled = loaded_kernels()
    if compiled is not None:
        slid: Vector = compiled.running_median(padded, reach)
        return slid
    step = padded.itemsize
    windows = np.ndarray((len(values), 2 * reach + 1), np.float64, padded, 0, (step, step)).copy()
    windows.sort(axis=1)  # of so few values faster than a partition
    medians: Vector = windows[:, reach]
    return medians


def _clipped(values: Vector) -> Vector | None:
    """Deviations from the median, clipped, in standard deviations; None where there is no spread."""
    deviations = values - _median(values)
    scale = _scale_of(deviations)
    return np.minimum(np.maximum(deviations / scale, -CLIPPED_AT), CLIPPED_AT) if scale > 0 else None


def _without_spikes(values: Vector) -> Vector:
    """Values far from the median of those around them are replaced by it (Hampel's filter)."""
    middle = _running_median(values, BESIDE, values[BESIDE:0:-1], values[-2 : -BESIDE - 2 : -1])
    deviations = values - middle
    is_odd = np.abs(deviations) > ODD_AT * _scale_of(deviations)
    return np.where(is_odd, middle, values) if is_odd.any() else values


def _without_steps(differences: Vector) -> Vector | None:
    """Deviations from the median, those of steps set to 0, in standard deviations; None where there is no spread."""
    deviations = differences - _median(differences)
    scale = _scale_of(deviations)
    if scale <= 0:
        return None
    return np.where(np.abs(deviations) > ODD_AT * scale, 0.0, deviations / scale)


def _quotients(differences: Vector) -> Vector:
    """Power over the neighbourhood's at the frequencies k / (4 n), n differences."""
    length = len(differences)
    tapered = (differences - differences.mean()) * _taper(length)
    waves = np.fft.rfft(tapered, 4 * length)
    fine = waves.real**2 + waves.imag**2
    cosines, shapes = _shapes(length) if length <= REMEMBERED else _shapes.__wrapped__(length)
    with np.errstate(divide="ignore"):
        whitened = fine[1:] / (2 - 2 * cosines[1:])
    coarse = np.log(np.maximum(whitened[3::4], 1e-300))
    flat = coarse[None, :] + shapes
    flat -= _middles(flat)
    flattest = int(np.abs(flat).sum(axis=1).argmin())
    shape = float(SHAPES[flattest])
    fine[1:] = whitened * (1 + shape * shape - 2 * shape * cosines[1:])
    fine[0] = fine[1]
    coarse = fine[4::4]
    beside = min(NEIGHBOURS, len(coarse) // 2)
    level = _running_median(coarse, beside, coarse[:beside][::-1], coarse[len(coarse) - beside :][::-1])
    lowest = _prefix_medians(coarse, min(beside, len(coarse)))
    level[: len(lowest)] = np.maximum(
        level[: len(lowest)], lowest
    )  # what wanders rises towards the lowest ones
    level /= np.log(2.0)
    where = np.arange(1, len(coarse) + 1) * 4.0
    usual = np.exp(np.interp(np.arange(len(fine)), where, np.log(np.maximum(level, 1e-300))))
    return np.asarray(fine / usual, dtype=np.float64)


def _middles(rows: Vector) -> Vector:
    """Median of each row; shape (rows, 1)."""
    half = rows.shape[1] // 2
    parted = np.partition(rows, half, axis=1)
    middle: Vector = parted[:, half : half + 1]
    return middle if rows.shape[1] % 2 else 0.5 * (parted[:, :half].max(axis=1, keepdims=True) + middle)


def _prefix_medians(values: Vector, count: int) -> Vector:
    """Medians of the first 1, 3, 5 … 2 count - 1 values, at once: what lies behind is half infinite, half minus infinite."""
    width = 2 * count - 1
    if width < 1:
        return np.empty(0)
    compiled = loaded_kernels()
    if compiled is not None:
        grown: Vector = compiled.prefix_medians(values, count)
        return grown
    behind = np.arange(width)[None, :] - 2 * np.arange(count)[:, None]
    rows = np.where(behind > 0, np.where(behind % 2 == 1, np.inf, -np.inf), values[None, :width])
    medians: Vector = np.partition(rows, width // 2, axis=1)[:, width // 2]
    return medians


@lru_cache(maxsize=16)
def _multiples(count: int) -> tuple[Places, Places, Vector, Flags]:
    """The periods that so many values may tell; for each multiple of their frequencies which quotient is at or before it, how far it is behind that one, and whether it is there."""
    periods = np.arange(2, count // LEAST_CYCLES + 1)
    multiples = np.arange(1, max(HARMONICS) + 1)
    places = 4.0 * (count - 1) * multiples[None, :] / periods[:, None]
    before = places.astype(np.int64)
    is_there: Flags = multiples[None, :] <= periods[:, None] // 2
    before[~is_there] = 0
    return periods, before, places - before, is_there


@lru_cache(maxsize=16)
def _shapes(length: int) -> tuple[Vector, Vector]:
    """Cosines of the frequencies k / (4 length), and by what each of SHAPES lowers the logarithm of every fourth."""
    cosines = np.cos(np.pi * np.arange(2 * length + 1) / (2 * length))
    return cosines, np.log(1 + SHAPES[:, None] ** 2 - 2 * SHAPES[:, None] * cosines[None, 4::4])


@lru_cache(maxsize=64)
def _taper(length: int) -> Vector:
    """Cosine bell over a fifth of the ends, so that strong frequencies do not leak into weak ones."""
    ramp = max(1, length // 10)
    taper = np.ones(length)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
    taper[:ramp] = rise
    taper[length - ramp :] = rise[::-1]
    return taper


def _most_evident(quotients: Vector, count: int) -> tuple[float, int, int] | None:
    """Logarithm of the least chance, its period and number of harmonics, if it is small enough."""
    periods, before, behind, is_there = (_multiples if count <= REMEMBERED else _multiples.__wrapped__)(count)
    bound = math.log(FALSE_SEASONS / (len(periods) * len(HARMONICS)))
    compiled = loaded_kernels()
    if compiled is not None:
        most = compiled.most_of_multiples(quotients, before, behind, is_there)
        if _is_none_evident(most, bound):
            return None
    rises = np.append(quotients[1:] - quotients[:-1], 0.0)
    there = rises.take(before) * behind + quotients.take(before)
    sums = np.cumsum(np.where(is_there, there, 0.0), axis=1)
    if _is_none_evident(sums.max(axis=0), bound):
        return None
    chances = np.stack([_log_tail(sums[:, shape - 1], shape) for shape in HARMONICS], axis=1)
    shapes = np.array(HARMONICS)
    chances[shapes[None, :] > periods[:, None] // 2] = 0.0
    best = chances.min(axis=1)
    least = float(best.min())
    if least >= bound:
        return None
    found = int(periods[best.argmin()])
    for parts in range(max(HARMONICS), 1, -1):
        shorter = round(found / parts)
        if shorter >= 2 and best[shorter - 2] <= NEARLY * least:
            found = shorter
            break
    return least, found, int(shapes[chances[found - 2].argmin()])


def _is_none_evident(most: Vector, bound: float) -> bool:
    """Whether the largest sums of so many multiples, shape (most multiples,), are too small for any period."""
    return all(_log_chance(float(most[shape - 1]), shape) > bound + ROUNDING for shape in HARMONICS)


def _log_chance(total: float, shape: int) -> float:
    """The same as `_log_tail` of one."""
    term = series = 1.0
    for k in range(1, shape):
        term *= total / k
        series += term
    return math.log(series) - total


def _log_tail(total: Vector, shape: int) -> Vector:
    """Logarithm of the chance that a gamma variable of integer shape exceeds `total`."""
    term = np.ones_like(total)
    series = np.ones_like(total)
    for k in range(1, shape):
        term = term * total / k
        series = series + term
    return np.asarray(np.log(series) - total, dtype=np.float64)


def _confirmed(
    values: Vector, period: int, harmonics: int, skipped: int, exponent: int
) -> Seasonality | None:
    """The season of the values before `skipped` were cut off and the power of two taken out, if both halves have it."""
    around = _around_steps(values, period) if _has_steps(values) else _around_level(values, period)
    clipped = _clipped(around)
    if clipped is None:
        return None
    half = len(values) // 2 // period * period
    first = _pattern(clipped[:half], period, harmonics, 0)
    second = _pattern(clipped[half:], period, harmonics, half)
    spread = float(np.std(first) * np.std(second))
    agreement = float(np.mean(first * second)) / spread if spread > 0 else 0.0
    if agreement < LEAST_AGREEMENT:
        return None
    pattern = _pattern(around, period, harmonics, 0)
    phases = np.arange(len(values)) % period
    strength = 1.0 - _spread_of(around - pattern[phases]) / max(_spread_of(around), 1e-300)
    pattern = np.ldexp(np.roll(pattern, skipped % period), exponent)
    return Seasonality(period, float(np.clip(strength, 0.0, 1.0)), tuple(pattern.tolist()))


def _around_level(values: Vector, period: int) -> Vector:
    """Deviations from the mean of one period around each position; the ends keep the nearest mean."""
    weights = np.ones(period + 1 - period % 2)
    if period % 2 == 0:
        weights[[0, -1]] = 0.5
    weights /= weights.sum()
    middle = np.convolve(values, weights, mode="valid")
    margin = len(weights) // 2
    slope = (middle[-1] - middle[0]) / max(1, len(middle) - 1)
    before = middle[0] - slope * np.arange(margin, 0, -1)
    behind = middle[-1] + slope * np.arange(1, len(values) - margin - len(middle) + 1)
    return np.asarray(values - np.concatenate([before, middle, behind]), dtype=np.float64)


def _has_steps(values: Vector) -> bool:
    """Whether some neighbours are odd ones apart, lone odd values left out: a mean over a period would smear a step."""
    calm = _without_spikes(values)
    differences = calm[1:] - calm[:-1]
    deviations = differences - _median(differences)
    return bool(np.abs(deviations).max() > ODD_AT * _scale_of(deviations))


def _around_steps(values: Vector, period: int) -> Vector:
    """The same with the median of a period, which a step moves at once; what repeats moves it nowhere."""
    if period * len(values) > MOST_MEDIANS:
        return _around_level(values, period)
    windows = np.lib.stride_tricks.sliding_window_view(values, period)
    half = period // 2
    parts = np.partition(windows, (half - 1, half), axis=1)
    middle = parts[:, half] if period % 2 else 0.5 * (parts[:, half - 1] + parts[:, half])
    margin = len(values) - len(middle)
    levels = np.concatenate(
        [np.full(margin // 2, middle[0]), middle, np.full(margin - margin // 2, middle[-1])]
    )
    return np.asarray(values - levels, dtype=np.float64)


def _pattern(around: Vector, period: int, harmonics: int, offset: int) -> Vector:
    """Robust mean of each phase, smoothed to its first harmonics, with mean 0."""
    cycles = -(-len(around) // period)
    padding = np.full(cycles * period - len(around), np.nan)
    table = np.concatenate([around, padding]).reshape(cycles, period)
    middle = np.nanmedian(table, axis=0)
    bound = 2.0 * SIGMA_PER_MAD * float(np.nanmedian(np.abs(table - middle)))
    means = middle + np.nanmean(np.clip(table - middle, -bound, bound), axis=0)
    waves = np.fft.rfft(means)
    waves[0] = 0.0
    waves[harmonics + 1 :] = 0.0
    return np.roll(np.fft.irfft(waves, period), offset % period)


def _spread_of(values: Vector) -> float:
    """Variance, with the few odd values clipped."""
    deviations = values - _median(values)
    scale = SIGMA_PER_MAD * float(np.median(np.abs(deviations)))
    bound = 4.0 * scale if scale > 0 else np.inf
    return float(np.mean(np.clip(deviations, -bound, bound) ** 2))
