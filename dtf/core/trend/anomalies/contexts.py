"""Whether the newest stretch of a series looks like any stretch before it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LENGTH = 12
"""Positions in a stretch: an hour of five-minute data."""
KEPT = 3000
"""Newest stretches that are remembered: ten days of five-minute data."""
APART = LENGTH
"""Stretches that overlap the newest are not compared with it."""


class Contexts:
    """The newest values, and the distance of the newest stretch from its nearest neighbour among them.

    The distance is Euclidean, over the values as they are: a flat line, another height and another shape
    are all far from what was seen (nearest-neighbour conformal detection; Burnaev and Ishimtsev 2016).
    """

    def __init__(self) -> None:
        self._origin: float | None = None
        """Subtracted from all values: squares of large numbers would cancel."""
        self._values = np.zeros(4 * LENGTH)
        self._squares = np.zeros(4 * LENGTH)
        """Sum of the squares of the stretch that begins here."""
        self._count = 0

    def add(self, value: float) -> None:
        """The series went on with `value`."""
        if self._origin is None:
            self._origin = value
        self._append(value - self._origin)

    def _append(self, value: float) -> None:
        if self._count == len(self._values):
            self._make_room()
        self._values[self._count] = value
        self._count += 1
        start = self._count - LENGTH
        if start >= 0:
            newest = self._values[start : self._count]
            self._squares[start] = newest @ newest

    def _make_room(self) -> None:
        """Doubles, up to twice what is kept; from then on the older half goes."""
        kept = min(self._count, KEPT + 2 * LENGTH)
        for name in ("_values", "_squares"):
            before = getattr(self, name)
            after = np.zeros(2 * kept)
            after[:kept] = before[self._count - kept : self._count]
            setattr(self, name, after)
        self._count = kept

    def distance(self) -> float:
        """Of the newest stretch from the nearest that does not overlap it; 0 while there is none."""
        start = self._count - LENGTH
        end = start - APART + 1
        if end < 1:
            return 0.0
        begin = max(0, end - KEPT)
        newest = self._values[start : self._count]
        products = np.correlate(self._values[begin : end + LENGTH - 1], newest)
        squares = self._squares[begin:end] - 2.0 * products
        return float(max(0.0, squares.min() + self._squares[start]) ** 0.5)

    def state(self) -> dict[str, Any]:
        """As JSON has it: the newest values, enough to go on from."""
        kept = self._values[max(0, self._count - KEPT - 2 * LENGTH) : self._count]
        return {"origin": self._origin, "values": kept.tolist()}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Contexts":
        """The one whose `state` this is."""
        made = cls()
        made._origin = state["origin"]
        for value in state["values"]:
            made._append(float(value))
        return made
