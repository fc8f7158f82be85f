"""What the third hand draws its series with; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.accuracy_scores import Floats

Random = np.random.Generator
CLEAR, FAIR, FAINT = 2.0, 0.9, -0.6
"""Salience: seen by 96, 79 and 30 in 100 of those who mark at all."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where a regime begins, how plain it is to see, and how far apart people put it (positions)."""

    at: int
    salience: float = CLEAR
    spread: float = 0.6


@dataclass(frozen=True, slots=True)
class Drawn:
    """A series, shape (n,) or (n, d), and its breaks."""

    values: Floats
    breaks: tuple[Break, ...] = ()

    @property
    def places(self) -> list[int]:
        """Of the breaks."""
        return [each.at for each in self.breaks]


def between(random: Random, low: float, high: float) -> int:
    return int(random.integers(int(low), int(high) + 1))


def smooth(random: Random, count: int, persistence: float) -> Floats:
    """AR(1) of unit standard deviation."""
    out = np.empty(count)
    out[0] = random.standard_normal()
    scale = np.sqrt(1 - persistence**2)
    for each in range(1, count):
        out[each] = persistence * out[each - 1] + scale * random.standard_normal()
    return out


def polyline(count: int, knots: Sequence[tuple[float, float]]) -> Floats:
    """Straight lines through (position, height)."""
    places, heights = zip(*knots, strict=True)
    line: Floats = np.interp(np.arange(count), places, heights)
    return line


def months(random: Random, count: int, period: int = 12) -> Floats:
    """A yearly pattern of unit standard deviation."""
    pattern = np.sin(2 * np.pi * (np.arange(period) / period + random.random()))
    pattern = pattern + 0.4 * random.standard_normal(period)
    return np.resize((pattern - pattern.mean()) / pattern.std(), count)
