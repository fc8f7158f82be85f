"""Shards of a suite."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dtf.core.run.sharding import CaseEstimate, Shard, cut


def cases(
    seconds: Sequence[float | None], files: int = 1, groups: list[str] | None = None
) -> list[CaseEstimate]:
    return [
        CaseEstimate(
            name=f"test_{position}",
            position=position,
            file=f"test_{position * files // max(len(seconds), 1)}.py",
            group=groups[position] if groups else "",
            expected_seconds=value,
        )
        for position, value in enumerate(seconds)
    ]


def finishing_times(shards: list[Shard], workers: int) -> list[float]:
    """When each worker ends if every idle worker takes the next shard."""
    ends = [0.0] * workers
    for shard in shards:
        ends[ends.index(min(ends))] += shard.expected_seconds
    return ends


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=60),
    st.integers(1, 9),
    st.integers(1, 5),
    st.data(),
)
def test_every_case_is_in_one_shard_in_order_and_groups_are_whole(
    seconds: list[float | None], workers: int, files: int, data: st.DataObject
) -> None:
    groups = data.draw(
        st.lists(st.sampled_from(["", "", "a", "b"]), min_size=len(seconds), max_size=len(seconds))
    )
    shards = cut(cases(seconds, files, groups), workers)
    positions = [case.position for shard in shards for case in shard.cases]
    assert sorted(positions) == list(range(len(seconds)))
    for name in ("a", "b"):
        assert sum(any(case.group == name for case in shard.cases) for shard in shards) <= 1
    for shard in shards:
        members = [case.position for case in shard.cases if not case.group]
        assert members == sorted(members)


def ends_with_one_in_advance(shards: list[Shard], workers: int) -> list[float]:
    """When each worker ends if it is dealt two neighbours and then, for each it ends, the next one."""
    left = [shard.expected_seconds for shard in shards]
    held = [left[2 * worker : 2 * worker + 2] for worker in range(workers)]
    left = left[2 * workers :]
    ends = [0.0] * workers
    while any(held):
        worker = min((n for n in range(workers) if held[n]), key=lambda n: ends[n] + held[n][0])
        ends[worker] += held[worker].pop(0)
        held[worker] += left[:1]
        left = left[1:]
    return ends


def test_no_worker_holds_a_long_shard_behind_another_while_the_next_has_none() -> None:
    known: list[float | None] = [1.5 if position in (30, 60) else 0.02 for position in range(64)]
    assert max(ends_with_one_in_advance(cut(cases(known), 2), 2)) < 2.3


def test_the_longest_cases_are_begun_first_and_alone() -> None:
    known: list[float | None] = [0.01] * 50
    shards = cut(cases([*known, 5.0, *known, 9.0]), 4)
    assert [[case.position for case in shard.cases] for shard in shards[:4:2]] == [[101], [50]]


def test_workers_end_together_though_durations_are_skewed() -> None:
    durations: list[float | None] = [3.0 if position % 40 == 7 else 0.05 for position in range(320)]
    for workers in (1, 2, 4, 6):
        ends = finishing_times(cut(cases(durations, files=8), workers), workers)
        total = sum(value for value in durations if value)
        assert max(ends) <= max(total / workers * 1.08, 3.0), workers


def test_shards_become_smaller_and_stay_few() -> None:
    shards = cut(cases([0.001] * 1000), 2)
    sizes = [len(shard.cases) for shard in shards]
    assert sizes[0] == 125
    assert sizes[-1] <= 16
    assert len(shards) < 60


def test_a_shard_ends_where_a_file_does_if_it_is_large_enough_by_then() -> None:
    shards = cut(cases([1.0] * 20, files=2), 1)
    for shard in shards[:2]:
        assert len({case.file for case in shard.cases}) == 1


def test_without_history_cases_count_alike_and_nothing_is_claimed() -> None:
    shards = cut(cases([None] * 64), 2)
    assert all(shard.expected_seconds == 0 for shard in shards)
    assert len(shards[0].cases) == 8


def test_no_shard_outgrows_a_message() -> None:
    many = [CaseEstimate(name=f"test_{position}" + "x" * 1000, position=position) for position in range(3000)]
    shards = cut(many, 1)
    assert all(sum(len(case.name) for case in shard.cases) <= 64 * 1024 for shard in shards)
    assert max(len(shard.cases) for shard in cut(cases([0.001] * 9000), 1)) == 256
