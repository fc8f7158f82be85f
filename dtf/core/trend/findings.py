"""What the engine finds in a series of measurements: change points, anomalies, trend, seasonality, forecast.

Positions count from 0 and include values that are missing (NaN). Times are seconds since 1970-01-01
UTC, or the positions where a series has no times. Levels and effects are in the series' unit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """What changed."""

    STEP = "step"
    """The level, abruptly and lastingly."""
    DRIFT = "drift"
    """The slope: a slow monotone change begins."""
    VARIANCE = "variance"
    """The spread, the level staying: levels and effect are those of the noise's standard deviation."""


class ChangeState(StrEnum):
    """Where a change point is in its life."""

    PROVISIONAL = "provisional"
    CONFIRMED = "confirmed"
    WENT_AWAY = "went_away"


class Impact(StrEnum):
    """What a change means, by the direction in which the metric is better."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    CHANGE = "change"
    """The direction is not known, or the level is not what changed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends belong to it; 95 % unless said otherwise. `low, high = interval` takes it apart, as a pair."""

    low: float
    high: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))

    def __getitem__(self, at: int) -> float:
        return (self.low, self.high)[at]

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True, slots=True)
class Effect:
    """How much a level changed; for a drift, over the length of the regime seen so far."""

    absolute: float
    relative: float
    """Over the absolute level before; NaN where that is 0."""
    interval: Interval
    """Of `absolute`."""
    relative_interval: Interval


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A regime begins at `index`."""

    index: int
    """First position of the new regime."""
    time: float
    """Time of that position."""
    kind: ChangeKind
    state: ChangeState
    confidence: float
    """1 - the probability of such evidence in a series that did not change, the search counted in. In [0, 1]."""
    effect: Effect
    first_index: int
    """The location interval: the change lies in first_index ... last_index, both included."""
    last_index: int
    level_before: float
    level_after: float
    impact: Impact = Impact.CHANGE


class AnomalyKind(StrEnum):
    """What is unusual."""

    POINT = "point"
    """One value."""
    COLLECTIVE = "collective"
    """A stretch of values that are usual one by one."""
    MULTIVARIATE = "multivariate"
    """The values of several metrics at one time, usual one by one."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Values that do not belong to their regime."""

    index: int
    """First position."""
    end_index: int
    """Behind the last position."""
    time: float
    kind: AnomalyKind
    score: float
    """In [0, 1]: on normal data a score of 1 - p or more comes at no more than a share p of the points."""
    value: float
    expected: Interval


Finding = ChangePoint | Anomaly
"""What `Stream.append` returns: new, or changed in state, kind or place."""


class TrendLabel(StrEnum):
    """What the newest regime does."""

    IMPROVING = "improving"
    DEGRADING = "degrading"
    RISING = "rising"
    """The direction in which the metric is better is not known."""
    FALLING = "falling"
    STABLE = "stable"
    VOLATILE = "volatile"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trend:
    """Direction of the newest regime."""

    label: TrendLabel
    slope: float
    """Unit a second, or a position where the series has no times."""
    slope_interval: Interval
    reason: str
    """Why the label is what it is, in one sentence."""


@dataclass(frozen=True, slots=True)
class Seasonality:
    """A repetition."""

    period: int
    """In positions."""
    strength: float
    """Share of the variance around the trend that it explains, in [0, 1]."""
    pattern: tuple[float, ...]
    """Deviation from the level at position % period."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What comes next; each tuple has one entry a future position."""

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    coverage: float
    """Intended share of the values between low and high."""
    backtested_coverage: float
    """Share seen on this series' own past; NaN where it is too short to tell."""
    method: str
