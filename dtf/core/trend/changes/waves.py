"""The rival of every change: one wave of any period on a straight line.

A season is known only after several cycles; until then its rises and falls look like changes. So changes are
believed only where they explain a stretch better than the best single wave does.
"""

import numpy as np

from dtf.core.trend.changes.arrays import Vector

SHORTEST_PERIOD = 8.0
LONGEST_EXPECTED = 48.0
"""Positions: a season of a day of hours, seen in part, may be longer than the stretch; beyond, only within it."""
PERIODS = 32
"""Periods tried, in geometric steps."""


def wave_cost(values: Vector, weights: Vector) -> float:
    """Weighted sum of squares that the best wave on a line leaves of the values."""
    count = len(values)
    waves = _waves(count)
    x = np.arange(count) / count - 0.5
    weighted = values * weights
    terms = np.stack([weights, weights * x, weighted], axis=1)
    sums = waves @ terms
    twice = (waves * waves) @ weights
    total = float(weights.sum())
    normal = np.empty((PERIODS, 4, 4))
    normal[:, 0, 0] = total
    normal[:, 0, 1] = normal[:, 1, 0] = terms[:, 1].sum()
    normal[:, 1, 1] = terms[:, 1] @ x
    for row in (0, 1):
        normal[:, row, 2] = normal[:, 2, row] = sums[:, row].real
        normal[:, row, 3] = normal[:, 3, row] = sums[:, row].imag
    normal[:, 2, 2], normal[:, 3, 3] = (total + twice.real) / 2.0, (total - twice.real) / 2.0
    normal[:, 2, 3] = normal[:, 3, 2] = twice.imag / 2.0
    normal += 1e-9 * count * np.eye(4)
    right = np.empty((PERIODS, 4))
    right[:, 0], right[:, 1] = weighted.sum(), weighted @ x
    right[:, 2], right[:, 3] = sums[:, 2].real, sums[:, 2].imag
    solution = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    explained = (solution * right).sum(axis=1)
    return max(float(weighted @ values) - float(explained.max()), 0.0)


def _waves(count: int) -> "np.typing.NDArray[np.complex128]":
    """exp(i angle) of each period at each position, by doubling what is there; shape (PERIODS, count)."""
    periods = np.geomspace(SHORTEST_PERIOD, max(LONGEST_EXPECTED, count / 1.5), PERIODS)
    angles = 2.0 * np.pi / periods
    waves = np.empty((PERIODS, count), dtype=np.complex128)
    waves[:, 0] = 1.0
    done = 1
    while done < count:
        more = min(done, count - done)
        np.multiply(waves[:, :more], np.exp(1j * done * angles)[:, None], out=waves[:, done : done + more])
        done += more
    return waves
