"""The short ways to costs of segments, partitions and waves give what the long ways give."""

import numpy as np
import pytest

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.search import LEAST_SEGMENT, Search
from dtf.core.trend.changes.segments import Sums, line_through
from dtf.core.trend.changes.waves import (
    ALARM_CYCLES,
    LEAST_CYCLES,
    LONGEST_EXPECTED,
    PERIODS,
    SHORTEST_PERIOD,
    wave_cost,
)

SEEDS = range(71_000, 71_004)


def _series(seed: int, length: int) -> tuple[Vector, Vector]:
    """Values with a step and a slope, and weights."""
    random = np.random.default_rng(seed)
    values = random.normal(size=length)
    values[length // 3 :] -= 6.0
    values[length // 2 :] += 0.1 * np.arange(length - length // 2)
    return values, random.uniform(0.5, 2.0, length)


def _sums(values: Vector, weights: Vector) -> Sums:
    return Sums(np.arange(len(values), dtype=np.float64), values, weights)


def _left(columns: list[Vector], values: Vector, weights: Vector) -> float:
    """Weighted sum of squares that a fit of these columns leaves."""
    root = np.sqrt(weights)
    design = np.stack(columns, axis=1) * root[:, None]
    residuals = root * values - design @ np.linalg.lstsq(design, root * values, rcond=None)[0]
    return float(residuals @ residuals)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_segment_costs_what_least_squares_leave(seed: int) -> None:
    values, weights = _series(seed, 60)
    level, line = _sums(values, weights).cost(7, 52)
    x, part, weigh = np.arange(45.0), values[7:52], weights[7:52]
    assert level == pytest.approx(_left([np.ones(45)], part, weigh))
    assert line == pytest.approx(_left([np.ones(45), x], part, weigh))
    through = line_through(x, part, weigh)
    residuals = part - through.level - through.slope * (x - through.centre)
    assert float(residuals**2 @ weigh) == pytest.approx(line)


@pytest.mark.parametrize("length", [12, 60, 200])
def test_many_segments_at_once_cost_what_each_does(length: int) -> None:
    sums = _sums(*_series(71_010, length))
    places = np.array(sorted({0, 5, 6, *range(10, length, 7), length}))
    level, line = sums.pairs(places, LEAST_SEGMENT)
    for after, end in enumerate(places.tolist()):
        for before, start in enumerate(places.tolist()):
            is_segment = end - start >= LEAST_SEGMENT
            expected = sums.cost(start, end) if is_segment else (np.inf, np.inf)
            assert (level[after, before], line[after, before]) == pytest.approx(expected)
    left, right = sums.halves(3, length)
    for at, cut in enumerate(range(4, length)):
        assert (left[0][at], left[1][at]) == pytest.approx(sums.cost(3, cut), abs=1e-9)
        assert (right[0][at], right[1][at]) == pytest.approx(sums.cost(cut, length), abs=1e-9)
    for span, (levels, lines) in zip((6, 24), sums.sliding((6, 24), LEAST_SEGMENT), strict=True):
        starts = range(LEAST_SEGMENT - span, length - LEAST_SEGMENT + 1)
        assert len(levels) == len(lines) == len(starts)
        for at, start in enumerate(starts):
            expected = sums.cost(max(start, 0), min(start + span, length))
            assert (levels[at], lines[at]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_partition_is_cheaper_than_the_one_found(seed: int) -> None:
    length, change, slope = 60, 12.0, 8.0
    sums = _sums(*_series(seed, length))
    search = Search(sums)
    found = search.best_partition(change_cost=change, slope_cost=slope)

    def price(start: int, end: int) -> float:
        level, line = sums.cost(start, end)
        return min(level, line + slope) + change

    best = [0.0] + [np.inf] * length
    for end in range(LEAST_SEGMENT, length + 1):
        best[end] = min(best[start] + price(start, end) for start in range(end - LEAST_SEGMENT + 1))
    edges = [0, *found, length]
    assert found
    assert sum(map(price, edges, edges[1:])) == pytest.approx(best[length])
    assert search.best_partition(change_cost=1e6, slope_cost=1e6) == []
    assert search.best_partition(change_cost=change, slope_cost=slope) == found


@pytest.mark.parametrize("cycles", [LEAST_CYCLES, ALARM_CYCLES])
@pytest.mark.parametrize("length", [20, 128, 333])
def test_the_best_wave_is_that_of_least_squares(length: int, cycles: float) -> None:
    values, weights = _series(71_020, length)
    values = values + 2.0 * np.sin(np.arange(length) / 3.0)
    x = np.arange(length, dtype=np.float64)
    periods = np.geomspace(SHORTEST_PERIOD, max(LONGEST_EXPECTED, length / cycles), PERIODS)
    costs = [
        _left(
            [np.ones(length), x / length, np.cos(2 * np.pi * x / period), np.sin(2 * np.pi * x / period)],
            values,
            weights,
        )
        for period in periods
    ]
    assert wave_cost(values, weights, cycles=cycles) == pytest.approx(min(costs), rel=1e-6)
