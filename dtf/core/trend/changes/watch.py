"""The alarm between two looks: are the newest values still those of the regime?

The newest k values, k = 1 … 32, are compared with what the line through the regime foretells (a scan of
likelihood ratios: Page's cumulative sum, Biometrika 41, 1954, with the size of the change left open). The
regime's own memory and tails set the bar: autocorrelation widens the error of k values' mean; values are
limited; lone far ones, as frequent as the regime has had them, are left out; and two to four values in a row
have to be rarer, by the ranks the regime gives them, than a thousand points may show by chance.
"""

import math
from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Flags, Places, Vector
from dtf.core.trend.changes.compiled import loaded_kernels
from dtf.core.trend.changes.evidence import LOCATION_DROP
from dtf.core.trend.changes.noise import (
    MOST_MEMORY,
    clipped,
    long_run_of,
    middle_of,
    middle_of_ordered,
    noise_of_differences,
    noise_of_residuals,
    ordered_of,
    resolution,
)
from dtf.core.trend.changes.segments import Line, line_through
from dtf.core.trend.changes.waves import wave_cost

LEAST_REGIME = 8
"""Values that a regime has at least before it is watched."""
LONGEST_REGIME = 256
"""Newest values of a regime that are its memory: enough to know tails of one in a hundred."""
REACH = 32
"""Newest values that are compared at most."""
BAR = 4.0
"""Standard errors beyond which the newest values are another regime's; by simulation (docs/statistics.md)."""
SEARCHED = (100, 2_000)
"""Positions up to which BAR is enough, and from which on it rises no more: who watches longer searches more. In
between the chance beyond the bar falls as one over the position, as a normal law's tail does."""
HEAVY = 6.0
"""By what the bar rises for each share of values beyond 3 standard deviations that a normal law has not."""
SUSPICION = 3.5
"""Standard errors beyond which a full look is worth its time."""
SUSPECTED_FROM = 6
"""Values in a row from which on there is suspicion: fewer are an alarm's matter."""
VALUE_LIMIT = 3.5
"""Standard deviations to which a value is limited in the mean of many."""
SHORT_LIMIT = 8.0
"""The same for the few values that ranks have a say in."""
FAR_AT = 5.0
"""Standard deviations beyond which a value is far: left out where the regime has such."""
FAR_CHANCE = 1e-4
"""Chance below which so many far values among k are no accident."""
UNSEEN = 0.3
"""Values' worth of doubt in a tail that was not seen."""
RANK_CHANCE = 4e-5
"""Chance below which k values in a row beyond a level are no accident of the tail."""
RANK_MARGIN = (0.7, 0.7, 0.9, 1.0, 1.0, 1.0)
"""By what the nearest of k values is drawn in before it is ranked, by k - 1: a new record is no new regime."""
RANKED_UP_TO = len(RANK_MARGIN)
"""Values in a row up to which ranks have a say: beyond, means are normal enough."""

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
    tail: Vector
    """Absolute residuals in standard deviations, ascending."""
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


@dataclass(frozen=True, slots=True)
class Alarm:
    """The newest `count` values are another regime's, or may be."""

    offset: int
    """Of the value that raised it, in the block that was watched."""
    count: int
    most: int
    least: int
    """The regime may as well have begun with the newest `most` … `least` values."""
    score: float
    """Standard errors, as a normal law's."""
    is_sure: bool
    """Beyond BAR; else only worth a full look."""


def regime_of(positions: Places, values: Vector, weights: Vector) -> Regime | None:
    """The regime that these values are; None where they are too few or all the same."""
    count = len(values)
    if count < LEAST_REGIME:
        return None
    unit = float(weights.sum()) / count
    weights = weights / unit
    ordered = ordered_of(values)
    grain = resolution(ordered)
    rough = noise_of_differences(values, grain)
    centre = middle_of_ordered(ordered)
    pulled = clipped(values, rough.sigma) - centre
    pulled /= rough.sigma
    x = (positions - positions[0]).astype(np.float64)
    line = line_through(x, pulled, weights)
    if count < 2 * LEAST_REGIME:
        line = line.flat()
    residuals = values - centre
    residuals /= rough.sigma
    residuals -= line.level
    x -= line.centre
    x *= line.slope
    residuals -= x
    limited = _limited(residuals, VALUE_LIMIT)
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
    tail = np.abs(residuals, out=residuals)
    tail /= sigma
    tail.sort()
    heaviness = max(1.0 - float(tail.searchsorted(3.0)) / count - 0.0027, 0.0)
    inflation = _inflation(memory)
    quantile = _quantile(count, memory, _bar_at(int(positions[-1])), heaviness)
    return Regime(
        line=placed,
        sigma=sigma * rough.sigma,
        memory=memory,
        long_run=long_run_of(memory),
        count=count,
        tail=tail,
        weight_unit=unit,
        inflation=inflation,
        bar=_bar_at(int(positions[-1])),
        quantile=quantile,
        bounds=_bounds(inflation, 1.0, quantile),
    )


