"""A stream of values finds its changes, forgets what is old, and is the same in one piece and in many."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.core.trend.changes import ChangeStream
from dtf.core.trend.changes.stream import CONTEXT, WINDOW
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Impact
from tests.unit.changing_series import Vector, noise_of, with_step

SEEDS = st.integers(min_value=50_000, max_value=60_000)


def _fed(values: Vector, *, lower_is_better: bool | None = None) -> ChangeStream:
    stream = ChangeStream(lower_is_better=lower_is_better)
    stream.extend(np.arange(len(values)), values)
    return stream


def _eventful(seed: int, length: int) -> Vector:
    """Noise of some family with steps, gaps and spikes."""
    random = np.random.default_rng(seed)
    values = noise_of(("iid", "ar", "t3", "spikes")[seed % 4], length, seed)
    for _ in range(1 + seed % 4):
        values[int(random.integers(0, length)) :] += random.normal() * 4.0
    values[random.random(length) < 0.03] = np.nan
    return values


@given(seed=SEEDS, length=st.integers(1, 260))
@settings(max_examples=12, deadline=None)
def test_a_batch_is_the_fold_of_appends(seed: int, length: int) -> None:
    values = _eventful(seed, length)
    one_by_one, batch = ChangeStream(lower_is_better=True), ChangeStream(lower_is_better=True)
    told = [change for place, value in enumerate(values) for change in one_by_one.append(place, value)]
    assert batch.extend(np.arange(length), values) == told
    assert batch.change_points == one_by_one.change_points
    assert batch.state() == one_by_one.state()


def test_a_batch_beyond_the_window_is_the_fold_of_pieces() -> None:
    values = _eventful(50_003, 2_600)
    pieces, batch = ChangeStream(), ChangeStream()
    told: list[ChangePoint] = []
    for start in range(0, 2_600, 97):
        piece = values[start : start + 97]
        told += pieces.extend(np.arange(start, start + len(piece)), piece)
    assert batch.extend(np.arange(2_600), values) == told
    assert batch.change_points == pieces.change_points
    assert batch.change_points


@given(seed=SEEDS, cut=st.integers(0, 300))
@settings(max_examples=8, deadline=None)
def test_a_restored_stream_goes_on_as_if_nothing_was(seed: int, cut: int) -> None:
    values = _eventful(seed, 300)
    whole, before = ChangeStream(lower_is_better=False), ChangeStream(lower_is_better=False)
    whole.extend(np.arange(cut), values[:cut])
    before.extend(np.arange(cut), values[:cut])
    restored = ChangeStream.restore(json.loads(json.dumps(before.state(), allow_nan=False)))
    assert restored.change_points == whole.change_points
    rest = np.arange(cut, 300)
    assert restored.extend(rest, values[cut:]) == whole.extend(rest, values[cut:])
    assert restored.state() == whole.state()


def test_a_restored_stream_beyond_the_window_goes_on_as_if_nothing_was() -> None:
    values = with_step("iid", 3_000, 61_001, at=2_400, size=4.0)
    whole, before = ChangeStream(), ChangeStream()
    whole.extend(np.arange(2_401), values[:2_401])
    before.extend(np.arange(2_401), values[:2_401])
    restored = ChangeStream.restore(before.state())
    assert restored.extend(np.arange(2_401, 3_000), values[2_401:]) == whole.extend(
        np.arange(2_401, 3_000), values[2_401:]
    )
    assert [change.index for change in restored.change_points] == [2_400]


def test_a_state_of_another_version_is_refused() -> None:
    state = ChangeStream().state() | {"version": -1}
    with pytest.raises(ValueError, match="version -1"):
        ChangeStream.restore(state)


def test_a_step_is_provisional_within_four_points_then_confirmed() -> None:
    values = with_step("iid", 200, 61_000, at=100, size=4.0)
    stream = ChangeStream(lower_is_better=True)
    first: list[ChangePoint] = []
    for place, value in enumerate(values):
        told = stream.append(float(place), value)
        if told and not first:
            first = told
            assert place <= 103
    assert [(change.state, change.kind, change.impact) for change in first] == [
        (ChangeState.PROVISIONAL, ChangeKind.STEP, Impact.REGRESSION)
    ]
    (change,) = stream.change_points
    assert (change.state, change.kind) == (ChangeState.CONFIRMED, ChangeKind.STEP)
    assert abs(change.index - 100) <= 1
    assert change.first_index <= 100 <= change.last_index
    assert change.effect.absolute == pytest.approx(4.0, abs=0.5)
    assert change.effect.interval.low < change.effect.absolute < change.effect.interval.high
    assert change.confidence > 0.999


def test_a_step_that_is_taken_back_went_away() -> None:
    values = noise_of("iid", 160, 61_002)
    values[100:104] += 6.0
    stream = ChangeStream()
    told = stream.extend(np.arange(160), values)
    assert {change.state for change in told} == {ChangeState.PROVISIONAL, ChangeState.WENT_AWAY}
    assert told[-1].state is ChangeState.WENT_AWAY
    assert all(abs(change.index - 100) <= 5 for change in told)
    assert stream.change_points == ()


@pytest.mark.parametrize(
    ("lower_is_better", "size", "impact"),
    [
        (True, 5.0, Impact.REGRESSION),
        (True, -5.0, Impact.IMPROVEMENT),
        (False, 5.0, Impact.IMPROVEMENT),
        (False, -5.0, Impact.REGRESSION),
        (None, 5.0, Impact.CHANGE),
    ],
)
def test_what_a_change_means_follows_the_better_direction(
    lower_is_better: bool | None, size: float, impact: Impact
) -> None:
    stream = _fed(with_step("iid", 120, 61_003, at=60, size=size), lower_is_better=lower_is_better)
    assert [change.impact for change in stream.change_points] == [impact]


def test_old_findings_are_frozen_and_old_values_forgotten() -> None:
    values = with_step("iid", 6_000, 61_004, at=300, size=5.0)
    values[5_000:] -= 5.0
    stream = ChangeStream()
    seen: list[ChangePoint] = []
    for start in range(0, 6_000, 500):
        stream.extend(np.arange(start, start + 500), values[start : start + 500])
        seen += [change for change in stream.change_points if change.index < 400]
    assert len(stream.state()["window"]["values"]) < WINDOW + CONTEXT
    assert len(set(seen[3:])) == 1, "a frozen change point does not move any more"
    assert [change.index for change in stream.change_points] == [300, 5_000]


def test_a_change_is_the_same_beside_the_edge_of_the_frozen_part() -> None:
    half = WINDOW // 2
    for at in range(half - 8, half + 9, 4):
        stream = _fed(with_step("iid", 1_700, 61_005, at=at, size=6.0))
        assert [change.index for change in stream.change_points] == [at]


def test_missing_values_count_as_positions() -> None:
    values = with_step("iid", 240, 61_006, at=120, size=6.0)
    gappy = values.copy()
    gappy[5::7] = np.nan
    gappy[119] = math.inf
    (change,) = _fed(gappy).change_points
    assert change.index == 120
    assert change.time == 120.0
    stream = _fed(gappy)
    assert stream.count == 240


@pytest.mark.parametrize(
    "values",
    [
        np.empty(0),
        np.full(300, np.nan),
        np.full(300, 7.25),
        np.full(300, 0.0),
        np.array([1.0, 9.0, 1.0, 9.0]),
        np.array([math.inf, -math.inf, 3.0]),
    ],
    ids=["nothing", "all missing", "constant", "zeros", "four values", "infinite"],
)
def test_series_that_say_nothing_have_no_changes(values: Vector) -> None:
    stream = ChangeStream()
    assert stream.extend(np.arange(len(values)), values) == []
    assert stream.change_points == ()


def test_a_constant_that_becomes_another_changed() -> None:
    values = np.concatenate([np.full(60, 5.0), np.full(60, 7.0)])
    (change,) = _fed(values).change_points
    assert (change.index, change.kind) == (60, ChangeKind.STEP)
    assert change.effect.absolute == pytest.approx(2.0)
    assert change.effect.relative == pytest.approx(0.4)


def test_counts_with_many_ties_are_no_changes_and_their_step_is_one() -> None:
    random = np.random.default_rng(61_007)
    counts = random.poisson(0.4, 300).astype(np.float64)
    assert _fed(counts).change_points == ()
    counts[150:] += 3.0
    assert [change.index for change in _fed(counts).change_points] == [150]


def test_a_few_zeros_are_no_change() -> None:
    values = 100.0 + noise_of("iid", 200, 61_008)
    values[[20, 77, 78, 140]] = 0.0
    stream = ChangeStream()
    assert stream.extend(np.arange(200), values) == []


@given(seed=SEEDS, exponent=st.integers(-9, 9), shift=st.integers(-40, 40))
@settings(max_examples=8, deadline=None)
def test_scale_and_level_do_not_matter(seed: int, exponent: int, shift: int) -> None:
    values = _eventful(seed, 220)
    scale = 2.0**exponent
    plain = _fed(values).change_points
    other = _fed(values * scale + shift * scale).change_points
    assert [change.index for change in other] == [change.index for change in plain]
    for one, two in zip(plain, other, strict=True):
        assert two.effect.absolute == pytest.approx(one.effect.absolute * scale, rel=1e-6)


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_the_mirrored_series_has_the_mirrored_changes(seed: int) -> None:
    values = _eventful(seed, 220)
    plain, mirrored = _fed(values).change_points, _fed(-values).change_points
    assert [change.index for change in plain] == [change.index for change in mirrored]
    for one, two in zip(plain, mirrored, strict=True):
        assert two.effect.absolute == pytest.approx(-one.effect.absolute, rel=1e-6)


def test_replicates_weigh() -> None:
    """Values of ten replicates have a third of the error: a step that is no evidence in single ones is in them."""
    random = np.random.default_rng(61_009)
    weights = np.where(np.arange(80) < 40, 1.0, 25.0)
    values = random.normal(size=80) / np.sqrt(weights)
    values[60:] += 1.2
    weighed, single = ChangeStream(), ChangeStream()
    weighed.extend(np.arange(80), values, weights)
    single.extend(np.arange(80), random.permutation(values), np.ones(80))
    assert [change.index for change in weighed.change_points] == [60]


def test_equal_and_late_times_are_points_in_order_of_arrival() -> None:
    values = with_step("iid", 120, 61_010, at=60, size=6.0)
    stream = ChangeStream()
    stream.extend(np.repeat([10.0, 5.0], 60), values)
    assert [(change.index, change.time) for change in stream.change_points] == [(60, 5.0)]


def test_columns_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="2, 1 and 1 entries"):
        ChangeStream().extend([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="time is not finite"):
        ChangeStream().append(math.nan, 1.0)
    with pytest.raises(ValueError, match="weight"):
        ChangeStream().append(0.0, 1.0, 0.0)


def test_a_step_right_behind_a_lone_spike_is_seen_and_confirmed() -> None:
    values = 0.1 + 0.002 * noise_of("iid", 60, 61_011)
    values[36] += 0.2
    values[40:] += 0.025
    stream = ChangeStream()
    told = stream.extend(np.arange(60), values)
    assert told[0].state is ChangeState.PROVISIONAL
    (change,) = stream.change_points
    assert change.state is ChangeState.CONFIRMED
    assert abs(change.index - 40) <= 1
    assert told[-1].state is ChangeState.CONFIRMED


@pytest.mark.parametrize("length", [40, 60, 100])
def test_two_lines_with_little_noise_are_no_noise_of_long_memory(length: int) -> None:
    """A short, smooth series that turns: its differences look like memory, its turn is a drift all the same."""
    half = length // 2
    turned = np.concatenate([np.arange(half) * 2.0, half * 2.0 - np.arange(length - half)])
    found = 0
    for seed in range(50_000, 50_020):
        values = turned + np.random.default_rng(seed).normal(size=length)
        changes = _fed(values).change_points
        found += [abs(change.index - half) <= 5 for change in changes] == [True]
    assert found >= 12


def test_a_random_walk_and_one_smooth_bend_are_no_pieces_of_lines() -> None:
    for seed in range(50_000, 50_010):
        walk = np.cumsum(np.random.default_rng(seed).normal(size=200))
        assert len(_fed(walk).change_points) <= 1
        bend = np.exp(np.arange(200) / 100.0) + np.random.default_rng(seed).normal(size=200) * 0.01
        assert len(_fed(bend).change_points) <= 1
