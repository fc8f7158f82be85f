"""A spread that changes is told as such, and as no step; levels are weighed by the spread around them."""

import math

import numpy as np
import pytest

import dtf.trends
from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Impact
from dtf.trends.wording import change_sentence
from tests.unit.changing_series import FAMILIES, Vector, noise_of, with_step


def spreading(family: str, seed: int, ratio: float, *, length: int = 200, at: int = 100) -> Vector:
    """Noise around 100 whose spread is another from `at` on."""
    values = noise_of(family, length, seed)
    values[at:] *= ratio
    return values + 100.0


def found(values: Vector) -> tuple[ChangePoint, ...]:
    stream = ChangeStream(lower_is_better=True)
    stream.extend(np.arange(len(values)), values)
    return stream.change_points


@pytest.mark.parametrize(("family", "ratio"), [("iid", 2.5), ("iid", 0.35), ("ar", 2.5), ("t3", 4.0)])
def test_a_spread_that_changes_is_a_change_of_spread_and_no_step(family: str, ratio: float) -> None:
    hits = 0
    for seed in range(75_000, 75_008):
        changes = found(spreading(family, seed, ratio))
        assert [each for each in changes if each.kind is not ChangeKind.VARIANCE] == []
        hits += len(changes) == 1 and abs(changes[0].index - 100) <= 12
    assert hits >= 6


def test_its_effect_is_that_of_the_standard_deviation() -> None:
    (change,) = found(spreading("iid", 75_100, 3.0, length=400, at=200))
    assert change.kind is ChangeKind.VARIANCE
    assert change.state is ChangeState.CONFIRMED
    assert change.impact is Impact.CHANGE
    assert change.level_before == pytest.approx(1.0, rel=0.2)
    assert change.level_after == pytest.approx(3.0, rel=0.2)
    assert change.effect.relative_interval.low < 2.0 < change.effect.relative_interval.high
    assert change.first_index <= 200 <= change.last_index
    assert change_sentence(change).startswith("spread +")


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_spread_stays_no_change_of_it_is_told(family: str) -> None:
    told = 0
    for seed in range(75_200, 75_220):
        stream = ChangeStream()
        said = stream.extend(np.arange(200), noise_of(family, 200, seed))
        told += any(each.kind is ChangeKind.VARIANCE for each in (*said, *stream.change_points))
    assert told <= 1


def test_a_step_beside_a_change_of_spread_is_told_too() -> None:
    steps = spreads = 0
    for seed in range(75_300, 75_306):
        values = spreading("iid", seed, 3.0, length=300, at=100)
        values[200:] += 9.0
        changes = found(values)
        spreads += any(c.kind is ChangeKind.VARIANCE and abs(c.index - 100) <= 12 for c in changes)
        steps += any(c.kind is ChangeKind.STEP and abs(c.index - 200) <= 5 for c in changes)
        assert len(changes) <= 3
    assert steps >= 5
    assert spreads >= 5


def test_noise_that_grows_with_the_level_is_no_change_of_spread() -> None:
    for seed in range(75_400, 75_404):
        noise = noise_of("iid", 240, seed)
        values = np.exp(0.05 * noise + np.linspace(0.0, 2.0, 240))
        assert [each.kind for each in found(values) if each.kind is ChangeKind.VARIANCE] == []


def test_one_by_one_gives_what_all_at_once_gives() -> None:
    values = spreading("ar", 75_500, 3.0)
    at_once, one_by_one = ChangeStream(), ChangeStream()
    said = at_once.extend(np.arange(len(values)), values)
    each_said = [change for place, value in enumerate(values) for change in one_by_one.append(place, value)]
    assert said == each_said
    assert at_once.state() == one_by_one.state()
    assert ChangeStream.restore(at_once.state()).change_points == one_by_one.change_points


def test_growth_by_a_rate_that_changes_is_one_change_where_it_is() -> None:
    places = []
    for seed in range(75_600, 75_606):
        rates = np.where(np.arange(60) < 32, 0.05, -0.03)
        values = 50.0 * np.exp(np.cumsum(rates) + 0.02 * noise_of("iid", 60, seed))
        changes = found(values)
        assert len(changes) <= 1
        places += [each.index for each in changes]
    assert len(places) >= 5
    assert all(abs(place - 32) <= 3 for place in places)


def test_a_random_walk_is_no_series_of_steps() -> None:
    told = 0
    for seed in range(75_700, 75_715):
        values = 1_000.0 + np.cumsum(noise_of("iid", 300, seed))
        told += len(found(values))
    assert told <= 4


def test_a_jump_of_a_random_walk_is_a_step_and_a_spike_in_it_is_none() -> None:
    for seed in range(75_750, 75_756):
        walk = 1_000.0 + np.cumsum(noise_of("iid", 300, seed))
        walk[170:] += 15.0
        assert [each.index for each in found(walk) if abs(each.index - 170) <= 2] == [170]
        walk[170:] -= 15.0
        walk[170] += 15.0
        assert [each.index for each in found(walk) if abs(each.index - 170) <= 2] == []


def test_plateaus_a_jump_apart_are_told_though_they_look_like_memory() -> None:
    for seed in range(75_800, 75_804):
        levels = np.repeat([100.0, 160.0, 110.0, 190.0, 130.0], 60)
        values = levels + 6.0 * noise_of("ar", 300, seed)
        places = [each.index for each in found(values)]
        assert len(places) == 4
        assert all(abs(place - edge) <= 2 for place, edge in zip(places, (60, 120, 180, 240), strict=True))


def test_an_exact_repetition_hides_no_step() -> None:
    values = [100 + (place * 7919 % 13) / 10 + (20 if place >= 40 else 0) for place in range(60)]
    (change,) = dtf.trends.analyze(values).change_points
    assert change.index == 40
    assert change.kind is ChangeKind.STEP
    assert change.effect.absolute == pytest.approx(20.0, abs=0.5)


def test_the_interval_of_an_effect_holds_it() -> None:
    held = told = 0
    for seed in range(75_900, 75_990):
        size = (1.5, 2.0, 3.0)[seed % 3]
        changes = found(with_step("iid", 200, seed, at=100, size=size))
        near = [each for each in changes if abs(each.index - 100) <= 5 and each.kind is ChangeKind.STEP]
        told += len(near)
        held += sum(each.effect.interval.low <= size <= each.effect.interval.high for each in near)
    assert told >= 60
    assert held >= math.floor(0.92 * told)
