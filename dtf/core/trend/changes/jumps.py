"""Jumps of a series that walks: of a rate, a price, a smooth wave, which no level stays long enough to be compared with.

The moves that an autoregression of order two does not foretell have a spread of their own. One, or the sum of three,
that is far beyond it, beyond the other far ones, and does not come back, is a jump (Tsay, Journal of Forecasting 7,
1988: a level shift).
"""

import math
from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.noise import SIGMA_PER_MAD, middle_of

WALKS_FROM = 0.8
"""Autocorrelation of the noise from which on a series walks."""
WIDTHS = (1, 3)
"""Values that a jump takes."""
LEAST_JUMP = 6.0
"""Standard deviations of a move that it has at least."""
STANDS_OUT = 2.5
"""Quotient of a jump and the far moves that are none, at least: the tail of moves may be heavy."""
NEAR = 40
"""Moves on either side whose spread it is held against as well: restless times come in clusters."""
VALUES_A_JUMP = 100
"""Values a jump, on average, at least."""
BESIDE = 4
"""Values on either side whose medians have to be apart as well."""
EDGE = 10
"""Values on either side at least."""
LASTS = 0.5
"""Share of the jump by which they are."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A jump; the place counts the window's values, levels are in units of its scale."""

    place: int
    width: int
    score: float
    """Standard deviations."""
    before: float
    after: float
    deviation: float
    """Standard error of either level."""


def jumps_of(values: Vector, moves: Vector, inner: list[int]) -> list[Jump]:
    """The jumps of these values, of which `moves` were not foretold, apart from the changes known; in order."""
    count = len(values)
    most = count // VALUES_A_JUMP + 1
    spread = SIGMA_PER_MAD * middle_of(np.abs(moves))
    if count < 3 * EDGE or spread <= 0.0:
        return []
    found: list[Jump] = []
    for width in WIDTHS:
        sums = np.convolve(moves, np.ones(width), mode="valid") / (spread * math.sqrt(width))
        sizes = np.abs(sums)
        usual = float(np.partition(sizes, -(width * most + 1))[-(width * most + 1)])
        bar = max(LEAST_JUMP, STANDS_OUT * usual)
        for place in np.flatnonzero(sizes >= bar).tolist():
            jump = _jump(values, place, width, float(sizes[place]), spread)
            if jump is not None and jump.score * spread >= LEAST_JUMP * _spread_beside(moves, place, width):
                found.append(jump)
    return _apart(found, inner, most)


def _spread_beside(moves: Vector, place: int, width: int) -> float:
    """Of the moves before and after a jump, in the values' unit."""
    beside = np.concatenate(
        [moves[max(place - NEAR, 0) : place], moves[place + width : place + width + NEAR]]
    )
    return SIGMA_PER_MAD * middle_of(np.abs(beside))


def _jump(values: Vector, place: int, width: int, score: float, spread: float) -> Jump | None:
    """The jump, if the values beside it are as far apart."""
    if not EDGE <= place <= len(values) - width - EDGE:
        return None
    before, after = float(values[place - 1]), float(values[place + width - 1])
    left, right = values[place - BESIDE : place], values[place + width - 1 : place + width - 1 + BESIDE]
    if (middle_of(right) - middle_of(left)) * (after - before) < LASTS * (after - before) ** 2:
        return None
    return Jump(place, width, score, before, after, spread * math.sqrt(width))


def _apart(found: list[Jump], inner: list[int], most: int) -> list[Jump]:
    """The largest of neighbours, none of them a change known already."""
    kept: list[Jump] = []
    taken = list(inner)
    for jump in sorted(found, key=lambda each: -each.score):
        if len(kept) < most and all(abs(jump.place - place) > 2 * BESIDE for place in taken):
            kept.append(jump)
            taken.append(jump.place)
    return sorted(kept, key=lambda each: each.place)
