"""Which direction a regime has, and that noise has none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.core.trend.findings import TrendLabel
from dtf.core.trend.slopes import find_trend, robust_slope
from tests.unit.test_trend_seasonality import autoregression

pytestmark = pytest.mark.trend_analyzer


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_the_interval_holds_the_slope_whether_noise_remembers_or_not(memory: float) -> None:
    rng = np.random.default_rng(71_000)
    held = 0
    for _ in range(150):
        values = autoregression(rng, 80, memory) + 0.05 * np.arange(80)
        _, interval = robust_slope(values, np.arange(80.0))
        held += interval.low <= 0.05 <= interval.high
    assert held >= 128  # 85 %: of 95 % asked for; a plain interval holds 75 % with memory


@pytest.mark.parametrize(
    ("lower_is_better", "per_value", "label"),
    [
        (True, 1.0, TrendLabel.DEGRADING),
        (True, -1.0, TrendLabel.IMPROVING),
        (False, 1.0, TrendLabel.IMPROVING),
        (False, -1.0, TrendLabel.DEGRADING),
        (None, 1.0, TrendLabel.RISING),
        (None, -1.0, TrendLabel.FALLING),
    ],
)
def test_a_direction_is_named_by_what_is_better(
    lower_is_better: bool | None, per_value: float, label: TrendLabel
) -> None:
    rng = np.random.default_rng(72_000)
    values = 100.0 + 0.5 * per_value * np.arange(60) + rng.standard_normal(60)
    values[7] = 1e6  # one odd value moves nothing
    trend = find_trend(values, 60.0 * np.arange(60), lower_is_better=lower_is_better)
    assert trend.label is label
    assert trend.slope == pytest.approx(0.5 * per_value / 60.0, rel=0.1)
    assert "more than noise" in trend.reason


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_noise_is_stable(memory: float) -> None:
    rng = np.random.default_rng(73_000)
    labels = [find_trend(100 + 5 * autoregression(rng, 60, memory)).label for _ in range(100)]
    assert labels.count(TrendLabel.STABLE) >= 85
    assert find_trend([5.0] * 40).label is TrendLabel.STABLE


def test_noise_as_large_as_the_level_is_volatile() -> None:
    rng = np.random.default_rng(74_000)
    trend = find_trend(np.abs(10 + 8 * rng.standard_normal(60)))
    assert trend.label is TrendLabel.VOLATILE
    assert "of the level" in trend.reason


def test_a_slope_that_matters_to_nobody_is_stable() -> None:
    trend = find_trend(1000.0 + 0.01 * np.arange(60))
    assert trend.label is TrendLabel.STABLE
    assert "too little" in trend.reason


def test_only_the_newest_regime_counts() -> None:
    values = [100.0] * 50 + [10.0 + index for index in range(20)]
    assert find_trend(values, since_index=50).slope == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "times", "reason"),
    [([], [], "0 values"), ([math.nan] * 20, range(20), "0 values"), ([1.0] * 20, [5.0] * 20, "same time")],
)
def test_what_cannot_be_told_is_unknown_with_a_reason(
    values: list[float], times: list[float], reason: str
) -> None:
    trend = find_trend(values, times)
    assert trend.label is TrendLabel.UNKNOWN
    assert reason in trend.reason


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="2 times for 3 values"):
        find_trend([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_long_regime_is_summed_up_without_losing_its_slope() -> None:
    rng = np.random.default_rng(75_000)
    slope, interval = robust_slope(
        rng.standard_normal(20_000) + 1e-3 * np.arange(20_000), np.arange(20_000.0)
    )
    assert slope == pytest.approx(1e-3, rel=0.02)
    assert interval.low < 1e-3 < interval.high


@given(
    st.lists(st.floats(-100, 100), min_size=8, max_size=30),
    st.floats(0.001, 1000),
    st.floats(-1000, 1000),
)
def test_units_scale_the_slope_and_nothing_else(values: list[float], scale: float, shift: float) -> None:
    times = np.arange(float(len(values)))
    slope, interval = robust_slope(np.round(values, 3), times)
    scaled, scaled_interval = robust_slope(np.round(values, 3) * scale + shift, times)
    room = 1e-6 * (scale + abs(shift))
    assert scaled == pytest.approx(slope * scale, abs=room)
    assert interval.low <= slope <= interval.high
    assert scaled_interval.low <= scaled <= scaled_interval.high
