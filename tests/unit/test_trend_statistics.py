"""What history says of a case, and when a duration is unusual."""

import pytest

from dtf.core.trend.statistics import (
    LEAST_HISTORY,
    RECENT,
    CaseHistory,
    CasePoint,
    compare,
    is_unusual,
    summarize,
)

pytestmark = pytest.mark.trend_analyzer


def points(*durations: float | None, verdict: str = "passed") -> list[CasePoint]:
    """Points of case c, oldest first."""
    return [
        CasePoint("c", index, f"r{index}", "", "w", verdict, duration)
        for index, duration in enumerate(durations)
    ]


def test_a_history_is_the_median_and_the_median_distance_from_it() -> None:
    assert summarize("c", points(1.0, 9.0, 2.0, 3.0, 2.5)) == CaseHistory("c", 5, 2.5, 0.5, 2.5, 0, 0)


def test_an_empty_history_is_zero_everywhere() -> None:
    assert summarize("c", []) == CaseHistory("c")


def test_points_without_a_duration_count_for_verdicts_only() -> None:
    history = summarize("c", [*points(1.0), *points(None, verdict="error"), *points(3.0, verdict="flaky")])
    assert (history.count, history.median_seconds, history.failed_count, history.flaky_count) == (
        3,
        2.0,
        1,
        1,
    )


def test_too_short_a_history_calls_nothing_unusual() -> None:
    enough = points(*[1.0] * LEAST_HISTORY)
    assert not compare(points(50.0)[0], enough[1:]).is_unusual
    assert compare(points(50.0)[0], enough).is_unusual


@pytest.mark.parametrize(("duration", "expected"), [(1.17, False), (1.18, True), (0.83, False), (0.82, True)])
def test_equal_values_do_not_make_a_case_exact(duration: float, expected: bool) -> None:
    """Of a median of 1 s without any spread, 5 % is assumed: 3.5 times that is the bound."""
    assert is_unusual(duration, CaseHistory("c", 10, 1.0, 0.0)) is expected


@pytest.mark.parametrize(("duration", "expected"), [(0.0069, False), (0.0081, True)])
def test_a_few_milliseconds_are_what_a_scheduler_does(duration: float, expected: bool) -> None:
    assert is_unusual(duration, CaseHistory("c", 10, 0.001, 0.0)) is expected


def test_a_noisy_case_must_differ_more() -> None:
    noisy = points(1.0, 2.0, 1.5, 0.5, 1.2, 1.8)
    assert not compare(points(3.0)[0], noisy).is_unusual
    assert compare(points(4.5)[0], noisy).is_unusual


def test_a_comparison_carries_the_ratio_and_the_newest_durations_oldest_first() -> None:
    earlier = points(*[float(number) for number in range(1, RECENT + 6)])
    compared = compare(points(26.0)[0], earlier)
    assert compared.ratio == 2.0
    assert compared.recent_seconds == tuple(float(number) for number in range(6, RECENT + 6))


def test_a_case_without_history_or_without_a_duration_has_no_ratio() -> None:
    assert compare(points(1.0)[0], []).ratio == 0.0
    without = compare(points(None)[0], points(*[1.0] * 9))
    assert (without.ratio, without.is_unusual) == (0.0, False)
