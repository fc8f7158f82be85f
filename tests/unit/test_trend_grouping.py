"""One revision, one finding; and cost that only moved."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Impact, Interval
from dtf.core.trend.grouping import SeriesChange, find_moved_costs, group_changes

pytestmark = pytest.mark.trend_analyzer


def changed(
    series: str,
    first: int,
    last: int,
    absolute: float = 1.0,
    *,
    whole: str = "",
    impact: Impact | None = None,
) -> SeriesChange:
    """A step of a duration, its effect known to ± a tenth."""
    reach = 0.1 * abs(absolute)
    effect = Effect(
        absolute,
        absolute / 10.0,
        Interval(absolute - reach, absolute + reach),
        Interval((absolute - reach) / 10.0, (absolute + reach) / 10.0),
    )
    impact = impact or (Impact.REGRESSION if absolute > 0 else Impact.IMPROVEMENT)
    change = ChangePoint(
        first, float(first), ChangeKind.STEP, ChangeState.CONFIRMED, 0.99, effect, first, last, 10.0,
        10.0 + absolute, impact,
    )  # fmt: skip
    return SeriesChange(series, change, first, last, whole)


def test_changes_with_a_revision_in_common_are_one() -> None:
    groups = group_changes([changed("a", 3, 7), changed("b", 5, 9), changed("c", 20, 20)])
    assert [[each.series for each in group.changes] for group in groups] == [["a", "b"], ["c"]]
    assert (groups[0].first_position, groups[0].last_position) == (5, 7)
    assert [group.is_shared for group in groups] == [True, False]


def test_directions_stay_apart() -> None:
    up, down = changed("a", 5, 5, 2.0), changed("b", 5, 5, -2.0)
    groups = group_changes([up, down])
    assert {group.impact: group.changes for group in groups} == {
        Impact.REGRESSION: (up,),
        Impact.IMPROVEMENT: (down,),
    }
    unknown = [changed("a", 5, 5, 2.0, impact=Impact.CHANGE), changed("b", 5, 5, -2.0, impact=Impact.CHANGE)]
    assert len(group_changes(unknown)) == 2


def test_chains_are_not_one_where_no_revision_is_shared() -> None:
    groups = group_changes([changed("a", 1, 3), changed("b", 3, 5), changed("c", 5, 7)])
    assert [[each.series for each in group.changes] for group in groups] == [["a", "b"], ["c"]]


PLACED = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 6), st.sampled_from([-3.0, -1.0, 2.0, 4.0])), max_size=25
)


@given(PLACED, st.integers())
def test_every_change_is_in_one_group_all_of_which_share_its_place(
    places: list[tuple[int, int, float]], seed: int
) -> None:
    changes = [
        changed(f"s{number}", first, first + width, size)
        for number, (first, width, size) in enumerate(places)
    ]
    groups = group_changes(changes)
    assert sorted(each.series for group in groups for each in group.changes) == sorted(
        each.series for each in changes
    )
    for group in groups:
        assert group.first_position <= group.last_position
        for each in group.changes:
            assert each.first_position <= group.first_position
            assert group.last_position <= each.last_position
            assert each.change.impact is group.impact
    random.Random(seed).shuffle(changes)
    assert group_changes(changes) == groups


def test_cost_that_went_from_one_case_to_another_has_moved() -> None:
    down, up = changed("a", 5, 6, -10.0, whole="suite"), changed("b", 6, 8, 9.5, whole="suite")
    (moved,) = find_moved_costs([up, down])
    assert (moved.sources, moved.targets) == ((down,), (up,))
    assert (moved.first_position, moved.last_position, moved.moved) == (6, 6, 9.5)
    assert moved.rest.low <= 0.0 <= moved.rest.high


@pytest.mark.parametrize(
    "changes",
    [
        [changed("a", 5, 5, -10.0, whole="suite"), changed("b", 5, 5, 4.0, whole="suite")],
        [changed("a", 5, 5, -10.0, whole="suite"), changed("b", 5, 5, 13.0, whole="suite")],
        [changed("a", 5, 5, -10.0, whole="suite"), changed("b", 9, 9, 10.0, whole="suite")],
        [changed("a", 5, 5, -10.0, whole="suite"), changed("b", 5, 5, 10.0, whole="another")],
        [changed("a", 5, 5, -10.0), changed("b", 5, 5, 10.0)],
    ],
    ids=["mostly saved", "more lost", "elsewhere", "of another whole", "of nothing"],
)
def test_what_does_not_make_up_for_each_other_has_not_moved(changes: list[SeriesChange]) -> None:
    assert find_moved_costs(changes) == ()


def test_a_whole_that_changed_there_had_no_cost_moved() -> None:
    changes = [changed("a", 5, 5, -10.0, whole="suite"), changed("b", 5, 5, 10.0, whole="suite")]
    assert find_moved_costs(changes, [changed("suite", 4, 5, 3.0)]) == ()
    assert len(find_moved_costs(changes, [changed("suite", 9, 9, 3.0)])) == 1
