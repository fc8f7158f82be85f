"""Whether the newest values are spread over what values can be as some values before were."""

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LENGTH = 52
"""Positions whose values make a mixture: four hours of five-minute data, two days of hours."""
HEIGHTS = 9
"""Parts into which the range is cut."""
UNLIKE = 20.09
"""Distance from which on a mixture is another: the 99 % quantile of chi squared with one degree of freedom less than heights."""
LIKE = 8.0
"""Distance below which it is none: about what the mean of that law is."""
KEPT = 300
"""Newest mixtures that are remembered."""
KNOWN_BY_HEART = 4096
"""Answers that are kept until another mixture joins: the newest values are seldom counted otherwise than before."""


class Mixtures:
    """Counts of the newest values by height, and their distance from the nearest mixture that was another.

    The distance is twice the number of values times their relative entropy, the likelihood ratio of the two
    mixtures (Wang et al., Statistical Techniques for Online Anomaly Detection in Data Centers, 2011). The order of
    the values says nothing here, so it sees what takes hours: more bursts, other levels, days that are missing.
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._step = low, (high - low) / HEIGHTS
        self._newest: deque[int] = deque(maxlen=LENGTH)
        self._counts = [0] * HEIGHTS
        self._logs = np.zeros((KEPT, HEIGHTS))
        """Logarithms of the shares of each mixture; half a value is added to each count."""
        self._known = 0
        """Mixtures so far, those forgotten too."""
        self._by_heart: dict[tuple[int, ...], float] = {}

    def distance(self, value: float) -> float | None:
        """Of the newest values, `value` the last, from the nearest mixture; None while there are too few."""
        height = math.ceil((value - self._low) / self._step)
        self._add(min(max(height, 0), HEIGHTS - 1))
        if len(self._newest) < LENGTH:
            return None
        counts = tuple(self._counts)
        found = self._by_heart.get(counts)
        if found is None:
            found = self._by_heart[counts] = self._nearest(counts)
            if found >= UNLIKE:
                self._join(counts)
        return found

    def _add(self, height: int) -> None:
        if len(self._newest) == LENGTH:
            self._counts[self._newest[0]] -= 1
        self._newest.append(height)
        self._counts[height] += 1

    def _join(self, counts: tuple[int, ...]) -> None:
        """From now on it has been seen."""
        shares = (np.asarray(counts) + 0.5) / (LENGTH + 0.5 * HEIGHTS)
        self._logs[self._known % KEPT] = np.log(shares)
        self._known += 1
        self._by_heart.clear()

    def _nearest(self, counts: tuple[int, ...]) -> float:
        if not self._known:
            self._join(counts)
            return 0.0
        if len(self._by_heart) >= KNOWN_BY_HEART:
            self._by_heart.clear()
        logs = self._logs[: min(self._known, KEPT)]
        mine = sum(count * math.log(count / LENGTH) for count in counts if count)
        return max(0.0, 2.0 * (mine - float((logs @ np.asarray(counts, dtype=np.float64)).max())))

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "newest": list(self._newest),
            "known": self._known,
            "logs": self._logs[: min(self._known, KEPT)].tolist(),
        }

    @classmethod
    def restore(cls, state: dict[str, Any], low: float, high: float) -> "Mixtures":
        """The one whose `state` this is."""
        made = cls(low, high)
        for height in state["newest"]:
            made._add(int(height))
        made._known = int(state["known"])
        for number, logs in enumerate(state["logs"]):
            made._logs[number] = logs
        return made
