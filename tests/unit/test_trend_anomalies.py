"""The score says what it promises, and what is odd is scored as odd."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from dtf.core.trend.anomalies import (
    ALARM_SCORE,
    FINDING_SCORE,
    AnomalyDetector,
    MultivariateDetector,
    find_anomalies,
)
from dtf.core.trend.anomalies.contexts import KEPT, LENGTH, Contexts
from dtf.core.trend.anomalies.mixtures import UNLIKE, Mixtures
from dtf.core.trend.anomalies.recurrence import find_recurrence
from dtf.core.trend.findings import AnomalyKind, ChangeKind, ChangePoint, ChangeState, Effect, Interval
from tests.unit.test_trend_seasonality import Family, autoregression, wave

pytestmark = pytest.mark.trend_analyzer

Vector = NDArray[np.float64]


def scores(values: Vector | list[float], detector: AnomalyDetector | None = None) -> Vector:
    """Of each value, as they come."""
    detector = detector or AnomalyDetector()
    return np.asarray([detector.update(float(at), float(value)) for at, value in enumerate(values)])


NORMAL: dict[str, Family] = {
    "independent": lambda rng, n: rng.standard_normal(n),
    "memory": lambda rng, n: autoregression(rng, n, 0.5),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "spikes": lambda rng, n: rng.standard_normal(n) + 8.0 * (rng.random(n) < 0.02),
    "season": lambda rng, n: rng.standard_normal(n) + wave(n, 3.0),
    "drift": lambda rng, n: rng.standard_normal(n) + np.linspace(0, 3, n),
}


@pytest.mark.parametrize("family", NORMAL)
def test_high_scores_are_as_rare_as_they_say(family: str) -> None:
    rng = np.random.default_rng(91_000)
    found = np.concatenate([scores(NORMAL[family](rng, count)) for count in (200, 200, 200, 200, 1200)])
    assert len(found) == 2000
    assert found.min() >= 0.0 and found.max() <= 1.0
    assert np.mean(found >= 0.9) <= 0.115  # 200 values of 2,000, and two standard errors of dependent ones
    assert np.mean(found >= 0.99) <= 0.0145
    assert np.sum(found >= 0.999) <= 5


def noise(count: int, seed: int) -> Vector:
    """Nothing unusual."""
    return np.asarray(100.0 + np.random.default_rng(seed).standard_normal(count))


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [("spike", 600, 600), ("dip", 600, 600), ("shift", 600, 612), ("flat", 603, 625), ("storm", 600, 625)],
)
def test_what_is_odd_is_scored_soon(kind: str, first: int, last: int) -> None:
    values = noise(700, 92_000)
    match kind:
        case "spike":
            values[600] += 9.0
        case "dip":
            values[600] -= 9.0
        case "shift":
            values[600:] += 4.0
        case "flat":
            values[600:640] = values[600]
        case _:
            values[600:640] += 5.0 * (values[600:640] - 100.0)
    found = scores(values)
    assert found[first : last + 1].max() >= 0.998
    assert found[:600].max() < found[first : last + 1].max()


def test_a_missing_day_is_odd_though_all_its_values_are_usual() -> None:
    values = noise(960, 93_000) + wave(960, 6.0)
    values[800:824] = values[800]  # the level of the season's height, all day
    assert scores(values)[800:824].max() >= 0.998


def test_an_alarm_is_followed_by_a_rest() -> None:
    values = noise(500, 94_000)
    values[400:420] += 12.0
    found = scores(values)
    assert found[400] >= 0.998
    assert np.sum(found[401:420] >= 0.998) <= 1


def test_one_long_event_does_not_hide_the_next() -> None:
    values = noise(750, 97_004)
    for begin in (400, 700):
        values[begin : begin + 20] += 6.0
    found = scores(values)
    assert found[400:420].max() >= ALARM_SCORE
    assert found[700:720].max() >= ALARM_SCORE


def test_spikes_as_there_always_are_raise_few_alarms_where_it_is_known_what_values_can_be() -> None:
    alarms = 0
    for seed in (97_100, 97_101):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal(1200) + 8.0 * (rng.random(1200) < 0.02)
        alarms += int(np.sum(scores(values, AnomalyDetector(-4.0, 12.0)) >= ALARM_SCORE))
    assert alarms <= 6


@pytest.mark.parametrize("at", [15, 25, 35, 60])
def test_what_is_far_beyond_counts_before_much_is_known(at: int) -> None:
    values = noise(65, 98_000)
    values[at] += 150.0
    found = scores(values)
    assert found[at] >= FINDING_SCORE
    assert np.delete(found, at).max() < FINDING_SCORE
    values[at] -= 145.0
    assert scores(values)[at] < ALARM_SCORE


def test_values_that_are_not_numbers_are_not_scored_and_forgotten() -> None:
    values = noise(300, 95_000)
    with_gaps = AnomalyDetector()
    found = []
    for at, value in enumerate(values.tolist()):
        assert with_gaps.update(float(at), math.nan) == 0.0
        assert with_gaps.update(float(at), math.inf) == 0.0
        found.append(with_gaps.update(float(at), value))
    assert found == scores(values).tolist()


def test_no_value_is_too_large_or_too_small() -> None:
    values = noise(200, 95_500)
    values[100:104] = (1e308, -1e308, 5e-324, 0.0)
    found = scores(values)
    assert found[100] >= 0.99
    assert np.isfinite(found).all()
    tiny = scores(1e-200 * noise(200, 95_500))
    assert np.isfinite(tiny).all()


def test_a_constant_has_no_anomalies_and_its_first_change_is_one() -> None:
    found = scores([5.0] * 300 + [6.0])
    assert found[:300].max() <= 0.9
    assert found[300] >= 0.99


def test_differences_below_a_thousandth_of_what_values_can_be_are_none() -> None:
    values = [5.0] * 300 + [5.01] + [5.0] * 10
    assert scores(values)[300] >= 0.99
    assert scores(values, AnomalyDetector(0.0, 100.0))[300] < 0.99
    with pytest.raises(ValueError, match="minimum is 2"):
        AnomalyDetector(2.0, 1.0)


@pytest.mark.parametrize("bounds", [(None, None), (90.0, 110.0)])
def test_a_detector_goes_on_from_its_state(bounds: tuple[float | None, float | None]) -> None:
    values = (noise(900, 96_000) + wave(900, 3.0)).tolist()
    whole = AnomalyDetector(*bounds)
    expected = [whole.update(0.0, value) for value in values]
    for cut in (0, 1, 25, 150, 777):
        before = AnomalyDetector(*bounds)
        scored = [before.update(0.0, value) for value in values[:cut]]
        after = AnomalyDetector.restore(json.loads(json.dumps(before.state())))
        assert scored + [after.update(0.0, value) for value in values[cut:]] == expected
    with pytest.raises(ValueError, match="version 0"):
        AnomalyDetector.restore({"version": 0})


def test_more_bursts_than_ever_are_seen_where_it_is_known_what_values_can_be() -> None:
    rng = np.random.default_rng(96_200)
    rate = np.full(1200, 0.02)
    rate[900:960] = 0.3
    values = np.where(rng.random(1200) < rate, 20.0, 0.0) + rng.uniform(0.0, 1.0, 1200)
    mixtures = Mixtures(0.0, 21.0)
    distances = [mixtures.distance(value) or 0.0 for value in values.tolist()]
    assert max(distances[52:900]) < max(distances[905:960]) > UNLIKE
    assert scores(values, AnomalyDetector(0.0, 21.0))[900:960].max() >= ALARM_SCORE


@pytest.mark.parametrize("count", [40, 3040, 3100, 6300])
def test_the_nearest_stretch_is_found_though_distances_move_on(count: int) -> None:
    values = noise(count, 96_300)
    contexts = Contexts()
    for value in values.tolist():
        contexts.add(value)
    stretches = np.lib.stride_tricks.sliding_window_view(values, LENGTH)
    before = stretches[max(0, len(stretches) - LENGTH - KEPT) : len(stretches) - LENGTH]
    nearest = np.sqrt(np.sum((before - stretches[-1]) ** 2, axis=1)).min()
    assert contexts.distance() == pytest.approx(nearest, rel=1e-9)
    restored = Contexts.restore(json.loads(json.dumps(contexts.state())))
    assert restored.distance() == contexts.distance()


@pytest.mark.parametrize("period", [12, 36, 72])
def test_a_spike_that_comes_back_on_time_is_usual_and_one_that_does_not_come_is_odd(period: int) -> None:
    rng = np.random.default_rng(96_500)
    values = 5.0 + 0.5 * rng.standard_normal(900) + 30.0 * (np.arange(900) % period == 7)
    assert find_recurrence(values) == period
    missed = 800 // period * period + 7
    values[missed] = 5.0
    assert scores(values)[missed : missed + 3].max() >= 0.995
    assert find_recurrence(values[np.arange(900) % period != 7]) == 0


@pytest.mark.parametrize("family", NORMAL)
def test_odd_values_that_come_at_random_do_not_come_back(family: str) -> None:
    rng = np.random.default_rng(96_600)
    assert not any(find_recurrence(NORMAL[family](rng, 400)) for _ in range(100))


def step_at(index: int) -> ChangePoint:
    """Up by 30."""
    effect = Effect(30.0, 0.3, Interval(29.0, 31.0), Interval(0.29, 0.31))
    state = ChangeState.CONFIRMED
    return ChangePoint(
        index, float(index), ChangeKind.STEP, state, 1.0, effect, index, index + 1, 100.0, 130.0
    )


def test_findings_are_few_and_placed() -> None:
    values = noise(600, 97_000)
    assert find_anomalies(values) == ()
    values[500:502] += 15.0
    (found,) = find_anomalies(values, 1000.0 + 60.0 * np.arange(600))
    assert (found.index, found.end_index, found.time) == (500, 502, 31_000.0)
    assert found.kind is AnomalyKind.POINT
    assert found.expected.low < 100.0 < found.expected.high < found.value
    stepped = noise(600, 97_000)
    stepped[580:] += 30.0
    assert [each.index for each in find_anomalies(stepped)] == [580]
    assert find_anomalies(stepped, changes=[step_at(580)]) == ()
    with pytest.raises(ValueError, match="2 times for 3"):
        find_anomalies([1.0, 2.0, 3.0], [1.0, 2.0])


def test_it_is_told_how_far_the_search_is() -> None:
    told: list[int] = []
    find_anomalies(np.zeros(5000), on_progress=told.append)
    assert told == [2048, 4096, 5000]


def test_a_stretch_of_usual_values_is_a_collective_anomaly() -> None:
    values = noise(800, 98_000)
    values[700:760] = 100.0
    found = find_anomalies(values, least_score=0.998)
    assert any(each.kind is AnomalyKind.COLLECTIVE and 690 <= each.index < 730 for each in found)


def rows(count: int, seed: int) -> Vector:
    """Two metrics of which one is the other, nearly."""
    rng = np.random.default_rng(seed)
    load = rng.standard_normal(count)
    return np.column_stack([100 + 10 * load, 5 + load + 0.1 * rng.standard_normal(count)])


def test_values_that_do_not_belong_together_are_odd_though_each_is_usual() -> None:
    normal = rows(240, 99_000)
    detector = MultivariateDetector(2)
    found = np.asarray([detector.update(0.0, row) for row in normal.tolist()])
    assert np.mean(found >= 0.99) <= 0.03
    assert detector.update(0.0, (110.0, 4.0)) >= 0.99
    assert detector.update(0.0, (110.0, 6.0)) < 0.9


def test_the_multivariate_detector_goes_on_from_its_state() -> None:
    normal = rows(90, 99_500).tolist()
    whole = MultivariateDetector(2)
    expected = [whole.update(0.0, row) for row in normal]
    before = MultivariateDetector(2)
    scored = [before.update(0.0, row) for row in normal[:70]]
    after = MultivariateDetector.restore(json.loads(json.dumps(before.state())))
    assert scored + [after.update(0.0, row) for row in normal[70:]] == expected
    with pytest.raises(ValueError, match="version 0"):
        MultivariateDetector.restore({"version": 0})


def test_rows_of_another_width_are_refused_and_rows_with_gaps_left_out() -> None:
    detector = MultivariateDetector(3)
    with pytest.raises(ValueError, match="2 values in a row of 3"):
        detector.update(0.0, (1.0, 2.0))
    assert detector.update(0.0, (1.0, math.nan, 2.0)) == 0.0
    with pytest.raises(ValueError, match="width is 1"):
        MultivariateDetector(1)
