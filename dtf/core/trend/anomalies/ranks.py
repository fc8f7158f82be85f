"""How unusual a number is among those that came before it."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable

KEPT = 4096
"""Newest numbers that are remembered."""
LEAST_TAIL = 2.0
"""Exponent of a tail that is assumed until more is known: that of the heaviest one with a finite mean square."""
MOST_TAIL = 10.0
TAIL_RATIO = 0.1
"""Share of the numbers that say how the tail falls."""
TAIL_KNOWN = 10
"""Numbers in the tail from which on they say so."""


class Ranks:
    """The newest numbers in order of size.

    Where the next number is exchangeable with those kept its rank is uniform, so `chance` is p or less in
    no more than a share p of the cases, whatever the law (Vovk, Gammerman and Shafer, Algorithmic Learning
    in a Random World, 2005, section 2.2). Beyond the largest number seen, where a rank says no more, the
    tail is taken to fall like a power (Hill, Annals of Statistics 3, 1975), no faster than it was seen to.
    """

    def __init__(self, numbers: Iterable[float] = ()) -> None:
        self._newest: deque[float] = deque(numbers, maxlen=KEPT)
        self._sorted = sorted(self._newest)

    def __len__(self) -> int:
        return len(self._newest)

    @property
    def numbers(self) -> list[float]:
        """Oldest first."""
        return list(self._newest)

    def place(self, number: float) -> int:
        """How many of those kept are smaller."""
        return bisect_left(self._sorted, number)

    def share(self, number: float) -> float:
        """Share of numbers as large or larger, `number` itself counted as one of them."""
        return self.share_at(bisect_left(self._sorted, number))

    def share_at(self, place: int) -> float:
        """The same of the number that has this place."""
        count = len(self._sorted)
        return (1 + count - place) / (count + 1)

    @property
    def largest(self) -> float:
        """Of those kept; -inf if there is none."""
        return self._sorted[-1] if self._sorted else -math.inf

    def quantile(self, share: float) -> float:
        """The number that a share of those kept do not exceed; NaN if there is none."""
        if not self._sorted:
            return math.nan
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]

    def chance(self, number: float, place: int | None = None) -> float:
        """The same, and less than one over their count where it is far beyond the largest."""
        if place is None:
            place = self.place(number)
        if place < len(self._sorted) or number <= 0.0:
            return self.share_at(place)
        largest = self.largest
        if largest <= 0.0:
            return self.share_at(place)
        return math.exp(-self._exponent() * math.log(number / largest)) / (place + 1)

    def add(self, number: float, place: int | None = None) -> None:
        """`number` has been seen; its place may be known."""
        if place is None:
            place = self.place(number)
        if len(self._newest) == KEPT:
            gone = bisect_left(self._sorted, self._newest[0])
            del self._sorted[gone]
            place -= gone < place
        self._newest.append(number)
        self._sorted.insert(place, number)

    def _exponent(self) -> float:
        """Power with which the tail falls, one standard error on the careful side."""
        known = int(TAIL_RATIO * len(self._sorted))
        if known < TAIL_KNOWN or self._sorted[-known - 1] <= 0.0:
            return LEAST_TAIL
        threshold = math.log(self._sorted[-known - 1])
        mean = sum(math.log(number) for number in self._sorted[-known:]) / known - threshold
        if mean <= 0.0:
            return LEAST_TAIL
        return min(MOST_TAIL, max(LEAST_TAIL, (1.0 - 1.0 / math.sqrt(known)) / mean))