def watch(
    regime: Regime, positions: Places, values: Vector, weights: Vector, fresh: int, calm: int
) -> Alarm | None:
    """The first of the `fresh` newest values that raises an alarm, or, behind the first `calm`, a suspicion.

    The values before the fresh ones are their context; none may be part of what the regime was told from.
    """
    line = regime.line
    weights = weights / regime.weight_unit
    deviations = (values - line.level - line.slope * (positions - line.centre)) / regime.sigma
    if _is_calm(regime, deviations, weights, fresh):
        return None
    scores = _scores(regime, positions, deviations, weights)[:, len(values) - fresh :]
    is_over: Flags = np.any(scores >= 1.0, axis=0)
    is_suspect: Flags = np.any(scores[SUSPECTED_FROM - 1 :] >= SUSPICION / BAR, axis=0)
    is_suspect[:calm] = False
    hits = np.flatnonzero(is_over | is_suspect)
    if not len(hits):
        return None
    offset = int(hits[0])
    column = scores[:, offset]
    count = int(column.argmax())
    likely = np.flatnonzero((column * regime.bar) ** 2 >= (column[count] * regime.bar) ** 2 - LOCATION_DROP)
    return Alarm(
        offset,
        count + 1,
        int(likely[-1]) + 1,
        int(likely[0]) + 1,
        float(column[count]) * regime.bar,
        bool(is_over[offset]),
    )


def is_wave(positions: Places, values: Vector, weights: Vector, count: int) -> bool:
    """Whether one wave on a line explains these values as well as a line and a step before the newest `count` do."""
    rough = noise_of_differences(values, resolution(ordered_of(values)))
    old = clipped(values[: len(values) - count], rough.sigma)
    pulled = (np.concatenate([old, values[len(values) - count :]]) - middle_of(values)) / rough.sigma
    x = (positions - positions[0]) / len(values)
    root = np.sqrt(weights)
    step = np.arange(len(values)) >= len(values) - count
    design = np.stack([root, root * x, root * step], axis=1)
    solution = np.linalg.lstsq(design, root * pulled, rcond=None)[0]
    left = root * pulled - design @ solution
    return wave_cost(pulled, weights) <= float(left @ left) * (1.0 + 4.0 / len(values))


def score_since(regime: Regime, positions: Places, values: Vector, weights: Vector) -> float:
    """Score of all these values together, standard errors; limited like an alarm's."""
    count = len(values)
    weights = weights / regime.weight_unit
    line = regime.line
    deviations = (values - line.level - line.slope * (positions - line.centre)) / regime.sigma
    share = float(weights.sum())
    mean = float(np.clip(deviations, -VALUE_LIMIT, VALUE_LIMIT) @ weights) / share
    error = regime.long_run / share + regime.long_run * line.variance_at(
        float(positions[0] + positions[-1]) / 2.0
    )
    return mean / math.sqrt(error) if count else 0.0


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


def _bounds(inflation: Vector, weight: float, quantile: float) -> Vector:
    """What the sums of the newest k values, each of this weight, stay below where nothing counts; shape (REACH,)."""
    bounds: Vector = inflation * COUNTS
    bounds /= weight
    np.sqrt(bounds, out=bounds)
    bounds *= quantile * NEARLY_ALL
    bounds[SUSPECTED_FROM - 1 :] *= SUSPICION / BAR
    return bounds


def _is_calm(regime: Regime, deviations: Vector, weights: Vector, fresh: int) -> bool:
    """Whether no score can count, as a bound says that knows the regime's line exactly: most blocks end here."""
    size = float(max(deviations.max(), -deviations.min()))
    if size > FAR_AT or not (weights == weights[0]).all():
        return False
    reach = min(REACH, len(deviations))
    few = min(RANKED_UP_TO, reach)
    weight = float(weights[0])
    bounds = regime.bounds if weight == 1.0 else _bounds(regime.inflation, weight, regime.quantile)
    if size > VALUE_LIMIT:
        if _is_beyond(deviations, bounds[:few], fresh):
            return False
        deviations = _limited(deviations, VALUE_LIMIT)
    return not _is_beyond(deviations, bounds[:reach], fresh)


def _is_beyond(terms: Vector, bounds: Vector, fresh: int) -> bool:
    """Whether the sum of the newest k terms at one of the `fresh` last places is as large as the k-th bound."""
    reach = len(bounds)
    padded = np.zeros(reach + len(terms))
    terms.cumsum(out=padded[reach:])
    size = padded.itemsize
    first = reach + len(terms) - fresh
    before = np.ndarray((reach, fresh), np.float64, padded, (first - 1) * size, (-size, size))
    sums = padded[first:] - before
    np.abs(sums, out=sums)
    return bool((sums.max(axis=1) >= bounds).any())


