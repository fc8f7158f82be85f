"""The rival of every change: one wave of any period on a straight line.

A season is known only after several cycles; until then its rises and falls look like changes. So changes are
believed only where they explain a stretch better than the best single wave does.
"""

from functools import lru_cache

import numpy as np

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.compiled import loaded_kernels

SHORTEST_PERIOD = 8.0
LONGEST_EXPECTED = 48.0
"""Positions: a season of a day of hours, seen in part, may be longer than the stretch; beyond, only within it."""
PERIODS = 32
"""Periods tried, in geometric steps."""


KEPT_UP_TO = 128
"""Length up to which waves are kept for each: an alarm asks for those of some dozen lengths again and again."""


def wave_cost(values: Vector, weights: Vector) -> float:
    """Weighted sum of squares that the best wave on a line leaves of the values."""
    count = len(values)
    is_plain = bool((weights == 1.0).all())
    waves, x, plain = _kept_shapes(count) if count <= KEPT_UP_TO else _shapes(count)
    weighted = values if is_plain else values * weights
    terms = np.empty((count, 3))
    terms[:, 0], terms[:, 1], terms[:, 2] = weights, x if is_plain else weights * x, weighted
    sums = waves @ terms
    normal = plain if is_plain else _normal(waves, x, weights)
    right = np.empty((PERIODS, 4))
    right[:, 0], right[:, 1] = weighted.sum(), weighted @ x
    right[:, 2], right[:, 3] = sums[:PERIODS, 2], sums[PERIODS:, 2]
    solution = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    solution *= right
    explained = solution.sum(axis=1)
    return max(float(weighted @ values) - float(explained.max()), 0.0)


def _normal(waves: Vector, x: Vector, weights: Vector) -> Vector:
    """Weighted products of level, slope, cosine and sine for each period; shape (PERIODS, 4, 4)."""
    terms = np.stack([weights, weights * x, x], axis=1)  # as many columns as there are with the values
    sums = waves @ terms
    cosines, sines = waves[:PERIODS], waves[PERIODS:]
    weighed = cosines * weights
    squares = np.einsum("pc,pc->p", weighed, cosines)
    products = np.einsum("pc,pc->p", weighed, sines)
    total = float(weights.sum())
    normal: Vector = np.empty((PERIODS, 4, 4))
    normal[:, 0, 0] = total
    normal[:, 0, 1] = normal[:, 1, 0] = terms[:, 1].sum()
    normal[:, 1, 1] = terms[:, 1] @ x
    for row in (0, 1):
        normal[:, row, 2] = normal[:, 2, row] = sums[:PERIODS, row]
        normal[:, row, 3] = normal[:, 3, row] = sums[PERIODS:, row]
    normal[:, 2, 2], normal[:, 3, 3] = squares, total - squares
    normal[:, 2, 3] = normal[:, 3, 2] = products
    normal += 1e-9 * len(x) * np.eye(4)
    return normal


@lru_cache(maxsize=6)
def _shapes(count: int) -> tuple[Vector, Vector, Vector]:
    """The waves, what is a line, and `_normal` of both where all weights are 1."""
    waves = _waves(count)
    x = np.arange(count) / count - 0.5
    return waves, x, _normal(waves, x, np.ones(count))


_kept_shapes = lru_cache(maxsize=KEPT_UP_TO)(_shapes.__wrapped__)


def _waves(count: int) -> Vector:
    """Cosine, then sine of each period at each position, by doubling what is there; shape (2 PERIODS, count)."""
    longest = max(LONGEST_EXPECTED, count / 1.5)
    periods = SHORTEST_PERIOD * (longest / SHORTEST_PERIOD) ** (np.arange(PERIODS) / (PERIODS - 1.0))
    angles = 2.0 * np.pi / periods
    waves = np.empty((2, PERIODS, count))
    waves[0, :, 0], waves[1, :, 0] = 1.0, 0.0
    doublings = 2.0 ** np.arange((count - 1).bit_length())[:, None]
    turns = np.stack([np.cos(doublings * angles), np.sin(doublings * angles)])
    compiled = loaded_kernels()
    (compiled.turned if compiled is not None else _turned)(waves, turns)
    return waves.reshape(2 * PERIODS, count)


def _turned(waves: Vector, turns: Vector) -> None:
    """Fills in waves, shape (2, PERIODS, count), whose first position is there, by doubling; turns: (2, doublings, PERIODS)."""
    count = waves.shape[2]
    term_of = np.empty((PERIODS, (count + 1) // 2))
    done = 1
    for turn_cos, turn_sin in zip(*turns[:, :, :, None], strict=True):
        more = min(done, count - done)
        cosines, sines = waves[:, :, :more]
        next_cosines, next_sines = waves[:, :, done : done + more]
        term = term_of[:, :more]
        np.multiply(cosines, turn_cos, out=next_cosines)
        np.subtract(next_cosines, np.multiply(sines, turn_sin, out=term), out=next_cosines)
        np.multiply(cosines, turn_sin, out=next_sines)
        np.add(next_sines, np.multiply(sines, turn_cos, out=term), out=next_sines)
        done += more
