"""No run starves, and runs of one priority share the workers' time, however long their tasks are."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.simulated_slots import Slots

QUICK, SLOW = 0.02, 1.0


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("first", ["quick", "slow"])
def test_quick_and_slow_runs_of_one_priority_share_the_time(first: str, workers: int, slots: int) -> None:
    pool = Slots(workers, slots=slots)
    for run_id in sorted(["quick", "slow"], reverse=first == "slow"):
        pool.endless(run_id, QUICK if run_id == "quick" else SLOW)
    pool.work(40.0)
    assert all(1 / 3 < share < 2 / 3 for share in pool.shares().values())


def test_a_run_that_has_the_workers_to_itself_shares_them_with_one_that_comes_later() -> None:
    pool = Slots(2)
    pool.endless("quick", QUICK)
    pool.work(5.0)
    pool.endless("slow", SLOW)
    before = pool.runs["quick"].worked_seconds
    pool.work(40.0)
    assert 1 / 3 < (pool.runs["quick"].worked_seconds - before) / 80 < 2 / 3


@pytest.mark.parametrize("credits", [1, 8, 64])
def test_how_much_a_worker_takes_at_a_time_does_not_change_the_shares(credits: int) -> None:
    pool = Slots(1, credits=credits)
    pool.endless("quick", QUICK)
    pool.endless("slow", SLOW)
    pool.work(40.0)
    assert 1 / 3 < pool.shares()["quick"] < 2 / 3


def test_each_of_several_runs_gets_its_share() -> None:
    pool = Slots(2)
    for run_id, seconds in {"a": 0.02, "b": 0.02, "c": 0.3, "d": 1.0}.items():
        pool.endless(run_id, seconds)
    pool.work(60.0)
    assert all(0.17 < share < 0.34 for share in pool.shares().values())


@pytest.mark.parametrize(("ahead", "behind"), [("quick", "slow"), ("slow", "quick")])
def test_a_higher_priority_gets_everything_while_it_has_tasks(ahead: str, behind: str) -> None:
    pool = Slots(2)
    seconds = {"quick": QUICK, "slow": SLOW}
    pool.endless(behind, seconds[behind])
    pool.work(5.0)
    pool.endless(ahead, seconds[ahead], priority=1)
    before = pool.runs[behind].completed
    held = pool.state.runs[behind].leased_count
    pool.work(10.0)
    assert pool.runs[behind].completed <= before + held, "nothing was granted beyond what was held"
    assert pool.runs[ahead].worked_seconds > 10.0


def test_no_slot_is_idle_while_tasks_wait() -> None:
    pool = Slots(3, slots=2)
    for run_id, seconds in {"a": 0.02, "b": 0.3, "c": 1.0}.items():
        pool.endless(run_id, seconds)
    pool.work(30.0)
    worked = sum(run.worked_seconds for run in pool.runs.values())
    assert worked > 0.95 * 30 * 6


@pytest.mark.parametrize("together", [0.0, 0.05], ids=["one by one", "in batches"])
@pytest.mark.parametrize("seconds", [0.02, 1.0])
def test_a_task_of_four_cpus_is_not_starved_by_tasks_of_one(seconds: float, together: float) -> None:
    pool = Slots(1, slots=4, cpus=4)
    pool.endless("narrow", seconds, cpus=1)
    pool.work(2.0)
    pool.endless("wide", seconds, cpus=4)
    pool.work(60 * seconds, together_seconds=together)
    assert pool.runs["wide"].completed > 10
    assert pool.runs["narrow"].completed > 20


@pytest.mark.parametrize("priority", [0, 1])
def test_one_worker_is_kept_for_a_wide_task_and_the_others_go_on(priority: int) -> None:
    pool = Slots(3, slots=4, cpus=4)
    pool.endless("narrow", 1.0, cpus=1)
    pool.work(3.5)
    wide = pool.endless("wide", 1.0, cpus=4, priority=priority)
    wide.is_endless, before = False, pool.runs["narrow"].completed
    pool.submit("wide", 1)
    pool.work(4.0)
    assert wide.completed == 1
    assert pool.runs["narrow"].completed - before >= 36


def test_tasks_that_fit_nowhere_keep_no_worker_from_others() -> None:
    pool = Slots(1, slots=4, cpus=4)
    pool.endless("impossible", 1.0, cpus=8)
    pool.endless("narrow", 1.0, cpus=1)
    pool.work(10.0)
    assert pool.runs["narrow"].completed == 40


SECONDS = st.sampled_from([0.02, 0.1, 0.7, 2.0])
PLAIN = st.tuples(SECONDS, st.just(0.0))
NEEDY = st.tuples(SECONDS, st.sampled_from([1.0, 2.0, 4.0]))


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    kinds=st.lists(PLAIN, min_size=2, max_size=4) | st.lists(NEEDY, min_size=2, max_size=3),
    workers=st.integers(1, 3),
    slots=st.sampled_from([1, 4]),
    credits=st.sampled_from([1, 5, 64]),
    together=st.sampled_from([0.0, 0.03]),
    below=st.integers(0, 2),
)
def test_whatever_streams_in_at_its_priority_or_below_no_run_waits_for_long(
    kinds: list[tuple[float, float]], workers: int, slots: int, credits: int, together: float, below: int
) -> None:
    pool = Slots(workers, slots=slots, cpus=4, credits=credits)
    for index, (seconds, cpus) in enumerate(kinds):
        pool.endless(f"run {index}", seconds, cpus=cpus)
    for index in range(below):
        pool.endless(f"below {index}", 0.02, cpus=float(index), priority=-1)
    pool.work(400.0, most_completions=1000, together_seconds=together)
    rates = [1.0 / seconds for seconds, _ in kinds]
    block = max(1, int(0.5 * min(rates)))
    in_hand = 32 * slots * workers
    for index in range(len(kinds)):
        run = pool.runs[f"run {index}"]
        assert run.longest_wait < 4 * block * sum(rates) / rates[index] + in_hand
