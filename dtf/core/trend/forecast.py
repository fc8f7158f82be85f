"""What comes next, by the method that would have been right on this very series, and how far it was off.

Every method says, from each position of the newest regime, what follows: a level, a slope and how the slope
fades. The errors at each horizon from each position of the past are its backtest; the method with the least
mean absolute error is taken. The interval at a horizon is the conformal quantile of its backtested errors
(Vovk, Gammerman and Shafer 2005; Stankeviciute, Alaa and van der Schaar 2021 for horizons), so no law is
assumed; how often intervals made of earlier errors would have held the later values is reported beside it.
The methods are the plain ones which competitions of forecasts find hard to beat (Makridakis, M3 and M4).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtf.core.trend.findings import Forecast, Interval, Seasonality, Trend

Vector = NDArray[np.float64]

COVERAGE = 0.9
LEAST_VALUES = 4
"""Fewer known values and there is no interval."""
LOOKED_AT = 2000
"""Newest values of the regime."""
FIRST_ORIGIN_RATIO = 0.25
"""Share of the regime that methods have seen before they are judged."""
LEAST_ERRORS = 10
"""Backtested errors below which a coverage of 90 % cannot be told."""
SMOOTHING = (0.05, 0.15, 0.3, 0.6)
TREND_SMOOTHING = 0.1
FADING = 0.9
"""A smoothed slope keeps so much of itself from one position to the next (Gardner and McKenzie 1985)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method says from each position t: level[t] + slope[t] · (fading + fading² + …)."""

    name: str
    level: Vector
    slope: Vector
    fading: float = 1.0

    def ahead(self, origins: NDArray[np.intp], horizon: int) -> Vector:
        """Shape (origins, horizon)."""
        steps = (
            np.cumsum(self.fading ** np.arange(1, horizon + 1))
            if self.fading < 1
            else np.arange(1.0, horizon + 1)
        )
        return np.asarray(self.level[origins, None] + self.slope[origins, None] * steps[None, :])


def make_forecast(
    values: ArrayLike,
    *,
    horizon: int,
    seasonality: Seasonality | None = None,
    since_index: int = 0,
) -> Forecast:
    """The next `horizon` values with intervals that hold 90 % of them.

    Values before `since_index`, where the newest regime begins, are not used; missing ones are bridged.
    All is NaN where no value is known, the intervals where fewer than four are. Raises ValueError if
    `horizon` is below 1.
    """
    if horizon < 1:
        raise ValueError(f"horizon is {horizon}: how many values to forecast, 1 or more")
    numbers = np.asarray(values, dtype=np.float64)
    start = max(since_index, len(numbers) - LOOKED_AT)
    season = _season(seasonality, start, len(numbers) + horizon)
    regime = _bridged(numbers[start:]) - season[: len(numbers) - start]
    coming = season[len(numbers) - start :]
    known = int(np.isfinite(numbers[start:]).sum())
    if known == 0:
        missing = (math.nan,) * horizon
        return Forecast(missing, missing, missing, COVERAGE, math.nan, "none")
    rules = _rules(regime)
    if known < LEAST_VALUES:
        return _forecast(rules[0], coming, np.full(horizon, math.nan), math.nan, "")
    origins = np.arange(max(1, int(FIRST_ORIGIN_RATIO * len(regime))) - 1, len(regime) - 1, dtype=np.intp)
    best = min(rules, key=lambda rule: float(np.nanmean(np.abs(_errors(rule, regime, origins, horizon)))))
    errors = np.abs(_errors(best, regime, origins, horizon))
    suffix = f" with a season of {seasonality.period}" if seasonality else ""
    return _forecast(best, coming, _reach(errors), _seen_coverage(errors), suffix)


def _season(seasonality: Seasonality | None, start: int, end: int) -> Vector:
    """Its deviation at the positions start … end - 1."""
    if seasonality is None:
        return np.zeros(end - start)
    return np.asarray(seasonality.pattern, dtype=np.float64)[np.arange(start, end) % seasonality.period]


def _bridged(values: Vector) -> Vector:
    """The same with missing values on straight lines between their neighbours."""
    is_known = np.isfinite(values)
    if is_known.all() or not is_known.any():
        return values
    positions = np.arange(len(values))
    return np.interp(positions, positions[is_known], values[is_known])


def _rules(values: Vector) -> list[Rule]:
    """Every method on the values of the regime, the simplest first."""
    count = np.arange(1, len(values) + 1)
    flat = np.zeros(len(values))
    means = np.cumsum(values) / count
    rules = [
        Rule("last value", values, flat),
        Rule("mean", means, flat),
        Rule("drift", values, (values - values[0]) / np.maximum(1, count - 1)),
        Rule("line", *_lines(values, means)),
    ]
    for weight in SMOOTHING:
        rules.append(Rule("exponential smoothing", *_smoothed(values, weight, 0.0)))
        rules.append(Rule("damped trend", *_smoothed(values, weight, TREND_SMOOTHING), FADING))
    return rules


def _lines(values: Vector, means: Vector) -> tuple[Vector, Vector]:
    """End and slope of the least-squares line through the first t + 1 values."""
    count = np.arange(1, len(values) + 1, dtype=np.float64)
    middle = (count - 1) / 2
    products = np.cumsum(values * np.arange(len(values))) - middle * np.cumsum(values)
    slope = products / np.maximum(count * (count * count - 1) / 12, 1e-300)
    slope[0] = 0.0
    return means + slope * middle, slope


def _smoothed(values: Vector, weight: float, trend_weight: float) -> tuple[Vector, Vector]:
    """Level and slope of exponential smoothing (Holt 1957); without a slope if `trend_weight` is 0."""
    level, slope = float(values[0]), 0.0
    levels, slopes = [level], [slope]
    for value in values[1:].tolist():
        before = level
        expected = level + FADING * slope
        level = expected + weight * (value - expected)
        if trend_weight:
            slope = FADING * slope + trend_weight * (level - before - FADING * slope)
        levels.append(level)
        slopes.append(slope)
    return np.asarray(levels), np.asarray(slopes)


def _errors(rule: Rule, values: Vector, origins: NDArray[np.intp], horizon: int) -> Vector:
    """Value less forecast, shape (origins, horizon); NaN where the value is not there yet."""
    reached = min(horizon, len(values) - 1)
    targets = origins[:, None] + np.arange(1, reached + 1)[None, :]
    padded = np.concatenate([values, np.full(reached, np.nan)])
    errors = padded[targets] - rule.ahead(origins, reached)
    return np.asarray(np.pad(errors, ((0, 0), (0, horizon - reached)), constant_values=np.nan))


def _quantile(errors: Vector) -> float:
    """The least number that holds the next of these with COVERAGE, were they exchangeable; more if they are few."""
    count = len(errors)
    if not count:
        return math.nan
    rank = math.ceil((count + 1) * COVERAGE)
    if rank <= count:
        return float(np.partition(errors, rank - 1)[rank - 1])
    return float(errors.max()) * rank / count


def _reach(errors: Vector) -> Vector:
    """Half the interval at each horizon; it never narrows, and where no error is known it widens as a walk's does."""
    reach = np.asarray([_quantile(column[np.isfinite(column)]) for column in errors.T])
    known = np.flatnonzero(np.isfinite(reach))
    last = int(known[-1])
    reach[: last + 1] = np.maximum.accumulate(reach[: last + 1])
    beyond = np.arange(last + 2, len(reach) + 1)
    reach[last + 1 :] = reach[last] * np.sqrt(beyond / (last + 1))
    return reach


