"""Turns are shared by time, and nobody waits long for one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.core.run.turns import LONGEST_TURN, Turns

SECONDS = st.lists(st.floats(0.01, 5.0), min_size=2, max_size=5)


@settings(max_examples=20, deadline=None)
@given(seconds=SECONDS, begin=st.integers(1, 2**40))
def test_each_run_gets_the_same_time_and_waits_no_longer_than_it_must(
    seconds: list[float], begin: int
) -> None:
    turns = Turns(seconds, 2)
    rates = [1 / each for each in seconds]
    rarest = min(rates) / sum(rates)
    fence, count = begin, [0] * len(seconds)
    seen = [begin] * len(seconds)
    while fence < begin + 24 * LONGEST_TURN / rarest:
        turn = turns.next(fence)
        assert turn is not None
        assert 0 < turn.count <= 2 * LONGEST_TURN
        gap = fence - seen[turn.index]
        assert gap <= 4 * LONGEST_TURN / rates[turn.index] * sum(rates)
        fence += turn.count
        count[turn.index] += turn.count
        seen[turn.index] = fence
    times = [number * each for number, each in zip(count, seconds, strict=True)]
    assert max(times) < 1.5 * min(times)


@given(seconds=SECONDS, cuts=st.lists(st.integers(1, 40), min_size=20, max_size=60))
def test_a_turn_that_was_cut_short_goes_on(seconds: list[float], cuts: list[int]) -> None:
    turns, fence = Turns(seconds, 2), 1
    for cut in cuts:
        turn = turns.next(fence)
        assert turn is not None
        if cut < turn.count:
            rest = turns.next(fence + cut)
            assert rest is not None
            assert rest.index == turn.index
        fence += min(cut, turn.count)


def test_runs_that_were_dropped_get_no_turn() -> None:
    turns = Turns([1.0] * 5, 1)
    for index in (3, 0, 4):
        turns.drop(index)
    got = [turns.next(fence) for fence in range(0, 3200, LONGEST_TURN)]
    assert {turn.index for turn in got if turn is not None} == {1, 2}
    turns.drop(1)
    turns.drop(2)
    assert turns.next(1) is None


def test_a_task_of_an_hour_is_not_kept_waiting_for_an_hour() -> None:
    turns = Turns([0.1, 3600.0], 1)
    waited = 0
    while (turn := turns.next(waited + 1)) is not None and turn.index == 0:
        waited += turn.count
    assert waited <= 400
