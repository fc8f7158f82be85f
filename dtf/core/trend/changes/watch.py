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
from dtf.core.trend.changes.evidence import LOCATION_DROP
from dtf.core.trend.changes.regime import (
    BAR,
    COUNTS,
    REACH,
    SUSPECTED_FROM,
    SUSPICION,
    VALUE_LIMIT,
    Regime,
    bounds_of,
    limited_to,
)
from dtf.core.trend.compiled import loaded_kernels

SHORT_LIMIT = 8.0
"""Standard deviations to which each of the few values is limited that ranks have a say in."""
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


def watch(
    regime: Regime, positions: Places, values: Vector, weights: Vector, fresh: int, calm: int
) -> Alarm | None:
    """The first of the `fresh` newest values that raises an alarm, or, behind the first `calm`, a suspicion.

    The values before the fresh ones are their context; none may be part of what the regime was told from.
    """
    line = regime.line
    compiled = loaded_kernels()
    if compiled is not None and compiled.is_calm(
        positions,
        values,
        weights,
        (line.centre, line.level, line.slope, regime.sigma, regime.weight_unit),
        regime.bounds,
        fresh,
        (VALUE_LIMIT, FAR_AT, RANKED_UP_TO),
    ):
        return None
    weights = weights / regime.weight_unit
    deviations = (values - line.level - line.slope * (positions - line.centre)) / regime.sigma
    if compiled is None and _is_calm(regime, deviations, weights, fresh):
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


def _is_calm(regime: Regime, deviations: Vector, weights: Vector, fresh: int) -> bool:
    """Whether no score can count, as a bound says that knows the regime's line exactly: most blocks end here."""
    size = float(max(deviations.max(), -deviations.min()))
    if size > FAR_AT or not (weights == weights[0]).all():
        return False
    reach = min(REACH, len(deviations))
    few = min(RANKED_UP_TO, reach)
    weight = float(weights[0])
    bounds = regime.bounds if weight == 1.0 else bounds_of(regime.inflation, weight, regime.quantile)
    if size > VALUE_LIMIT:
        if _is_beyond(deviations, bounds[:few], fresh):
            return False
        deviations = limited_to(deviations, VALUE_LIMIT)
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
    plausible_far = _plausible_far(regime.sizes)[:reach] if is_far.any() else COUNTS[:reach]
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
    limited = limited_to(deviations, VALUE_LIMIT) * weights
    total, share = _newest(limited, reach), _newest(weights, reach)
    is_far = np.abs(deviations) > FAR_AT
    if is_far.any():
        is_accident = _newest(is_far.astype(np.float64), reach) <= plausible_far[:, None]
        total = np.where(is_accident, _newest(np.where(is_far, 0.0, limited), reach), total)
        share = np.where(is_accident, _newest(np.where(is_far, 0.0, weights), reach), share)
        share[:few] = _newest(weights, few)
    total[:few] = _newest(limited_to(deviations, SHORT_LIMIT) * weights, few)
    share = np.maximum(share, 1e-12)
    counts = COUNTS[:reach, None]
    middle = positions[None, :] - (counts - 1.0) / 2.0
    tilt = (middle - line.centre) ** 2 / line.spread
    error = regime.inflation[:reach, None] / share + regime.long_run * (1.0 / line.weight + tilt)
    scores: Vector = total / share / np.sqrt(error) / regime.quantile
    scores[counts > np.arange(1, len(deviations) + 1)] = 0.0
    return np.abs(scores, out=scores)


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


def _plausible_far(sizes: Vector) -> Vector:
    """For k values: how many far ones are an accident of these sizes' tail (Poisson); shape (REACH,)."""
    seen = int(np.count_nonzero(sizes >= FAR_AT))
    rate = (seen + UNSEEN) / (len(sizes) + 1.0)
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
    tail = np.sort(regime.sizes)
    rare = np.zeros((reach, count), dtype=np.bool_)
    low = high = deviations
    for k in range(2, min(reach, count) + 1):
        low, high = np.minimum(low[:-1], deviations[k - 1 :]), np.maximum(high[:-1], deviations[k - 1 :])
        nearest = np.maximum(low, -high) * RANK_MARGIN[k - 1]
        beyond = len(tail) - tail.searchsorted(nearest)
        chance = k * np.log((beyond + UNSEEN) / (len(tail) + 1.0))
        rare[k - 1, k - 1 :] = (nearest > 0.0) & (chance <= math.log(RANK_CHANCE))
    return rare