def _seen_coverage(errors: Vector) -> float:
    """Share of past values that intervals made of the errors known by then would have held."""
    held = seen = 0
    for step in range(errors.shape[1]):
        column = errors[:, step][np.isfinite(errors[:, step])]
        # the value `step` + 1 ahead of an origin is known only so many origins later
        for index in range(LEAST_ERRORS + step, len(column), max(1, len(column) // 40)):
            seen += 1
            held += bool(column[index] <= _quantile(column[: index - step]))
        if step >= 23:
            break  # a day of hours says it
    return held / seen if seen >= LEAST_ERRORS else math.nan


def _forecast(rule: Rule, season: Vector, reach: Vector, seen: float, suffix: str) -> Forecast:
    """As the findings have it."""
    newest = np.asarray([len(rule.level) - 1], dtype=np.intp)
    values = rule.ahead(newest, len(season))[0] + season
    return Forecast(
        tuple(values.tolist()),
        tuple((values - reach).tolist()),
        tuple((values + reach).tolist()),
        COVERAGE,
        seen,
        rule.name + suffix,
    )


@dataclass(frozen=True, slots=True)
class TimeToLimit:
    """When a limit is crossed, counted from the newest value; infinite where it is not to be seen."""

    expected: float
    interval: Interval
    """Earliest and latest."""


def time_to_limit(source: Forecast | Trend, limit: float, *, level: float | None = None) -> TimeToLimit:
    """How long until `limit` is reached.

    Of a forecast in positions; beyond its horizon nothing is known, so it is infinite there. Of a trend in
    its unit of time, with `level` the value it stands at now. Raises ValueError for a trend without `level`.
    """
    if isinstance(source, Forecast):
        return _crossing(source, limit)
    if level is None:
        raise ValueError("a trend has no level: say where it stands now with level=")
    rest = limit - level
    ends = sorted(_reached(rest, slope) for slope in (source.slope_interval.low, source.slope_interval.high))
    return TimeToLimit(_reached(rest, source.slope), Interval(ends[0], ends[1]))


def _reached(rest: float, slope: float) -> float:
    """Time in which a slope makes up for `rest`."""
    if rest == 0.0:
        return 0.0
    return rest / slope if rest * slope > 0 else math.inf


def _crossing(forecast: Forecast, limit: float) -> TimeToLimit:
    """The first positions at which the forecast and the ends of its intervals are at the limit."""
    is_below = forecast.values[0] < limit
    is_there: Callable[[float], bool] = (
        (lambda value: value >= limit) if is_below else (lambda value: value <= limit)
    )
    near, far = (forecast.high, forecast.low) if is_below else (forecast.low, forecast.high)

    def first(values: tuple[float, ...]) -> float:
        return next((float(step) for step, value in enumerate(values, 1) if is_there(value)), math.inf)

    return TimeToLimit(first(forecast.values), Interval(first(near), first(far)))
