"""Noise and partition that agree, and which of several that do.

The noise is told from what a partition leaves, and the partition is priced by the noise: several pairs may agree with
themselves. A random walk is a walk, or many steps; a smooth series with a turn is two lines, or noise of long memory;
jumps between plateaus look like memory too. So where the noise seems to remember long, or changes are many, the
partitions under prices from high to low stand beside no change and beside one smooth bend over everything, and the
likeliest is taken, and mended by single cuts, more, fewer or elsewhere, while that helps: by the innovations that its
residuals leave as an autoregression of order two, at the price of its changes and slopes. Order two, for waves without
a clock, as economies make them, are no pieces of lines; what is next to a change does not count, for a change may take
a value or two.
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
from dtf.core.trend.changes.search import LEAST_SEGMENT, Search, profile
from dtf.core.trend.changes.segments import Line, Sums
from dtf.core.trend.compiled import loaded_kernels

CHANGE_PRICE = 3.0
"""Price of a change in units of ln n long-run variances. Schwarz's criterion for a level, a slope and a place
would be 3; simulation of six families of noise without changes says how often that is wrong
(docs/statistics.md)."""
SLOPE_PRICE = 2.0
"""Price of a slope in the same units."""
PARAMETER_PRICE = 1.0
"""Price of a slope, of a bend's degree, and of the level that two lines which meet share, where innovations are
compared: Schwarz's."""
MEETS = 2.0
"""Standard errors up to which two lines meet."""
MOST_MENDS = 8
"""Times that a partition is mended, at most."""
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
    found = Settled(noise, inner, residuals, _price_of(series, inner, parameters, noise))
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
    """The cheapest of this partition, those of a path of prices with what mends them, and one bend over everything."""
    tried: _Tried | None = None
    waited = 0
    for cuts in _rivals(series, first.inner):
        rival = _try(series, cuts)
        waited += 1
        if tried is None or rival.cost < tried.cost:
            tried, waited = rival, 0
        elif waited >= PATIENCE:
            break
    assert tried is not None  # the first rival is the partition itself
    tried = _mended(series, tried)
    best, least = _settled_on(series, tried, first), tried.cost
    for degree in BENDS:
        residuals = _bent(series, degree)
        price = PARAMETER_PRICE * degree * _unit(series.count)
        bend = Settled(first.noise, [], residuals, price, is_plain=False)
        cost = cost_of(series, bend)
        if cost < least:
            noise = noise_of_residuals(residuals, degree + 1, series.grain)
            best, least = replace(bend, noise=noise), cost
    return best


@dataclass(frozen=True, slots=True)
class _Tried:
    """A partition, what it leaves, and its cost."""

    cuts: list[int]
    residuals: Vector
    parameters: int
    price: float
    cost: float


def _try(series: Series, cuts: list[int]) -> _Tried:
    """The partition whose slopes pay by the residuals' own variance."""
    noise = _plain_noise(series, cuts)
    residuals, parameters = residuals_of(series, cuts, noise)
    price = _price_of(series, cuts, parameters, noise)
    return _Tried(cuts, residuals, parameters, price, _innovation_cost(series, residuals, cuts) + price)


def _settled_on(series: Series, tried: _Tried, first: Settled) -> Settled:
    """The first partition keeps the noise that it agrees with."""
    noise = first.noise
    if tried.cuts != first.inner:
        noise = noise_of_residuals(tried.residuals, tried.parameters, series.grain)
    return Settled(noise, tried.cuts, tried.residuals, tried.price, is_plain=False)


def _mended(series: Series, best: _Tried) -> _Tried:
    """By one cut more, fewer or elsewhere, whichever helps most, again and again."""
    for _ in range(MOST_MENDS):
        rivals = (_try(series, cuts) for cuts in _neighbours(series, best.cuts))
        better = min(rivals, key=lambda each: each.cost, default=best)
        if better.cost >= best.cost:
            break
        best = better
    return best


def _neighbours(series: Series, cuts: list[int]) -> Iterator[list[int]]:
    """The partitions with one cut more, one fewer, or one elsewhere: where it saves most."""
    slope_cost = slope_cost_of(_plain_noise(series, cuts), series.count)
    edges = [0, *cuts, series.count]
    for at, (start, end) in enumerate(pairwise(edges)):
        place = _best_cut(series.sums, start, end, slope_cost)
        if place is not None:
            yield [*cuts[:at], place, *cuts[at:]]
    for at, cut in enumerate(cuts):
        yield [*cuts[:at], *cuts[at + 1 :]]
        place = _best_cut(series.sums, edges[at], edges[at + 2], slope_cost)
        if place is not None and place != cut:
            yield [*cuts[:at], place, *cuts[at + 1 :]]


def _best_cut(sums: Sums, start: int, end: int, slope_cost: float) -> int | None:
    """Where cutting a stretch saves most; None if it is too short."""
    if end - start < 2 * LEAST_SEGMENT:
        return None
    costs = profile(sums, start, end, slope_cost)
    return start + LEAST_SEGMENT + int(costs[LEAST_SEGMENT - 1 : end - start - LEAST_SEGMENT].argmin())


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


def _price_of(series: Series, inner: list[int], parameters: int, noise: Noise) -> float:
    slopes = parameters + 1 - 2 * (len(inner) + 1)
    joints = _joints(series, inner, noise) if slopes else 0
    return (CHANGE_PRICE * len(inner) + PARAMETER_PRICE * (slopes - joints)) * _unit(series.count)


def _joints(series: Series, inner: list[int], noise: Noise) -> int:
    """Cuts at which two lines, one of them sloped, are as near to each other as their errors allow."""
    slope_cost = slope_cost_of(noise, series.count)
    lines = []
    for start, end in pairwise([0, *inner, series.count]):
        level, straight = series.sums.cost(start, end)
        line = series.sums.line(start, end)
        lines.append(line if straight + slope_cost < level else line.flat())
    return sum(
        _meets(before, after, cut - 0.5, noise)
        for (before, after), cut in zip(pairwise(lines), inner, strict=True)
        if before.slope != 0.0 or after.slope != 0.0
    )


def _meets(before: Line, after: Line, at: float, noise: Noise) -> bool:
    gap = after.at(at) - before.at(at)
    error = (after.variance_at(at) + before.variance_at(at)) * noise.sigma**2
    return gap * gap < MEETS**2 * error


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


def _plain_noise(series: Series, cuts: list[int]) -> Noise:
    """As if what the better of levels and lines leave had no memory."""
    parts = [min(series.sums.cost(a, b)) for a, b in pairwise([0, *cuts, series.count])]
    return Noise(math.sqrt(max(sum(parts) / series.count, series.least_variance)), 0.0, 1.0)


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
