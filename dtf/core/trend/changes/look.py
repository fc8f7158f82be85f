"""One full look at a window of a series: noise, season, partition, and what each boundary is."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.evidence import Boundary, weigh
from dtf.core.trend.changes.noise import (
    Noise,
    clipped,
    middle_of_ordered,
    noise_of_differences,
    noise_of_residuals,
    noise_of_turns,
    ordered_of,
    resolution,
)
from dtf.core.trend.changes.search import LEAST_SEGMENT, Search
from dtf.core.trend.changes.segments import Sums
from dtf.core.trend.changes.waves import wave_cost
from dtf.core.trend.seasonality import find_seasonality

LEAST_VALUES = 2 * LEAST_SEGMENT
"""Finite values below which nothing is said of a series."""
CHANGE_PRICE = 3.0
"""Price of a change in units of ln n long-run variances. Schwarz's criterion for a level, a slope and a place
would be 3; simulation of six families of noise without changes says how often that is wrong
(docs/statistics.md)."""
SLOPE_PRICE = 2.0
"""Price of a slope in the same units."""
LEAST_FOR_SEASON = 48
"""Values below which no season is looked for."""
PLAIN_SLOPE = 0.5
"""Share of the slope's price at which a line across a boundary is its rival."""
MOST_SPAN = 3
"""Positions a finite value, on average, beyond which no season is looked for."""
LONG_MEMORY = 0.5
"""Autocorrelation of the noise from which on it may be a shape that was not seen."""
SMALL_SAMPLE = 16.0
"""Values' worth of doubt in the noise itself: prices rise by 1 + this / n."""


@dataclass(frozen=True, slots=True)
class Season:
    """A repetition whose pattern begins at position `origin`."""

    period: int
    origin: int
    pattern: tuple[float, ...]

    def at(self, positions: Places) -> Vector:
        """Deviation from the level at each position."""
        deviation: Vector = np.array(self.pattern)[(positions - self.origin) % self.period]
        return deviation


@dataclass(frozen=True, slots=True)
class Look:
    """What a window says; places of boundaries count its values."""

    boundaries: tuple[Boundary, ...]
    centre: float
    scale: float
    """value = centre + scale * level."""
    noise: Noise
    season: Season | None


def look_at(positions: Places, values: Vector, weights: Vector, season: Season | None) -> Look:
    """What finite values at rising positions, with the weight of each, say, this season given."""
    if len(values) < LEAST_VALUES or float(values.min()) == float(values.max()):
        return Look((), 0.0, 1.0, Noise(1.0, 0.0, 1.0), None)
    if season is not None:
        values = values - season.at(positions)
    return _look_at_level(values, weights / weights.mean(), season)


def season_of(positions: Places, values: Vector) -> Season | None:
    """The repetition of finite values at rising positions, if there is one."""
    if len(values) < LEAST_FOR_SEASON:
        return None
    offsets = positions - positions[0]
    span = int(offsets[-1]) + 1
    if span > MOST_SPAN * len(values):
        return None
    grid = np.full(span, np.nan)
    grid[offsets] = values
    found = find_seasonality(grid)
    return None if found is None else Season(found.period, int(positions[0]), found.pattern)


def _look_at_level(known: Vector, weights: Vector, season: Season | None) -> Look:
    ordered = ordered_of(known)
    grain = resolution(ordered)
    rough = noise_of_differences(known, grain)
    centre = middle_of_ordered(ordered)
    pulled = (clipped(known, rough.sigma) - centre) / rough.sigma
    grain /= rough.sigma
    sums = Sums(np.arange(len(pulled), dtype=np.float64), pulled, weights)
    noise, inner = _settled(sums, pulled, weights, grain)
    inner = _pruned(sums, inner, noise)
    if inner and season is None and _is_wave(sums, pulled, weights, inner, noise):
        inner = []
    slope_cost = slope_cost_of(noise, len(pulled))
    edges = [0, *inner, len(pulled)]
    boundaries = tuple(
        weigh(sums, pulled, (a, b, c), noise, slope_cost)
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
    )
    return Look(boundaries, centre, rough.sigma, noise, season)


def _pruned(sums: Sums, inner: list[int], noise: Noise) -> list[int]:
    """The boundaries without those that a line across is worth as much as, at Schwarz's price of a slope; weakest first."""
    change, slope = change_cost_of(noise, sums.length), slope_cost_of(noise, sums.length)
    kept = list(inner)
    while kept:
        edges = [0, *kept, sums.length]
        parts = [_cheaper(sums, start, end, slope) for start, end in pairwise(edges)]
        excess = [
            parts[at] + parts[at + 1] + change - _cheaper(sums, edges[at], edges[at + 2], slope * PLAIN_SLOPE)
            for at in range(len(kept))
        ]
        weakest = max(range(len(kept)), key=excess.__getitem__)
        if excess[weakest] <= 0.0:
            break
        del kept[weakest]
    return kept


def _cheaper(sums: Sums, start: int, end: int, slope: float) -> float:
    level, line = sums.cost(start, end)
    return min(level, line + slope)


