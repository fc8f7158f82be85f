"""Noise and partition that agree, and which of several that do.

The noise is told from what a partition leaves, and the partition is priced by the noise: several pairs may agree with
themselves. A random walk is a walk, or many steps; a smooth series with a turn is two lines, or noise of long memory;
jumps between plateaus look like memory too. So where the noise seems to remember long, or changes are many, the
partitions under prices from high to low stand beside no change and beside one smooth bend over everything, and the
likeliest is taken: by the innovations that its residuals leave as an autoregression of order two, at the price of its
changes and slopes. Order two, for waves without a clock, as economies make them, are no pieces of lines; what is next
to a change does not count, for a change may take a value or two.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.noise import (
    ROUNDING,
    SIGMA_PER_MAD,
    Noise,
    middle_of,
    noise_of_differences,
    noise_of_residuals,
)
from dtf.core.trend.changes.search import Search
from dtf.core.trend.changes.segments import Sums
from dtf.core.trend.compiled import loaded_kernels

CHANGE_PRICE = 3.0
"""Price of a change in units of ln n long-run variances. Schwarz's criterion for a level, a slope and a place
would be 3; simulation of six families of noise without changes says how often that is wrong
(docs/statistics.md)."""
SLOPE_PRICE = 2.0
"""Price of a slope in the same units."""
SMALL_SAMPLE = 16.0
"""Values' worth of doubt in the noise itself: prices rise by 1 + this / n."""
LONG_MEMORY = 0.5
"""Autocorrelation of the noise from which on it may be changes, or a shape, that were not seen."""
MANY = 3
"""Changes from which on they may be a walk's, or waves'."""
ORDER = 2
"""Of the autoregression that residuals are held against."""
PRICE_STEP = 4.0
"""Quotient of one price that is tried and the next."""
PATIENCE = 3
"""Partitions in a row that are no better before a path of prices ends."""
VALUES_A_CHANGE = 12
"""Values a change, on average, below which a path of prices ends."""
BENDS = (2, 3)
"""Degrees of the polynomials that may be the whole story."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A partition and the noise around it."""

    noise: Noise
    inner: list[int]
    """Where it is cut."""
    residuals: Vector
    """Weighted; of the partition, or of what smooth bend was likelier."""
    price: float
    """Of its changes and slopes."""
    is_plain: bool = True
    """Whether the residuals are those of the partition under its noise."""


@dataclass(frozen=True, slots=True)
class Series:
    """A window of values without spikes, near 0 and of scale 1, and what is asked of it again and again."""

    values: Vector
    weights: Vector
    sums: Sums
    search: Search
    grain: float
    """The values' resolution."""

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def least_variance(self) -> float:
        return (self.grain * ROUNDING) ** 2


def series_of(values: Vector, weights: Vector, grain: float) -> Series:
    """These values, with their sums."""
    sums = Sums(np.arange(len(values), dtype=np.float64), values, weights)
    return Series(values, weights, sums, Search(sums), grain)


def change_cost_of(noise: Noise, count: int) -> float:
    """Price of a change."""
    return CHANGE_PRICE * _unit(count) * noise.long_run_variance


def slope_cost_of(noise: Noise, count: int) -> float:
    """Price of a slope."""
    return SLOPE_PRICE * _unit(count) * noise.long_run_variance


def choice_cost_of(count: int) -> float:
    """Price of having chosen between two scales, in the units of `Settled.cost`."""
    return SLOPE_PRICE * _unit(count)


def settled(series: Series) -> Settled:
    """The partition that is believed."""
    noise, inner = _agreed(series)
    residuals, parameters = residuals_of(series, inner, noise)
    found = Settled(noise, inner, residuals, _price_of(series, inner, parameters))
    return found if noise.memory < LONG_MEMORY and len(inner) < MANY else _likeliest(series, found)


def cost_of(series: Series, found: Settled) -> float:
    """Twice the negative log likelihood and the prices, but for a constant of the values' scale."""
    return _innovation_cost(series, found.residuals, found.inner) + found.price


def _agreed(series: Series) -> tuple[Noise, list[int]]:
    """A partition under the differences' noise, noise from its residuals, and so on until nothing changes."""
    noise = noise_of_differences(series.values, series.grain)
    inner = _partition(series, noise)
    for _ in range(3):
        again = noise_of_residuals(*residuals_of(series, inner, noise), series.grain)
        cut = _partition(series, again)
        noise, previous, inner = again, inner, cut
        if cut == previous:
            break
    return noise, inner


def _likeliest(series: Series, first: Settled) -> Settled:
    """The cheapest of this partition, those of a path of prices, and one bend over everything."""
    best, least, waited = first, math.inf, 0
    for cuts in _rivals(series, first.inner):
        residuals, parameters = _plain_residuals(series, cuts)
        rival = Settled(first.noise, cuts, residuals, _price_of(series, cuts, parameters), is_plain=False)
        cost = cost_of(series, rival)
        waited += 1
        if cost < least:
            best, least, waited = rival, cost, 0
            if cuts != first.inner:
                best = replace(rival, noise=noise_of_residuals(residuals, parameters, series.grain))
        elif waited >= PATIENCE:
            break
    for degree in BENDS:
        residuals = _bent(series, degree)
        bend = Settled(first.noise, [], residuals, SLOPE_PRICE * degree * _unit(series.count), is_plain=False)
        cost = cost_of(series, bend)
        if cost < least:
            noise = noise_of_residuals(residuals, degree + 1, series.grain)
            best, least = replace(bend, noise=noise), cost
    return best


