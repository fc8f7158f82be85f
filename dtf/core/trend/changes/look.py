"""One full look at a window of a series: scale, noise, season, partition, and what each boundary is."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.evidence import Boundary, confidence_of, weigh
from dtf.core.trend.changes.jumps import WALKS_FROM, Jump, jumps_of
from dtf.core.trend.changes.noise import (
    Noise,
    clipped,
    middle_of_ordered,
    noise_of_differences,
    ordered_of,
    resolution,
)
from dtf.core.trend.changes.scales import Scale, jacobian_of, offset_of
from dtf.core.trend.changes.search import LEAST_SEGMENT
from dtf.core.trend.changes.segments import Sums
from dtf.core.trend.changes.settling import (
    Series,
    Settled,
    change_cost_of,
    choice_cost_of,
    cost_of,
    moves_of,
    residuals_of,
    series_of,
    settled,
    slope_cost_of,
)
from dtf.core.trend.changes.variance import Spread, apart, spreads_of
from dtf.core.trend.changes.waves import wave_cost
from dtf.core.trend.findings import ChangeKind
from dtf.core.trend.seasonality import find_seasonality

LEAST_VALUES = 2 * LEAST_SEGMENT
"""Finite values below which nothing is said of a series."""
LEAST_FOR_SEASON = 48
"""Values below which no season is looked for."""
PLAIN_SLOPE = 0.5
"""Share of the slope's price at which a line across a boundary is its rival."""
MOST_UNEVEN = 30.0
"""Quotient of two spreads that weights follow at most."""
STEPS_TAKEN_OUT_UP_TO = 256
"""Values up to which a season that is not seen is looked for behind a step as well."""
STEP_EXPLAINS = 0.2
"""Share of the variance that such a step explains at least."""
CHANCE_OF_A_PHASE = 0.01
"""Chance below which changes that all come at one phase of the season are its varying height."""
MOST_SPAN = 3
"""Positions a finite value, on average, beyond which no season is looked for."""


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
    scale: Scale
    """Of the boundaries' levels."""
    noise: Noise
    season: Season | None
    """In the values' own scale."""
    spreads: tuple[Spread, ...] = ()
    """Changes of the noise, in the same units as levels."""


@dataclass(frozen=True, slots=True)
class _View:
    """The window on one scale."""

    known: Vector
    """Without the season."""
    scale: Scale
    series: Series
    settled: Settled
    season: Season | None
    """What was taken out; None: nothing was."""

    @property
    def cost(self) -> float:
        """Comparable between scales."""
        return cost_of(self.series, self.settled) + 2.0 * len(self.known) * math.log(self.scale.unit)


def look_at(positions: Places, values: Vector, weights: Vector, season: Season | None) -> Look:
    """What finite values at rising positions, with the weight of each, say, this season given."""
    if len(values) < LEAST_VALUES or float(values.min()) == float(values.max()):
        return Look((), Scale(), Noise(1.0, 0.0, 1.0), None)
    weights = weights / weights.mean()
    ordered = ordered_of(values)
    view = _view(values - season.at(positions) if season else values, weights, season, Scale())
    offset = offset_of(ordered)
    if offset is not None:
        logarithms = np.log(values + offset)
        repeated = season_of(positions, logarithms)
        level = logarithms - repeated.at(positions) if repeated else logarithms
        scale = Scale(is_logarithmic=True, offset=offset)
        other = _view(level, weights, repeated, scale)
        if other.cost + jacobian_of(logarithms) + choice_cost_of(len(values)) < view.cost:
            view = other
    return _look(view, weights, season)


def _look(view: _View, weights: Vector, season: Season | None) -> Look:
    """Levels and spreads; where the spread changes, levels are told anew with each value weighed by its own."""
    inner = _standing(view)
    spreads = _spreads(view, inner, weights)
    if spreads:
        again = _view(view.known, _evened(weights, spreads), view.season, view.scale)
        view, inner = again, _standing(again)
        spreads = apart(_spreads(view, inner, weights), inner)
    found = sorted([*_boundaries(view, inner), *_jumps(view, inner)], key=lambda each: each.place)
    return Look(tuple(found), view.scale, view.settled.noise, season, tuple(spreads))


def _jumps(view: _View, inner: list[int]) -> list[Boundary]:
    """The jumps of a series that walks, as boundaries; the partition has none of them."""
    series, noise = view.series, view.settled.noise
    if noise.memory < WALKS_FROM:
        return []
    moves = moves_of(residuals_of(series, inner, noise)[0])
    jumps = jumps_of(series.values, moves, inner)
    edges = sorted({0, series.count, *inner, *(jump.place for jump in jumps)})
    return [_boundary_of(jump, edges) for jump in jumps]


def _boundary_of(jump: Jump, edges: list[int]) -> Boundary:
    at = edges.index(jump.place)
    return Boundary(
        place=jump.place,
        start=edges[at - 1],
        end=edges[at + 1],
        kind=ChangeKind.STEP,
        gain=jump.score**2,
        confidence=confidence_of(jump.score**2, edges[-1]),
        first=jump.place,
        last=jump.place + jump.width - 1,
        level_before=jump.before,
        level_after=jump.after,
        deviation_before=jump.deviation,
        deviation_after=jump.deviation,
        is_lasting=True,
    )