def _is_wave(sums: Sums, values: Vector, weights: Vector, inner: list[int], noise: Noise) -> bool:
    """Whether one wave on a line, at the price of one change, does what the partition does at the price of its changes."""
    count = len(values)
    change, slope = change_cost_of(noise, count), slope_cost_of(noise, count)
    parts = (_cheaper(sums, start, end, slope) for start, end in pairwise([0, *inner, count]))
    partition = sum(parts) + change * len(inner)
    return wave_cost(values, weights) + change <= partition


def change_cost_of(noise: Noise, count: int) -> float:
    return CHANGE_PRICE * math.log(count) * (1.0 + SMALL_SAMPLE / count) * noise.long_run_variance


def slope_cost_of(noise: Noise, count: int) -> float:
    return SLOPE_PRICE * math.log(count) * (1.0 + SMALL_SAMPLE / count) * noise.long_run_variance


def _settled(sums: Sums, values: Vector, weights: Vector, grain: float) -> tuple[Noise, list[int]]:
    """Noise and partition that agree.

    A smooth series with a turn is two lines with little noise, or none with a noise of long memory: both
    agree with themselves. Where memory is long, the one that begins with little noise is tried as well. It
    holds where its residuals are likelier, as an autoregression and at the price of its changes and slopes,
    than those of the other and of one smooth bend over everything.
    """
    search = Search(sums)
    first = _agreed(search, sums, values, weights, noise_of_differences(values, grain), grain)
    if first[0].memory < LONG_MEMORY:
        return first
    second = _agreed(search, sums, values, weights, noise_of_turns(values, grain), grain)
    if second[1] == first[1]:
        return first
    count = len(values)
    costs = []
    for noise, inner in (first, second):
        residuals, parameters = _residuals(sums, values, weights, inner, noise)
        costs.append(_criterion(residuals, grain) + _price(inner, parameters, count))
    costs += [
        _criterion(_bent(values, weights, degree), grain) + SLOPE_PRICE * degree * _unit(count)
        for degree in (2, 3)
    ]
    return second if min(costs) == costs[1] else first


def _agreed(
    search: Search, sums: Sums, values: Vector, weights: Vector, noise: Noise, grain: float
) -> tuple[Noise, list[int]]:
    """A partition under this noise, noise from its residuals, and so on until nothing changes."""
    inner = _partition(search, noise, len(values))
    for _ in range(3):
        again = noise_of_residuals(*_residuals(sums, values, weights, inner, noise), grain)
        cut = _partition(search, again, len(values))
        noise, previous, inner = again, inner, cut
        if cut == previous:
            break
    return noise, inner


def _criterion(residuals: Vector, grain: float) -> float:
    """Twice the negative log likelihood of residuals as an autoregression of order one, but for a constant."""
    total = float(residuals[:-1] @ residuals[:-1])
    memory = min(max(float(residuals[1:] @ residuals[:-1]) / total, 0.0), 1.0) if total > 0.0 else 0.0
    innovations = residuals[1:] - memory * residuals[:-1]
    variance = max(float(innovations @ innovations) / len(innovations), (grain * 0.29) ** 2)
    return len(residuals) * math.log(variance)


def _price(inner: list[int], parameters: int, count: int) -> float:
    """Of a partition's changes and slopes, in the same units."""
    slopes = parameters + 1 - 2 * (len(inner) + 1)
    return (CHANGE_PRICE * len(inner) + SLOPE_PRICE * slopes) * _unit(count)


def _unit(count: int) -> float:
    return math.log(count) * (1.0 + SMALL_SAMPLE / count)


def _bent(values: Vector, weights: Vector, degree: int) -> Vector:
    """Weighted residuals of one smooth bend over everything, a polynomial of this degree."""
    x = np.linspace(-1.0, 1.0, len(values))
    root = np.sqrt(weights)
    fitted = np.polynomial.legendre.legvander(x, degree)
    solution = np.linalg.lstsq(fitted * root[:, None], values * root, rcond=None)[0]
    left: Vector = (values - fitted @ solution) * root
    return left


def _partition(search: Search, noise: Noise, count: int) -> list[int]:
    return search.best_partition(
        change_cost=change_cost_of(noise, count), slope_cost=slope_cost_of(noise, count)
    )


def _residuals(
    sums: Sums, values: Vector, weights: Vector, inner: list[int], noise: Noise
) -> tuple[Vector, int]:
    """Weighted residuals of the partition and how many parameters it has."""
    slope_cost = slope_cost_of(noise, sums.length)
    residuals = np.empty_like(values)
    parameters = 0
    for start, end in zip([0, *inner], [*inner, sums.length], strict=True):
        level, straight = sums.cost(start, end)
        line = sums.line(start, end)
        is_sloped = straight + slope_cost < level
        slope = line.slope if is_sloped else 0.0
        x = np.arange(start, end) - line.centre
        residuals[start:end] = values[start:end] - line.level - slope * x
        parameters += 3 if is_sloped else 2
    return residuals * np.sqrt(weights), parameters - 1