def _scores(regime: Regime, positions: Places, deviations: Vector, weights: Vector) -> Vector:
    """Score of the newest k values at each position over the bar, 0 where it must not count; shape (up to REACH, values)."""
    reach = min(REACH, len(deviations))
    few = min(RANKED_UP_TO, reach)
    is_far = np.abs(deviations) > FAR_AT
    plausible_far = _plausible_far(regime.tail)[:reach] if is_far.any() else COUNTS[:reach]
    compiled = loaded_kernels()
    if compiled is None:
        scores = _plain_scores(regime, positions, deviations, weights, plausible_far)
    else:
        line, limits = regime.line, (VALUE_LIMIT, SHORT_LIMIT, FAR_AT)
        known = (line.centre, line.weight, line.spread, regime.long_run)
        errors = regime.inflation[:reach]
        scores = compiled.scores(
            positions, deviations, weights, known, errors, limits, plausible_far, few, regime.quantile
        )
    is_over = scores[:few] >= 1.0
    if is_over.any():
        scores[:few][is_over & ~_is_rare(regime, deviations, few)] = 0.0
    return scores


def _plain_scores(
    regime: Regime, positions: Places, deviations: Vector, weights: Vector, plausible_far: Vector
) -> Vector:
    """The same before ranks have a say; far values are left out where there are no more of them than plausible."""
    line, reach = regime.line, len(plausible_far)
    few = min(RANKED_UP_TO, reach)
    limited = _limited(deviations, VALUE_LIMIT) * weights
    total, share = _newest(limited, reach), _newest(weights, reach)
    is_far = np.abs(deviations) > FAR_AT
    if is_far.any():
        is_accident = _newest(is_far.astype(np.float64), reach) <= plausible_far[:, None]
        total = np.where(is_accident, _newest(np.where(is_far, 0.0, limited), reach), total)
        share = np.where(is_accident, _newest(np.where(is_far, 0.0, weights), reach), share)
        share[:few] = _newest(weights, few)
    total[:few] = _newest(_limited(deviations, SHORT_LIMIT) * weights, few)
    share = np.maximum(share, 1e-12)
    counts = COUNTS[:reach, None]
    middle = positions[None, :] - (counts - 1.0) / 2.0
    tilt = (middle - line.centre) ** 2 / line.spread
    error = regime.inflation[:reach, None] / share + regime.long_run * (1.0 / line.weight + tilt)
    scores: Vector = total / share / np.sqrt(error) / regime.quantile
    scores[counts > np.arange(1, len(deviations) + 1)] = 0.0
    return np.abs(scores, out=scores)


def _limited(deviations: Vector, limit: float) -> Vector:
    limited: Vector = np.minimum(np.maximum(deviations, -limit), limit)
    return limited


def _newest(terms: Vector, reach: int) -> Vector:
    """Sums of the newest 1 … reach terms at each place, what is before the first being 0; shape (reach, terms)."""
    padded = np.zeros(reach - 1 + len(terms))
    padded[reach - 1 :] = terms
    size = padded.itemsize
    shifted = np.ndarray(
        (reach, len(terms)), np.float64, padded, (reach - 1) * size, (-size, size)
    )  # row r: r terms ago
    sums: Vector = shifted.cumsum(axis=0)
    return sums


def _inflation(memory: float) -> Vector:
    """Variance of the sum of k values over k variances, for an autoregression; shape (REACH,)."""
    k = COUNTS
    inflation: Vector = (1.0 + memory) / (1.0 - memory) - 2.0 * memory * (1.0 - memory**k) / (
        k * (1.0 - memory) ** 2
    )
    return inflation


def _plausible_far(tail: Vector) -> Vector:
    """For k values: how many far ones are an accident of this tail (Poisson); shape (REACH,)."""
    seen = len(tail) - int(tail.searchsorted(FAR_AT))
    rate = (seen + UNSEEN) / (len(tail) + 1.0)
    plausible = np.empty(REACH)
    for k in range(1, REACH + 1):
        mean, number = k * rate, 0
        term = math.exp(-mean)
        beyond = 1.0 - term
        while beyond > FAR_CHANCE and number < k:
            number += 1
            term *= mean / number
            beyond -= term
        plausible[k - 1] = number
    return plausible


def _is_rare(regime: Regime, deviations: Vector, reach: int) -> Flags:
    """Whether the newest k values lie on one side and their tail is too thin for an accident; shape (reach, values)."""
    count = len(deviations)
    tail = regime.tail
    rare = np.zeros((reach, count), dtype=np.bool_)
    low = high = deviations
    for k in range(2, min(reach, count) + 1):
        low, high = np.minimum(low[:-1], deviations[k - 1 :]), np.maximum(high[:-1], deviations[k - 1 :])
        nearest = np.maximum(low, -high) * RANK_MARGIN[k - 1]
        beyond = len(tail) - tail.searchsorted(nearest)
        chance = k * np.log((beyond + UNSEEN) / (len(tail) + 1.0))
        rare[k - 1, k - 1 :] = (nearest > 0.0) & (chance <= math.log(RANK_CHANCE))
    return rare