def _spreads(view: _View, inner: list[int], weights: Vector) -> list[Spread]:
    """The changes of the noise around a partition, for values of weight 1."""
    found = view.settled
    left = found.residuals
    if inner != found.inner or not found.is_plain:
        left = residuals_of(view.series, inner, found.noise)[0]
    even = left if weights is view.series.weights else left * np.sqrt(weights / view.series.weights)
    return spreads_of(even, inner, view.settled.noise, view.series.least_variance)


def _evened(weights: Vector, spreads: list[Spread]) -> Vector:
    """Weights that make the noise the same everywhere."""
    evened: Vector = weights.copy()
    for spread in spreads:
        ratio = min(max(spread.before / spread.after, 1.0 / MOST_UNEVEN), MOST_UNEVEN)
        evened[spread.place :] *= ratio * ratio
    evened /= evened.mean()
    return evened


def _view(known: Vector, weights: Vector, season: Season | None, scale: Scale) -> _View:
    """Values on that scale, without their season, settled without spikes."""
    ordered = ordered_of(known)
    grain = resolution(ordered)
    rough = noise_of_differences(known, grain)
    centre = middle_of_ordered(ordered)
    pulled = (clipped(known, rough.sigma) - centre) / rough.sigma
    series = series_of(pulled, weights, grain / rough.sigma)
    found = settled(series)
    return _View(
        known,
        replace(scale, centre=centre, unit=rough.sigma),
        series,
        found,
        season,
    )


def _standing(view: _View) -> list[int]:
    """The view's changes that stand beside their rivals."""
    inner = _pruned(view.series.sums, view.settled.inner, view.settled.noise)
    if view.season is not None:
        return [] if _is_of_the_season(view, inner, view.season) else inner
    return [] if inner and _is_wave(view.series, inner, view.settled.noise) else inner


def _is_of_the_season(view: _View, inner: list[int], season: Season) -> bool:
    """Whether what repeats is of varying height: changes come at one phase of it too often for an accident.

    No level is then further from another than the season is high: what is, changed at the hour at which things change.
    """
    if len(inner) < 2 or not _is_of_one_phase(inner, season.period):
        return False
    sums = view.series.sums.prefix[:, [0, *inner, view.series.count]]
    weight, total = np.diff(sums[0]), np.diff(sums[3])
    height = (max(season.pattern) - min(season.pattern)) / view.scale.unit
    return float(np.ptp(total / weight)) <= height


def _is_of_one_phase(inner: list[int], period: int) -> bool:
    phases = np.sort(np.array(inner) % period)
    gaps = np.diff(np.append(phases, phases[0] + period))
    width = period - int(gaps.max()) + 1
    return float(len(inner) * (width / period) ** (len(inner) - 1)) < CHANCE_OF_A_PHASE


def _boundaries(view: _View, inner: list[int]) -> tuple[Boundary, ...]:
    """These changes, weighed."""
    series, noise = view.series, view.settled.noise
    slope_cost = slope_cost_of(noise, series.count)
    edges = [0, *inner, series.count]
    return tuple(
        weigh(series.sums, series.values, (a, b, c), noise, slope_cost)
        for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
    )


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
    rest = _without_step(values) if found is None and len(values) <= STEPS_TAKEN_OUT_UP_TO else None
    if rest is not None:
        grid[offsets] = rest
        found = find_seasonality(grid)
    return None if found is None else Season(found.period, int(positions[0]), found.pattern)


def _without_step(values: Vector) -> Vector | None:
    """The values with the two levels, parted where that explains most, made one; None where it explains little.

    A step hides a season of few cycles.
    """
    count = len(values)
    before = np.arange(LEAST_SEGMENT, count - LEAST_SEGMENT + 1)
    deviations = values - values.mean()
    sums = deviations.cumsum()[before - 1]
    explained = sums * sums / (before * (count - before) / count)
    best = int(explained.argmax())
    if float(explained[best]) < STEP_EXPLAINS * float(deviations @ deviations):
        return None
    cut = int(before[best])
    level: Vector = values.copy()
    level[cut:] -= values[cut:].mean() - values[:cut].mean()
    return level


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


def _is_wave(series: Series, inner: list[int], noise: Noise) -> bool:
    """Whether one wave on a line, at the price of one change and the line, does what the partition does at its price.

    The line is at Schwarz's price while a season would not be seen yet.
    """
    count = series.count
    change, slope = change_cost_of(noise, count), slope_cost_of(noise, count)
    parts = (_cheaper(series.sums, start, end, slope) for start, end in pairwise([0, *inner, count]))
    partition = sum(parts) + change * len(inner)
    line = slope if count >= LEAST_FOR_SEASON else slope * PLAIN_SLOPE
    return wave_cost(series.values, series.weights) + change + line <= partition
