"""What the next value is expected to be, by whichever plain rule has been right of late."""

from typing import Any

FAST = 0.25
SLOW = 0.01
"""Weights of the newest value in the two running means."""
MEMORY = 0.02
"""Weight of the newest error: a rule is judged by about the newest fifty."""
CYCLES = 5
"""Periods whose values at a phase are looked at."""
RULES = 5
"""Last value, fast mean, slow mean, season, season moved with the level."""


class Expectation:
    """The rules, and how far off each has been."""

    def __init__(self) -> None:
        self._levels: list[float] = []
        self._errors = [0.0] * RULES

    @property
    def slow(self) -> float:
        """The slow mean."""
        return self._levels[2]

    def all(self, seasonal: float | None, shift: float) -> list[float]:
        """What each rule says; without a season there are three of them."""
        return self._levels if seasonal is None else [*self._levels, seasonal, seasonal + shift]

    def best(self, said: list[float]) -> float:
        """What the rule says that was off the least."""
        return said[min(range(len(said)), key=self._errors.__getitem__)]

    def begin(self, value: float) -> None:
        """The first value of all."""
        self._levels = [value, value, value]

    def begin_season(self) -> None:
        """A season is new, so its rules have to earn their place."""
        self._errors[3] = self._errors[4] = 2.0 * max(self._errors[:3])

    def learn(self, value: float, said: list[float], count: int) -> None:
        """`value` came; it is number `count`, from 0."""
        weight = max(MEMORY, 1.0 / count)
        for index, each in enumerate(said):
            self._errors[index] += weight * (abs(value - each) - self._errors[index])
        self._levels[0] = value
        self._levels[1] += FAST * (value - self._levels[1])
        self._levels[2] += max(SLOW, 1.0 / (count + 1)) * (value - self._levels[2])

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"levels": self._levels, "errors": self._errors}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Expectation":
        """The one whose `state` this is."""
        made = cls()
        made._levels = [float(each) for each in state["levels"]]
        made._errors = [float(each) for each in state["errors"]]
        return made


def of_phase(history: list[float], period: int) -> float:
    """Median of the values one, two … periods before the next one; `history` holds at least one period."""
    same = sorted(history[-period * cycle] for cycle in range(1, min(CYCLES, len(history) // period) + 1))
    middle = len(same) // 2
    return same[middle] if len(same) % 2 else (same[middle - 1] + same[middle]) / 2
