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
    longest = max(LONGEST_EXPECTED, count / 1.5)
    periods = np.geomspace(SHORTEST_PERIOD, longest, PERIODS)
    x = np.arange(count, dtype=np.float64)
    angles = 2.0 * np.pi * x[None, :] / periods[:, None]
    line = np.stack([np.ones(count), x / count - 0.5])
    root = np.sqrt(weights)
    design = np.empty((PERIODS, 4, count))
    design[:, :2] = line * root
    design[:, 2] = np.cos(angles) * root
    design[:, 3] = np.sin(angles) * root
    target = values * root
    normal = design @ design.transpose(0, 2, 1) + 1e-9 * count * np.eye(4)
    right = design @ target
    solution = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    explained = (solution * right).sum(axis=1)
    return max(float(target @ target) - float(explained.max()), 0.0)
