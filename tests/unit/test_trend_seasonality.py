"""Which repetition is found, and that none is where nothing repeats."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtf.core.trend.seasonality import find_seasonality

pytestmark = pytest.mark.trend_analyzer

Vector = NDArray[np.float64]
Family = Callable[[np.random.Generator, int], Vector]


def autoregression(rng: np.random.Generator, count: int, memory: float) -> Vector:
    """AR(1) with innovations of variance 1, settled."""
    noise = rng.standard_normal(count + 100)
    values = np.zeros(count + 100)
    for index in range(1, count + 100):
        values[index] = memory * values[index - 1] + noise[index]
    return values[100:]


def wave(count: int, amplitude: float, period: float = 24.0) -> Vector:
    """A sinusoid."""
    return np.asarray(amplitude * np.sin(2 * np.pi * np.arange(count) / period + 1.0))


NOTHING_REPEATS: dict[str, Family] = {
    "independent": lambda rng, n: rng.standard_normal(n),
    "ar .5": lambda rng, n: autoregression(rng, n, 0.5),
    "ar .9": lambda rng, n: autoregression(rng, n, 0.9),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "spikes": lambda rng, n: rng.standard_normal(n) + 8.0 * (rng.random(n) < 0.02),
    "drift": lambda rng, n: rng.standard_normal(n) + np.linspace(0, 3, n),
    "steps": lambda rng, n: rng.standard_normal(n) + 8.0 * (np.arange(n) > n // 3),
}


@pytest.mark.parametrize("family", NOTHING_REPEATS)
@pytest.mark.parametrize("count", [60, 200])
def test_noise_has_no_season(family: str, count: int) -> None:
    rng = np.random.default_rng(61_000 + count)
    found = sum(find_seasonality(NOTHING_REPEATS[family](rng, count)) is not None for _ in range(40))
    assert found <= 2  # at a share of 1 % three or more come once in 130 tries


SEASONAL: dict[str, Family] = {
    "amplitude of 1 sigma": lambda rng, n: rng.standard_normal(n) + wave(n, 1.0),
    "amplitude of 5 sigma": lambda rng, n: rng.standard_normal(n) + wave(n, 5.0),
    "drifts": lambda rng, n: rng.standard_normal(n) + wave(n, 2.0) + np.linspace(0, 10, n),
    "steps": lambda rng, n: rng.standard_normal(n) + wave(n, 2.0) + 8.0 * (np.arange(n) > n // 2),
    "heavy tails": lambda rng, n: rng.standard_t(3, n) + wave(n, 2.0),
    "spikes": lambda rng, n: rng.standard_normal(n) + 8.0 * (rng.random(n) < 0.02) + wave(n, 1.5),
    "one value a day": lambda rng, n: rng.standard_normal(n) + 6.0 * (np.arange(n) % 24 == 3),
}


@pytest.mark.parametrize("family", SEASONAL)
def test_a_season_is_found_through_whatever_else_happens(family: str) -> None:
    rng = np.random.default_rng(62_000)
    found = [find_seasonality(SEASONAL[family](rng, 200)) for _ in range(20)]
    # eight cycles do not tell 24 from its neighbours every time
    assert sum(each is not None and abs(each.period - 24) <= 1 for each in found) >= 16
    assert sum(each is not None and abs(each.period - 24) > 1 for each in found) <= 1


def test_weekends_are_a_week() -> None:
    rng = np.random.default_rng(63_000)
    found = find_seasonality(rng.standard_normal(200) + 3.0 * (np.arange(200) % 7 >= 5))
    assert found is not None
    assert found.period == 7
    assert min(found.pattern[5:]) > max(found.pattern[:5])


def test_pattern_and_strength_are_those_of_the_season() -> None:
    rng = np.random.default_rng(64_000)
    found = find_seasonality(100.0 + 0.5 * rng.standard_normal(480) + wave(480, 2.0))
    assert found is not None
    np.testing.assert_allclose(found.pattern, wave(24, 2.0), atol=0.25)
    assert 0.8 < found.strength < 0.95  # 2 of 2.25


def test_the_pattern_keeps_its_phase_where_only_the_newest_values_are_looked_at() -> None:
    found = find_seasonality(wave(16_384 + 30, 1.0))
    assert found is not None
    np.testing.assert_allclose(found.pattern, wave(24, 1.0), atol=0.02)


@pytest.mark.parametrize(
    "values",
    [[], [1.0] * 500, [1.0, 2.0] * 5, [float("nan")] * 100, [3.0] * 99 + [4.0]],
    ids=["empty", "constant", "short", "missing", "one other value"],
)
def test_where_nothing_can_be_said_there_is_none(values: list[float]) -> None:
    assert find_seasonality(values) is None


def test_missing_values_are_bridged_and_units_do_not_matter() -> None:
    rng = np.random.default_rng(65_000)
    values = rng.standard_normal(240) + wave(240, 3.0)
    values[rng.random(240) < 0.1] = np.nan
    found = find_seasonality(values)
    scaled = find_seasonality(1e-9 * values - 7e-9)
    assert found is not None and scaled is not None
    assert found.period == scaled.period == 24
    np.testing.assert_allclose(np.array(scaled.pattern) * 1e9, found.pattern, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [2.0**-900, 2.0**900])
def test_no_scale_is_too_large_or_too_small(scale: float) -> None:
    rng = np.random.default_rng(66_000)
    values = rng.standard_normal(200) + wave(200, 3.0)
    found, scaled = find_seasonality(values), find_seasonality(values * scale)
    assert found is not None and scaled is not None
    assert (found.period, found.strength) == (scaled.period, scaled.strength)
    assert [each * scale for each in found.pattern] == list(scaled.pattern)
