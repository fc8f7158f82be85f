"""What comes next, how wide, and when a limit is reached."""

import math

import numpy as np
import pytest

from dtf.core.trend.findings import Interval, Seasonality, Trend, TrendLabel
from dtf.core.trend.forecast import make_forecast, time_to_limit
from dtf.core.trend.seasonality import find_seasonality
from tests.unit.test_trend_seasonality import SEASONAL, Family, autoregression, wave

pytestmark = pytest.mark.trend_analyzer


SERIES: dict[str, Family] = {
    "independent": lambda rng, n: rng.standard_normal(n),
    "memory": lambda rng, n: autoregression(rng, n, 0.5),
    "walk": lambda rng, n: np.cumsum(rng.standard_normal(n)),
    "drift": lambda rng, n: rng.standard_normal(n) + 0.1 * np.arange(n),
    "season": SEASONAL["amplitude of 5 sigma"],
}


@pytest.mark.parametrize("family", SERIES)
def test_intervals_hold_as_many_values_as_they_say(family: str) -> None:
    rng = np.random.default_rng(81_000)
    held, backtested = [], []
    for _ in range(30):
        whole = SERIES[family](rng, 212)
        seen, coming = whole[:200], whole[200:]
        forecast = make_forecast(seen, horizon=12, seasonality=find_seasonality(seen))
        held.append(np.mean((coming >= forecast.low) & (coming <= forecast.high)))
        backtested.append(forecast.backtested_coverage)
    assert 0.8 <= float(np.mean(held)) <= 0.98
    assert 0.8 <= float(np.mean(backtested)) <= 0.98


def test_the_method_that_was_right_is_taken() -> None:
    rng = np.random.default_rng(82_000)
    walk = make_forecast(np.cumsum(rng.standard_normal(400)), horizon=1)
    assert walk.method in ("last value", "drift", "exponential smoothing")
    assert make_forecast(rng.standard_normal(400) + 0.2 * np.arange(400), horizon=20).method == "line"
    assert make_forecast(100 + rng.standard_normal(400), horizon=5).method in (
        "mean",
        "exponential smoothing",
    )


def test_a_season_goes_on_in_phase() -> None:
    values = 50.0 + wave(200, 4.0)
    season = Seasonality(24, 1.0, tuple(wave(24, 4.0)))
    forecast = make_forecast(values, horizon=30, seasonality=season, since_index=37)
    np.testing.assert_allclose(forecast.values, 50.0 + wave(230, 4.0)[200:], atol=1e-6)
    assert forecast.method.endswith("with a season of 24")


def test_only_the_newest_regime_counts() -> None:
    forecast = make_forecast([1000.0, 0.0] * 50 + [5.0] * 20, horizon=3, since_index=100)
    assert forecast.values == forecast.low == forecast.high == (5.0, 5.0, 5.0)


def test_beyond_what_was_seen_intervals_go_on_widening() -> None:
    forecast = make_forecast([1.0, 3.0, 2.0, 4.0, 3.0], horizon=10)
    widths = [high - low for low, high in zip(forecast.low, forecast.high, strict=True)]
    assert widths == sorted(widths)
    assert widths[-1] > widths[3] > 0
    assert math.isnan(forecast.backtested_coverage)


def test_few_values_have_a_forecast_without_an_interval_and_none_has_none() -> None:
    few = make_forecast([math.nan, 7.0], horizon=2)
    assert few.values == (7.0, 7.0)
    assert all(math.isnan(each) for each in (*few.low, *few.high))
    none = make_forecast([math.nan], horizon=2)
    assert none.method == "none"
    assert all(math.isnan(each) for each in none.values)


def test_a_horizon_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        make_forecast([1.0], horizon=0)


def test_time_to_a_limit_of_a_trend() -> None:
    trend = Trend(TrendLabel.RISING, 2.0, Interval(1.0, 4.0), "")
    reached = time_to_limit(trend, 20.0, level=12.0)
    assert (reached.expected, reached.interval) == (4.0, Interval(2.0, 8.0))
    assert time_to_limit(trend, 5.0, level=12.0).expected == math.inf
    unsure = Trend(TrendLabel.STABLE, 0.5, Interval(-1.0, 2.0), "")
    assert time_to_limit(unsure, 20.0, level=12.0).interval == Interval(4.0, math.inf)
    with pytest.raises(ValueError, match="level="):
        time_to_limit(trend, 20.0)


def test_time_to_a_limit_of_a_forecast() -> None:
    rng = np.random.default_rng(83_000)
    forecast = make_forecast(0.1 * rng.standard_normal(100) + np.arange(100.0), horizon=20)
    reached = time_to_limit(forecast, 110.0)
    assert reached.interval.low <= reached.expected <= reached.interval.high
    assert reached.expected == pytest.approx(11.0, abs=1.0)
    assert time_to_limit(forecast, 200.0).expected == math.inf
    falling = make_forecast(0.1 * rng.standard_normal(100) - np.arange(100.0), horizon=20)
    assert time_to_limit(falling, -110.0).expected == pytest.approx(11.0, abs=1.0)
