"""The rival of every change: one wave of any period on a straight line.

A season is known only after several cycles; until then its rises and falls look like changes. So changes are
believed only where they explain a stretch better than the best single wave does.

What is asked of each period are sums of values times a cosine and a sine. Positions are cut into blocks: sums are
taken within each with the same waves, turned by where the block begins, and added up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.noise import (
    clipped,
    middle_of_ordered,
    noise_of_differences,
    ordered_of,
    resolution,
)

SHORTEST_PERIOD = 8.0
LONGEST_EXPECTED = 48.0
"""Positions: a season of a day of hours, seen in part, may be longer than the stretch; beyond, only within it."""
PERIODS = 32
"""Periods tried, in geometric steps."""
LEAST_CYCLES = 2.0
"""Cycles of a longer one that the stretch has at least: what is not seen again is a step as well as a wave."""
ALARM_PERIODS = 96
"""Periods tried for an alarm: over five cycles the next period of a coarse grid is out of step."""
ALARM_CYCLES = 1.5
"""The same as LEAST_CYCLES for an alarm, which a few values raise and later looks may bear out."""
BLOCK = 32
"""Positions a block."""
RIDGE = 1e-9
"""Of the number of values: added to the diagonal of the normal equations, which a long wave and a line make singular."""
KEPT_UP_TO = 128
"""Length up to which waves are kept for each: an alarm asks for those of some dozen lengths again and again."""

Turns = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class _Waves:
    """The waves of one length, in blocks: cosine + i sine."""

    within: Turns
    """Of each period within a block; shape (periods, BLOCK)."""
    turns: Turns
    """By what each has turned where a block begins; shape (periods, blocks)."""

    def doubled(self) -> "_Waves":
        """Those of half the periods."""
        return _Waves(self.within * self.within, self.turns * self.turns)

    def sums(self, columns: Vector) -> Turns:
        """Sums of each column times each period's wave; (columns, n) to (columns, periods)."""
        blocks = self.turns.shape[1]
        padded = np.zeros((len(columns), blocks * BLOCK))
        padded[:, : columns.shape[1]] = columns
        parts = self.within @ padded.reshape(len(columns), blocks, BLOCK).transpose(0, 2, 1)
        parts *= self.turns
        turned: Turns = parts.sum(axis=2)
        return turned


@dataclass(frozen=True, slots=True)
class _Shapes:
    """What waves and a line on so many positions have to do with each other."""

    waves: _Waves
    x: Vector
    """The line."""
    plain: Vector
    """`_normal` where all weights are 1."""


def wave_cost(values: Vector, weights: Vector, periods: int = PERIODS, cycles: float = LEAST_CYCLES) -> float:
    """Weighted sum of squares that the best wave on a line leaves; of so many periods, with so many cycles at least."""
    count = len(values)
    shapes = (_kept_shapes if count <= KEPT_UP_TO else _newest_shapes)(count, periods, cycles)
    is_plain = bool((weights == 1.0).all())
    weighted = values if is_plain else values * weights
    normal = shapes.plain if is_plain else _weighed(shapes, weights)
    sums = shapes.waves.sums(weighted[None, :])[0]
    right = np.empty((periods, 4))
    right[:, 0], right[:, 1] = weighted.sum(), weighted @ shapes.x
    right[:, 2], right[:, 3] = sums.real, sums.imag
    solution = np.linalg.solve(normal, right[:, :, None])[:, :, 0]
    solution *= right
    return max(float(weighted @ values) - float(solution.sum(axis=1).max()), 0.0)


def is_wave(positions: Places, values: Vector, weights: Vector, count: int) -> bool:
    """Whether one wave on a line explains these values as well as a line and a step before the newest `count` do."""
    ordered = ordered_of(values)
    rough = noise_of_differences(values, resolution(ordered))
    old = clipped(values[: len(values) - count], rough.sigma)
    pulled = (np.concatenate([old, values[len(values) - count :]]) - middle_of_ordered(ordered)) / rough.sigma
    x = (positions - positions[0]) / len(values)
    root = np.sqrt(weights)
    step = np.arange(len(values)) >= len(values) - count
    design = np.stack([root, root * x, root * step], axis=1)
    solution = np.linalg.lstsq(design, root * pulled, rcond=None)[0]
    left = root * pulled - design @ solution
    return wave_cost(pulled, weights, ALARM_PERIODS, ALARM_CYCLES) <= float(left @ left) * (
        1.0 + 4.0 / len(values)
    )


def _weighed(shapes: _Shapes, weights: Vector) -> Vector:
    """`_normal` with these weights."""
    along = weights * shapes.x
    level, slope = shapes.waves.sums(np.stack([weights, along]))
    square = shapes.waves.doubled().sums(weights[None, :])[0]
    line = float(weights.sum()), float(along.sum()), float(along @ shapes.x)
    return _normal(len(weights), line, level, slope, square)


def _plain(angles: Vector, count: int) -> Vector:
    """`_normal` where all weights are 1, waves of these angles a position: sums of powers of z = exp(i angle)."""
    z = _turned(angles)
    last, step = _turned(angles * count), z - 1.0
    level = (last - 1.0) / step
    places = (count * last - z * level) / step
    half = count / 2.0
    square = (last * last - 1.0) / (z * z - 1.0)
    line = float(count), -0.5, (count * count + 2.0) / (12.0 * count)
    return _normal(count, line, level, (places - half * level) / count, square)


def _normal(
    count: int, line: tuple[float, float, float], level: Turns, slope: Turns, square: Turns
) -> Vector:
    """Weighted products of level, slope, cosine and sine for each period; shape (periods, 4, 4).

    `line` are those of level and slope; `level`, `slope` and `square` each period's sums of 1, the line and, at twice
    the angle (2 cos² - 1 and 2 sin cos), 1 again.
    """
    total = line[0]
    normal: Vector = np.empty((len(level), 4, 4))
    normal[:, 0, 0], normal[:, 1, 1] = total, line[2]
    normal[:, 0, 1] = normal[:, 1, 0] = line[1]
    normal[:, 0, 2] = normal[:, 2, 0] = level.real
    normal[:, 0, 3] = normal[:, 3, 0] = level.imag
    normal[:, 1, 2] = normal[:, 2, 1] = slope.real
    normal[:, 1, 3] = normal[:, 3, 1] = slope.imag
    normal[:, 2, 2], normal[:, 3, 3] = 0.5 * (total + square.real), 0.5 * (total - square.real)
    normal[:, 2, 3] = normal[:, 3, 2] = 0.5 * square.imag
    normal += RIDGE * count * np.eye(4)
    return normal


def _shapes_of(count: int, periods: int, cycles: float) -> _Shapes:
    longest = max(LONGEST_EXPECTED, count / cycles)
    steps = np.arange(periods) / (periods - 1.0)
    angles = 2.0 * np.pi / (SHORTEST_PERIOD * (longest / SHORTEST_PERIOD) ** steps)
    waves = _Waves(
        _turned(angles[:, None] * np.arange(BLOCK)), _turned(angles[:, None] * np.arange(0, count, BLOCK))
    )
    return _Shapes(waves, np.arange(count) / count - 0.5, _plain(angles, count))


_kept_shapes = lru_cache(maxsize=KEPT_UP_TO)(_shapes_of)
_newest_shapes = lru_cache(maxsize=6)(_shapes_of)


def _turned(angles: Vector) -> Turns:
    turned = np.empty(angles.shape, dtype=np.complex128)
    np.cos(angles, out=turned.real)
    np.sin(angles, out=turned.imag)
    return turned
