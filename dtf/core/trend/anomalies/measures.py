"""In how many ways the newest value, or the stretch that it ends, can be unusual.

Each measure is a number that is larger the odder the value is; what is large is for its own past to say
(`ranks.py`). No measure is good at everything: a spike is far from what was expected, a shift keeps the
mean of a few errors away from 0, a flat line or a storm changes the spread, a value beyond all before is
new, and a stretch that resembles no other may be made of usual values.
"""

import math
from collections import deque
from enum import StrEnum
from typing import Any

from dtf.core.trend.anomalies.contexts import Contexts
from dtf.core.trend.anomalies.expectation import Expectation, of_phase
from dtf.core.trend.anomalies.mixtures import Mixtures
from dtf.core.trend.anomalies.recurrence import find_recurrence
from dtf.core.trend.seasonality import find_seasonality

NEAR, DAY = 6, 24
"""Positions over which deviations from the season are averaged."""
SHIFT = 8
"""Positions over which errors of the slow mean are averaged."""
SPREAD = 12
"""Positions whose differences say what the spread is now."""
SLOW = 0.01
LEAST_SPREAD_RATIO = 0.01
"""Share of the usual difference below which differences are not told apart: a flat line is flat."""
SEASONS_AT = (100, 200, 400, 750, 1500, 3000, 6000, 12000)
"""Counts of values at which a season is looked for: it costs a thousand values' work."""
LEAST_STRENGTH = 0.1
"""Share of the variance below which a season helps no expectation."""
KEPT = 12_000
"""Newest values that are remembered: five weeks of five-minute data."""


class Measure(StrEnum):
    """In which way a value is unusual."""

    ERROR = "error"
    """Distance from the expectation."""
    BEYOND = "beyond"
    """Distance from all values before; 0 within them."""
    SHIFT = "shift"
    """Mean of the newest distances from the slow mean."""
    SPREAD = "spread"
    """Logarithm of the newest differences' size against the usual one, in either direction."""
    STRETCH = "stretch"
    """Distance of the newest stretch from the nearest before it."""
    MIXTURE = "mixture"
    """Distance of the newest values' heights from the nearest mixture before; only where what values can be is known."""
    SEASON_NEAR = "season_near"
    SEASON_DAY = "season_day"
    """Mean of the newest deviations from the season."""


SEASONAL = (Measure.SEASON_NEAR, Measure.SEASON_DAY)
OF_ONE_VALUE = (Measure.ERROR, Measure.BEYOND)


class Measures:
    """All of them, value by value."""

    def __init__(self, least_difference: float = 0.0, bounds: tuple[float, float] | None = None) -> None:
        self._least_difference = least_difference
        """Smaller differences are none."""
        self.count = 0
        self.expected = math.nan
        """What the newest value was expected to be."""
        self.period = 0
        """Of the season that is known; 0 if none is."""
        self._history: list[float] = []
        self._expectation = Expectation()
        self._contexts = Contexts()
        self._mixtures = Mixtures(*bounds) if bounds else None
        self._low = self._high = math.nan
        self._slow_errors: deque[float] = deque(maxlen=SHIFT)
        self._off_season: deque[float] = deque(maxlen=DAY)
        self._usual_difference = 0.0
        self._usual_spread = math.nan

    def update(self, value: float) -> dict[Measure, float]:
        """How unusual `value` is in each way that can be said by now; then it is part of the past."""
        count = self.count
        self.count += 1
        if not count:
            self._begin(value)
            return {}
        seasonal, shift = None, 0.0
        if self.period and len(self._history) >= 2 * self.period:
            seasonal = of_phase(self._history, self.period)
            shift = sum(self._off_season) / len(self._off_season) if self._off_season else 0.0
        said = self._expectation.all(seasonal, shift)
        self.expected = self._expectation.best(said)
        self._slow_errors.append(value - self._expectation.slow)
        found = {
            Measure.ERROR: abs(value - self.expected),
            Measure.BEYOND: max(0.0, value - self._high, self._low - value),
            Measure.SHIFT: abs(sum(self._slow_errors) / len(self._slow_errors)),
        }
        self._expectation.learn(value, said, count)
        self._low, self._high = min(self._low, value), max(self._high, value)
        self._remember(value)
        if count > SPREAD:
            found[Measure.SPREAD] = self._spread()
        found[Measure.STRETCH] = self._contexts.distance()
        mixture = self._mixtures.distance(value) if self._mixtures else None
        if mixture is not None:
            found[Measure.MIXTURE] = mixture
        if seasonal is not None:
            self._off_season.append(value - seasonal)
            newest = list(self._off_season)
            found[Measure.SEASON_NEAR] = abs(sum(newest[-NEAR:])) / NEAR
            found[Measure.SEASON_DAY] = abs(sum(newest)) / DAY
        if self.count in SEASONS_AT:
            self._look_for_season()
        return found

    def _begin(self, value: float) -> None:
        self._expectation.begin(value)
        self._low = self._high = value
        self._history.append(value)
        self._contexts.add(value)

    def _remember(self, value: float) -> None:
        """`value` joins the past."""
        difference = abs(value - self._history[-1])
        self._usual_difference += max(SLOW, 1.0 / self.count) * (difference - self._usual_difference)
        self._history.append(value)
        if len(self._history) >= 2 * KEPT:
            del self._history[:KEPT]
        self._contexts.add(value)

    def _spread(self) -> float:
        """Of the newest differences against the usual one."""
        newest = self._history[-SPREAD:]
        squares = 0.0
        before = newest[0]
        for value in newest:
            squares += (value - before) ** 2
            before = value
        least = max(LEAST_SPREAD_RATIO * self._usual_difference, self._least_difference)
        size = math.sqrt(squares / (SPREAD - 1)) + least
        logarithm = math.log(size) if size > 0.0 else 0.0
        if math.isnan(self._usual_spread):
            self._usual_spread = logarithm
        off = logarithm - self._usual_spread
        self._usual_spread += max(SLOW / 5, 1.0 / self.count) * off
        return abs(off)

    def _look_for_season(self) -> None:
        """The season may be new, another or gone."""
        history = self._history[-KEPT:]
        found = find_seasonality(history)
        period = found.period if found and found.strength >= LEAST_STRENGTH else find_recurrence(history)
        if period != self.period:
            self.period = period
            self._off_season.clear()
            self._expectation.begin_season()

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "count": self.count,
            "expected": self.expected,
            "period": self.period,
            "history": self._history,
            "expectation": self._expectation.state(),
            "contexts": self._contexts.state(),
            "mixtures": self._mixtures.state() if self._mixtures else None,
            "range": [self._low, self._high],
            "slow_errors": list(self._slow_errors),
            "off_season": list(self._off_season),
            "usual": [self._usual_difference, self._usual_spread],
        }

    @classmethod
    def restore(
        cls, state: dict[str, Any], least_difference: float = 0.0, bounds: tuple[float, float] | None = None
    ) -> "Measures":
        """The one whose `state` this is."""
        made = cls(least_difference, bounds)
        made.count = int(state["count"])
        made.expected = float(state["expected"])
        made.period = int(state["period"])
        made._history = [float(each) for each in state["history"]]
        made._expectation = Expectation.restore(state["expectation"])
        made._contexts = Contexts.restore(state["contexts"])
        made._mixtures = Mixtures.restore(state["mixtures"], *bounds) if bounds else None
        made._low, made._high = map(float, state["range"])
        made._slow_errors.extend(map(float, state["slow_errors"]))
        made._off_season.extend(map(float, state["off_season"]))
        made._usual_difference, made._usual_spread = map(float, state["usual"])
        return made