def _rivals(series: Series, first: list[int]) -> Iterator[list[int]]:
    """Partitions under prices from high to low; each once."""
    count = series.count
    seen = [first, []] if first else [[]]
    yield from seen
    variance = max(min(series.sums.cost(0, count)) / count, series.least_variance, 1e-300) * 4.0
    least = max(_turns(series) / 4.0, series.least_variance)
    while variance > least:
        cuts = _partition(series, Noise(math.sqrt(variance), 0.0, 1.0))
        if len(cuts) > count / VALUES_A_CHANGE:
            return
        if cuts not in seen:
            seen.append(cuts)
            yield cuts
        variance /= PRICE_STEP


def _turns(series: Series) -> float:
    """The least variance that noise can have: of second differences, as if it had no memory."""
    values = series.values
    turns = values[2:] - 2.0 * values[1:-1] + values[:-2]
    return (SIGMA_PER_MAD * middle_of(np.abs(turns))) ** 2 / 6.0


def _price_of(series: Series, inner: Sequence[int], parameters: int) -> float:
    slopes = parameters + 1 - 2 * (len(inner) + 1)
    return (CHANGE_PRICE * len(inner) + SLOPE_PRICE * slopes) * _unit(series.count)


def _innovation_cost(series: Series, residuals: Vector, inner: Sequence[int]) -> float:
    """Twice the negative log likelihood of residuals as an autoregression, but for a constant."""
    count = len(residuals)
    is_edge = np.zeros(count, dtype=np.bool_)
    for cut in inner:
        is_edge[cut - 1 : cut + 2] = True
    kept = moves_of(residuals)[ORDER:][~is_edge[ORDER:]]
    variance = float(kept @ kept) / max(len(kept), 1)
    return count * math.log(max(variance, series.least_variance, 1e-300))


def moves_of(residuals: Vector) -> Vector:
    """What an autoregression of order ORDER does not foretell of each; 0 for the first ORDER."""
    count = len(residuals)
    past = np.stack([residuals[ORDER - lag : count - lag] for lag in range(1, ORDER + 1)])
    products = past @ past.T
    products[np.diag_indices(ORDER)] += 1e-9 * products.trace() + 1e-300
    moves = np.zeros(count)
    moves[ORDER:] = residuals[ORDER:] - np.linalg.solve(products, past @ residuals[ORDER:]) @ past
    return moves


def _unit(count: int) -> float:
    return math.log(count) * (1.0 + SMALL_SAMPLE / count)


def _bent(series: Series, degree: int) -> Vector:
    """Weighted residuals of one smooth bend over everything, a polynomial of this degree."""
    root = np.sqrt(series.weights)
    fitted = _polynomials(series.count, degree) * root[:, None]
    values = series.values * root
    solution = np.linalg.solve(fitted.T @ fitted, fitted.T @ values)
    left: Vector = values - fitted @ solution
    return left


def _polynomials(count: int, degree: int) -> Vector:
    x = np.linspace(-1.0, 1.0, count)
    columns = np.polynomial.legendre.legvander(x, degree)
    return np.asarray(columns, dtype=np.float64)


def _partition(series: Series, noise: Noise) -> list[int]:
    count = series.count
    return series.search.best_partition(
        change_cost=change_cost_of(noise, count), slope_cost=slope_cost_of(noise, count)
    )


def _plain_residuals(series: Series, inner: list[int]) -> tuple[Vector, int]:
    """Weighted residuals whose slopes pay by the residuals' own variance, and how many parameters there are."""
    parts = [min(series.sums.cost(a, b)) for a, b in pairwise([0, *inner, series.count])]
    variance = max(sum(parts) / series.count, series.least_variance)
    return residuals_of(series, inner, Noise(math.sqrt(variance), 0.0, 1.0))


def residuals_of(series: Series, inner: list[int], noise: Noise) -> tuple[Vector, int]:
    """Weighted residuals of the partition and how many parameters it has."""
    slope_cost = slope_cost_of(noise, series.count)
    compiled = loaded_kernels()
    if compiled is not None:
        edges = np.array([0, *inner, series.count])
        left: tuple[Vector, int] = compiled.residuals(
            series.values, series.weights, series.sums.prefix, series.sums.stretch, edges, slope_cost
        )
        return left
    residuals = np.empty_like(series.values)
    parameters = 0
    for start, end in pairwise([0, *inner, series.count]):
        level, straight = series.sums.cost(start, end)
        line = series.sums.line(start, end)
        is_sloped = straight + slope_cost < level
        slope = line.slope if is_sloped else 0.0
        x = np.arange(start, end) - line.centre
        residuals[start:end] = series.values[start:end] - line.level - slope * x
        parameters += 3 if is_sloped else 2
    return residuals * np.sqrt(series.weights), parameters - 1
