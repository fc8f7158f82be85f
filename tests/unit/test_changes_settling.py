"""Which of several partitions is believed: lines that meet, and many steps of different size."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dtf.core.trend.changes import ChangeStream

SERIES = 12


def changes_of(values: NDArray[np.float64]) -> list[int]:
    stream = ChangeStream()
    stream.extend(np.arange(len(values), dtype=np.float64), values)
    return [change.index for change in stream.change_points]


def test_lines_that_meet_are_told_in_a_short_series() -> None:
    whole = 0
    for seed in range(SERIES):
        random = np.random.default_rng(seed)
        curve = np.interp(np.arange(54), [0, 14, 26, 40, 54], [6, 40, 380, 100, 30])
        found = changes_of(curve + 12.0 * random.standard_normal(54))
        whole += len(found) == 3 and all(
            abs(place - knot) <= 4 for place, knot in zip(found, (14, 26, 40), strict=True)
        )
    assert whole >= SERIES - 2


def test_steps_of_all_sizes_among_outliers_are_all_told() -> None:
    known = told = 0
    for seed in range(SERIES):
        random = np.random.default_rng(seed)
        cuts = 25 * np.sort(random.choice(np.arange(1, 27), 7, replace=False))
        levels = np.cumsum(np.where(np.arange(8) % 2, 1.0, -1.0) * random.uniform(3.0, 9.0, 8))
        values = np.repeat(levels, np.diff([0, *cuts, 675])) + random.standard_normal(675)
        is_out = random.random(675) < 0.012
        values[is_out] -= random.uniform(5.0, 17.0, is_out.sum())
        found = np.array(changes_of(values))
        known += len(cuts)
        told += sum(bool((abs(found - cut) <= 3).any()) for cut in cuts)
    assert told >= 0.95 * known


def test_a_walk_is_not_cut() -> None:
    cut = sum(
        bool(changes_of(np.cumsum(np.random.default_rng([83, seed]).standard_normal(200))))
        for seed in range(2 * SERIES)
    )
    assert cut <= 3


def restless_walk(seed: int, length: int) -> NDArray[np.float64]:
    """A walk whose moves have heavy tails and come in clusters, as prices'; shape (length,)."""
    random = np.random.default_rng([84, seed])
    spread, moves = 1.0, np.zeros(length)
    for position in range(length):
        moves[position] = np.sqrt(spread) * random.standard_t(5) / 1.29
        spread = 0.05 + 0.1 * moves[position] ** 2 + 0.85 * spread
    return np.asarray(np.cumsum(moves), dtype=np.float64)


def test_far_moves_of_a_restless_walk_are_mostly_no_jumps() -> None:
    """A jump is held against the moves around it as well."""
    cut = sum(bool(changes_of(restless_walk(seed, 500))) for seed in range(2 * SERIES))
    assert cut <= 0.3 * 2 * SERIES


def test_a_devaluation_within_a_walk_is_told() -> None:
    told = 0
    for seed in range(SERIES):
        values = restless_walk(seed, 240)
        values[120:] += 40.0
        told += any(abs(place - 120) <= 1 for place in changes_of(values))
    assert told >= SERIES - 1


def test_a_rise_that_takes_some_values_is_no_wave_seen_once() -> None:
    for length, start, width, size in ((52, 24, 6, 7.0), (100, 50, 15, 4.0)):
        rise = np.interp(np.arange(length), [start, start + width], [0.0, size])
        told = 0
        for seed in range(SERIES):
            values = rise + np.random.default_rng([85, seed]).standard_normal(length)
            told += any(start - 3 <= place <= start + width + 3 for place in changes_of(values))
        assert told >= SERIES - 3, length


def payments(seed: int, length: int, period: int) -> NDArray[np.float64]:
    """What jumps once in a period by amounts that differ, and decays; shape (length,)."""
    random = np.random.default_rng([86, seed])
    values = np.zeros(length)
    for position in range(1, length):
        paid = random.uniform(0.7, 1.3) if position % period == 11 else 0.0
        values[position] = 0.94 * values[position - 1] + paid
    return values + 0.02 * random.standard_normal(length)


def test_a_season_of_varying_height_has_no_changes_at_one_phase() -> None:
    cut = sum(bool(changes_of(payments(seed, 450, 30))) for seed in range(8))
    assert cut <= 4
    for seed in range(2):
        season = 2.0 * np.sin(2 * np.pi * np.arange(400) / 12)
        steps = np.searchsorted([90, 185, 290], np.arange(400), side="right") % 2
        found = changes_of(season + 4.0 * steps + np.random.default_rng(seed).standard_normal(400))
        assert all(any(abs(place - step) <= 3 for place in found) for step in (90, 185, 290))


@pytest.mark.parametrize(("height", "size"), [(2.0, 8.0), (2.0, 4.0), (4.0, 4.0)])
def test_what_changes_at_the_same_hour_of_different_days_is_told(height: float, size: float) -> None:
    at = np.arange(384)
    places = [79, 151, 199, 271]
    levels = size * np.searchsorted(places, at, side="right")
    noise = np.random.default_rng(87).standard_normal(len(at))
    found = changes_of(height * np.sin(2 * np.pi * at / 24) + levels + noise)
    assert [abs(place - true) <= 2 for place, true in zip(found, places, strict=True)] == [True] * 4
