"""The scale on which a series is noise around levels and lines: its own, or its logarithm.

What grows by a rate, and noise and seasons that grow with the level, are lines and even noise in logarithms.
"""

import math
from dataclasses import dataclass

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.noise import resolution

LEAST_RANGE = 2.0
"""Quotient of a series' 95 % and 5 % quantile from which on logarithms may matter: up to it they are nearly a line."""


@dataclass(frozen=True, slots=True)
class Scale:
    """value = centre + unit * level, or the exponential of that, less the offset."""

    centre: float = 0.0
    unit: float = 1.0
    is_logarithmic: bool = False
    offset: float = 0.0

    def value(self, level: float) -> float:
        """In the series' unit."""
        plain = self.centre + self.unit * level
        return math.exp(plain) - self.offset if self.is_logarithmic else plain

    def deviation(self, level: float, deviation: float) -> float:
        """Standard error of `value(level)`, by the delta method."""
        plain = self.unit * deviation
        return plain * (self.value(level) + self.offset) if self.is_logarithmic else plain


def offset_of(ordered: Vector) -> float | None:
    """What is added before logarithms are taken of these ascending values; None where they make no difference, or cannot be."""
    count = len(ordered)
    low, high = float(ordered[count // 20]), float(ordered[count - 1 - count // 20])
    if ordered[0] < 0.0 or high <= LEAST_RANGE * low:
        return None
    return 0.0 if ordered[0] > 0.0 else resolution(ordered)


def jacobian_of(logarithms: Vector) -> float:
    """What the likelihood of logarithms is worth less than the values' own, twice (Box and Cox, JRSS B 26, 1964)."""
    return 2.0 * float(logarithms.sum())
