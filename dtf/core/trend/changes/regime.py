"""What the newest regime foretells: its level or line, its noise, its memory and its tail."""

import math
from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.noise import (
    MOST_MEMORY,
    added,
    clipped,
    differences_of,
    long_run_of,
    middle_of_ordered,
    noise_of_differences,
    noise_of_residuals,
    ordered_of,
    resolution,
)
from dtf.core.trend.changes.segments import Line, line_through
from dtf.core.trend.compiled import loaded_kernels

LEAST_REGIME = 8
"""Values that a regime has at least before it is watched."""
LONGEST_REGIME = 256
"""Newest values of a regime that are its memory: enough to know tails of one in a hundred."""
REACH = 32
"""Newest values that are compared at most."""
BAR = 4.15
"""Standard errors beyond which the newest values are another regime's; by simulation (docs/statistics.md)."""
SEARCHED = (100, 2_000)
"""Positions up to which BAR is enough, and from which on it rises no more: who watches longer searches more. In
between the chance beyond the bar falls as one over the position, as a normal law's tail does."""
HEAVY = 6.0
"""By what the bar rises for each share of values beyond 3 standard deviations that a normal law has not."""
NORMAL_BEYOND = 0.0027
"""The share that it has."""
SUSPICION = 3.5
"""Standard errors beyond which a full look is worth its time."""
SUSPECTED_FROM = 6
"""Values in a row from which on there is suspicion: fewer are an alarm's matter."""
VALUE_LIMIT = 3.5
"""Standard deviations to which a value is limited in the mean of many."""

COUNTS: Vector = np.arange(1.0, REACH + 1.0)
NEARLY_ALL = 1.0 - 1e-9
"""Of a bound, so that rounding does not decide."""


@dataclass(frozen=True, slots=True)
class Regime:
    """What the newest regime foretells; from values [start, end) of the window, by their positions."""

    line: Line
    """Over positions; levels in the series' unit."""
    sigma: float
    memory: float
    long_run: float
    count: int
    sizes: Vector
    """Absolute residuals in standard deviations."""
    weight_unit: float
    """Weight of a value whose deviation is sigma."""
    inflation: Vector
    """Variance of the sum of k values over k variances, by k - 1."""
    bar: float
    """Standard errors, as a normal law's, that the next values must be away."""
    quantile: float
    """The bar as a quantile of Student's law, raised by what the tail has more than a normal law's."""
    bounds: Vector
    """Of the sum of k values of weight_unit, in standard deviations, below which nothing counts; shape (REACH,)."""


def regime_of(positions: Places, values: Vector, weights: Vector) -> Regime | None:
    """The regime that these values are; None where they are too few or all the same."""
    count = len(values)
    if count < LEAST_REGIME:
        return None
    compiled = loaded_kernels()
    is_flat = count < 2 * LEAST_REGIME
    if compiled is not None:
        ordered = (ordered_of(values), *differences_of(values))
        told, sigma, memory, unit, sizes = compiled.regime(
            positions, values, weights, ordered, is_flat, VALUE_LIMIT
        )
        line = Line(*told)
    else:
        line, sigma, memory, unit, sizes = _told(positions, values, weights, is_flat)
    heaviness = max(1.0 - float(np.count_nonzero(sizes < 3.0)) / count - NORMAL_BEYOND, 0.0)
    bar = _bar_at(int(positions[-1]))
    quantile = _quantile(count, memory, bar, heaviness)
    if compiled is not None:
        inflation, bounds = compiled.prospects(memory, quantile, (REACH, SUSPECTED_FROM, SUSPICION / BAR))
    else:
        inflation = inflation_of(memory)
        bounds = bounds_of(inflation, 1.0, quantile)
    return Regime(
        line=line,
        sigma=sigma,
        memory=memory,
        long_run=long_run_of(memory),
        count=count,
        sizes=sizes,
        weight_unit=unit,
        inflation=inflation,
        bar=bar,
        quantile=quantile,
        bounds=bounds,
    )


def _told(
    positions: Places, values: Vector, weights: Vector, is_flat: bool
) -> tuple[Line, float, float, float, Vector]:
    """Line, standard deviation, memory, unit of weights, and sizes of what is left in standard deviations."""
    count = len(values)
    unit = added(weights) / count
    weights = weights / unit
    ordered = ordered_of(values)
    grain = resolution(ordered)
    rough = noise_of_differences(values, grain)
    centre = middle_of_ordered(ordered)
    pulled = clipped(values, rough.sigma) - centre
    pulled /= rough.sigma
    x = (positions - positions[0]).astype(np.float64)
    line = line_through(x, pulled, weights)
    if is_flat:
        line = line.flat()
    residuals = values - centre
    residuals /= rough.sigma
    residuals -= line.level
    x -= line.centre
    x *= line.slope
    residuals -= x
    limited = limited_to(residuals, VALUE_LIMIT)
    limited *= np.sqrt(weights)
    noise = noise_of_residuals(limited, 2, grain / rough.sigma)
    sigma = max(noise.sigma, 1e-9)
    memory = min(noise.memory + (0.4 + 1.4 * noise.memory) / math.sqrt(count), MOST_MEMORY)
    placed = Line(
        line.centre + float(positions[0]),
        centre + line.level * rough.sigma,
        line.slope * rough.sigma,
        line.weight,
        line.spread,
    )
    sizes = np.abs(residuals, out=residuals)
    sizes /= sigma
    return placed, sigma * rough.sigma, memory, unit, sizes


def limited_to(deviations: Vector, limit: float) -> Vector:
    """The same, none beyond the limit."""
    limited: Vector = np.minimum(np.maximum(deviations, -limit), limit)
    return limited


def _bar_at(position: int) -> float:
    """BAR, and what a search up to this position adds."""
    first, last = SEARCHED
    return math.sqrt(BAR * BAR + 2.0 * math.log(min(max(position, first), last) / first))


def _quantile(count: int, memory: float, bar: float, heaviness: float) -> float:
    """A bar as a quantile of Student's law (Wallace, Annals of Mathematical Statistics 30, 1959), by how much a regime knows.

    Heaviness: the share of its values beyond 3 standard deviations, a normal law's left out.
    """
    known = max(count * (1.0 - memory) / (1.0 + memory), 4.0)
    bar *= 1.0 + HEAVY * heaviness
    return math.sqrt(known * math.expm1(bar * bar / known))


def bounds_of(inflation: Vector, weight: float, quantile: float) -> Vector:
    """What the sums of the newest k values, each of this weight, stay below where nothing counts; shape (REACH,)."""
    bounds: Vector = inflation * COUNTS
    bounds /= weight
    np.sqrt(bounds, out=bounds)
    bounds *= quantile * NEARLY_ALL
    bounds[SUSPECTED_FROM - 1 :] *= SUSPICION / BAR
    return bounds


def inflation_of(memory: float) -> Vector:
    """Variance of the sum of k values over k variances, for an autoregression; shape (REACH,)."""
    rest = 1.0 - memory
    powers = np.multiply.accumulate(np.full(REACH, memory))
    inflation: Vector = (1.0 + memory) / rest - 2.0 * memory * (1.0 - powers) / (COUNTS * (rest * rest))
    return inflation
