"""Whether the newest stretch of a series looks like any stretch before it."""

import math
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
ANEW_EVERY = 32
"""Values after which all distances are summed anew: in between each comes from the one before, with its rounding."""
NEEDED = KEPT + APART + LENGTH + ANEW_EVERY
"""Newest values that the next distances are made of."""


class Contexts:
    """The newest values, and the distance of the newest stretch from its nearest neighbour among them.

    The distance is Euclidean, over the values as they are: a flat line, another height and another shape
    are all far from what was seen (nearest-neighbour conformal detection; Burnaev and Ishimtsev 2016). As both
    stretches move on by one value, their distance loses one difference and gains one (Zhu et al., Matrix
    Profile II, 2016): a value costs the same however long stretches are.
    """

    def __init__(self) -> None:
        self._origin: float | None = None
        """Subtracted from all values: squares of large numbers would cancel."""
        self._values = np.zeros(4 * LENGTH)
        self._squares = np.zeros(4 * LENGTH)
        """Squared distance of the newest stretch from the one that ends here; of those that do not overlap it."""
        self._scratch = np.zeros(4 * LENGTH)
        self._count = 0
        self._since_anew = 0

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
        self._since_anew += 1
        if self._since_anew >= ANEW_EVERY:
            self._since_anew = 0
            self._sum_anew()
        else:
            self._move_on()

    def _make_room(self) -> None:
        """Doubles, up to twice what is needed; from then on the older half goes."""
        kept = min(self._count, NEEDED)
        for name in ("_values", "_squares"):
            before = getattr(self, name)
            after = np.zeros(2 * kept)
            after[:kept] = before[self._count - kept : self._count]
            setattr(self, name, after)
        self._scratch = np.zeros(2 * kept)
        self._count = kept

    def _compared(self) -> tuple[int, int]:
        """First and last end, the last excluded, of the stretches that the newest is compared with."""
        last = self._count - APART
        return max(LENGTH - 1, last - KEPT), last

    def _sum_anew(self) -> None:
        first, last = self._compared()
        if last <= first:
            return
        squares, scratch = self._squares[first:last], self._scratch[: last - first]
        squares.fill(0.0)
        for back in range(LENGTH - 1, -1, -1):
            np.subtract(
                self._values[first - back : last - back], self._values[self._count - 1 - back], out=scratch
            )
            np.multiply(scratch, scratch, out=scratch)
            squares += scratch

    def _move_on(self) -> None:
        """From the distances of the stretch before: one difference leaves, one joins."""
        first, last = self._compared()
        if last <= first:
            return
        values, newest = self._values, self._count - 1
        is_first_of_all = first == LENGTH - 1
        if is_first_of_all:
            first += 1
        squares, scratch = self._squares[first:last], self._scratch[: last - first]
        np.subtract(values[first - LENGTH : last - LENGTH], values[newest - LENGTH], out=scratch)
        np.multiply(scratch, scratch, out=scratch)
        np.subtract(self._squares[first - 1 : last - 1], scratch, out=scratch)
        np.subtract(values[first:last], values[newest], out=squares)
        np.multiply(squares, squares, out=squares)
        np.add(squares, scratch, out=squares)
        if is_first_of_all:  # no stretch lies before it
            apart = values[:LENGTH] - values[newest + 1 - LENGTH : newest + 1]
            self._squares[LENGTH - 1] = apart @ apart

    def distance(self) -> float:
        """Of the newest stretch from the nearest that does not overlap it; 0 while there is none."""
        first, last = self._compared()
        if last <= first:
            return 0.0
        return math.sqrt(max(0.0, self._squares[first:last].min()))

    def state(self) -> dict[str, Any]:
        """As JSON has it: the newest values, enough to go on from."""
        kept = self._values[max(0, self._count - NEEDED) : self._count]
        return {"origin": self._origin, "values": kept.tolist(), "since_anew": self._since_anew}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Contexts":
        """The one whose `state` this is."""
        made = cls()
        made._origin = state["origin"]
        values = np.asarray(state["values"], dtype=np.float64)
        before = len(values) - int(state["since_anew"])
        made._values, made._squares, made._scratch = (
            np.zeros(max(len(values), 4 * LENGTH)) for _ in range(3)
        )
        made._values[:before], made._count = values[:before], before
        made._sum_anew()
        for value in values[before:].tolist():
            made._append(value)
        return made
