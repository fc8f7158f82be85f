"""What is learned of a class of tasks, and what the next start-up delay needs by it."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.core.scaling import snapshot
from dtf.core.scaling.forecast import LeadTime, flowing, lead_time, persistence, poisson_quantile
from dtf.core.scaling.measure import Measured
from dtf.core.scaling.predictive import forecast_arrivals
from dtf.core.scaling.target import settled
from dtf.core.scaling.traffic import HISTORY_BIN_SECONDS, LEVELS, Traffic
from tests.unit.scaling_events import SECOND, START_NS

pytestmark = pytest.mark.resource_manager


def at(seconds: float) -> int:
    """An instant of the story."""
    return START_NS + round(seconds * SECOND)


def poisson_traffic(rate: float, task_seconds: float, until: float, seed: int = 3) -> Traffic:
    """Tasks that come at random and each find a slot."""
    source, traffic, now = random.Random(seed), Traffic(), 0.0
    ends: list[float] = []
    while now < until:
        now += source.expovariate(rate)
        for end in sorted(ends):
            if end <= now:
                ends.remove(end)
                traffic.ended(at(end), 1)
        traffic.arrived(at(now), 1)
        traffic.started(at(now), 1, 1000)
        ends.append(now + source.expovariate(1 / task_seconds))
    return traffic


def test_the_rate_is_that_of_the_newest_arrivals_and_changes_with_them() -> None:
    traffic = Traffic()
    for k in range(300):
        traffic.arrived(at(10.0 * k), 1)
    assert traffic.rate_per_second(at(3000), 30.0) == pytest.approx(0.1, rel=0.05)
    for k in range(60):
        traffic.arrived(at(3000.0 + k), 1)
    assert 0.4 < traffic.rate_per_second(at(3060), 30.0) <= 1.0


def test_arrivals_that_stop_are_not_expected_to_go_on() -> None:
    traffic = Traffic()
    for k in range(100):
        traffic.arrived(at(float(k)), 1)
    assert traffic.rate_per_second(at(103), 30.0) > 0.5
    assert traffic.rate_per_second(at(106), 30.0) > 0.5, "a random flow is as silent every few minutes"
    assert traffic.rate_per_second(at(110), 30.0) == 0.0
    assert traffic.rate_per_second(at(106), 0.5) == 0.0, "nobody is kept for ten start-ups"


def test_a_burst_of_two_seconds_is_not_taken_for_a_rate_of_half_a_minute() -> None:
    traffic = Traffic()
    for k in range(50):
        traffic.arrived(at(k / 25), 1)
    assert traffic.rate_per_second(at(2.0), 30.0) == 0.0
    assert traffic.rate_per_second(at(2.0), 4.0) == pytest.approx(25 * 2 / 4, rel=0.1)


def test_after_a_long_silence_what_comes_is_another_flow() -> None:
    traffic = Traffic()
    for begin in (0.0, 1000.0, 2000.0):
        for k in range(100):
            traffic.arrived(at(begin + 0.05 * k), 1)
    assert traffic.dispersion() < 0.1, "the silences between bursts are no irregularity of their beat"
    assert traffic.rate_per_second(at(2005.0), 10.0) == pytest.approx(20 * 5 / 10, rel=0.1)


def test_the_service_level_follows_the_share_of_tasks_that_found_no_slot() -> None:
    calm, late = (poisson_traffic(rate=0.5, task_seconds=20.0, until=4000.0) for _ in range(2))
    for k in range(300):
        calm.arrived(at(4100.0 + 2 * k), 1, 5)
        late.arrived(at(4100.0 + 2 * k), 1, 0 if k % 5 == 0 else 5)
        for traffic in (calm, late):
            traffic.ended(at(4101.0 + 2 * k), 1)
    assert calm.strictness < 0.0 < late.strictness
    needs = [flowing(traffic, at(4700.0), 30.0, 20.0, 1.0)[0] for traffic in (calm, late)]
    assert needs[0] + 2 <= needs[1]


def test_of_a_crowd_that_nobody_could_have_served_only_the_first_count() -> None:
    crowd, few = Traffic(), Traffic()
    crowd.arrived(at(0), 5000, 0)
    few.arrived(at(0), 24, 0)
    assert 0.0 < crowd.strictness == few.strictness


def test_a_long_job_is_known_to_be_long_before_it_ends() -> None:
    traffic = Traffic()
    traffic.arrived(at(0), 4)
    traffic.started(at(0), 4, 4)
    assert traffic.mean_seconds(at(600), assumed=1.0) == pytest.approx(2401.0)
    traffic.ended(at(600), 4)
    assert traffic.mean_seconds(at(600), assumed=600.0) == pytest.approx(600.0)


def test_leased_tasks_beyond_the_slots_do_not_run() -> None:
    traffic = Traffic()
    traffic.arrived(at(0), 64)
    traffic.started(at(0), 64, 2)
    traffic.ended(at(10), 1)
    assert traffic.running_seconds == pytest.approx(20.0)


def test_levels_remember_how_long_they_were_left() -> None:
    traffic = Traffic()
    for round_number in range(4):
        begin = 200.0 * round_number
        traffic.arrived(at(begin), 5)
        traffic.ended(at(begin + 20), 5)
    assert [level.gaps for level in traffic.levels[:5]] == [[180.0] * 3] * 5
    assert traffic.level_for(0.05) == 5


def test_steady_random_demand_gets_what_so_many_servers_need() -> None:
    traffic = poisson_traffic(rate=0.5, task_seconds=20.0, until=4000.0)
    needed, enough = flowing(traffic, traffic.last_ns, 30.0, 20.0, 1.0)
    # ten at once on average; of 15 servers an arrival finds all taken with a chance of 8 %, of 17 with 3 %
    assert 13.0 <= needed <= 18.0
    assert needed < enough <= needed + 4.0


def test_long_jobs_need_what_runs_and_what_comes_while_a_worker_starts() -> None:
    traffic = poisson_traffic(rate=0.01, task_seconds=2000.0, until=20_000.0)
    needed, _ = flowing(traffic, traffic.last_ns, 30.0, 2000.0, 1.0)
    assert traffic.tasks < needed <= traffic.tasks + 3


def test_only_tasks_that_outlast_several_start_ups_are_followed_in_their_number() -> None:
    assert persistence(30.0, 20.0) < 0.001
    assert persistence(30.0, 150.0) == pytest.approx(math.exp(-0.2))
    assert persistence(30.0, 3000.0) == pytest.approx(math.exp(-0.01))


def test_what_nearly_all_arrivals_have_been_within_is_enough() -> None:
    traffic = Traffic()
    for minute in range(60):  # twenty tasks each minute to the second, gone before the next
        traffic.arrived(at(60.0 * minute), 20)
        traffic.started(at(60.0 * minute), 20, 100)
        traffic.ended(at(60.0 * minute + 40), 20)
    needed, enough = flowing(traffic, at(60.0 * 59 + 45), 30.0, 40.0, 1.0)
    assert needed <= enough == 20.0


def test_a_trickle_of_a_task_in_three_minutes_keeps_one_worker() -> None:
    traffic = poisson_traffic(rate=1 / 180, task_seconds=20.0, until=20_000.0)
    assert flowing(traffic, traffic.last_ns, 30.0, 20.0, 1.0) == (1, 1)


def test_few_are_not_let_go_soon_after_a_launch_while_tasks_keep_coming() -> None:
    measured = Measured(at(200.0), 1, 30.0, effective=20)
    measured.last_scale_out_ns = at(0.0)
    flow, silence = LeadTime(is_flow=True), LeadTime()
    assert settled(measured, flow, 30.0, 18) == at(300.0)
    assert settled(measured, flow, 30.0, 15) is None, "five of twenty are not few"
    assert settled(measured, flow, 30.0, 20) is None
    assert settled(measured, silence, 30.0, 18) is None
    measured.now_ns = at(300.0)
    assert settled(measured, flow, 30.0, 18) is None


def test_a_burst_that_recurs_is_kept_for_when_near_and_launched_for_when_due() -> None:
    traffic = Traffic()
    for round_number in range(6):
        begin = 900.0 * round_number
        traffic.arrived(at(begin), 40)
        traffic.started(at(begin), 40, 100)
        traffic.ended(at(begin + 60), 40)
    last = 900.0 * 5 + 60.0
    assert lead_time(traffic, at(last + 30), 30.0, 60.0, 5.0).kept == 0.0
    assert lead_time(traffic, at(last + 700), 30.0, 60.0, 5.0).needed == 0.0
    due = lead_time(traffic, at(last + 808), 30.0, 60.0, 5.0)
    assert due.needed == 38.0  # all but the 7 % that may wait
    over = lead_time(traffic, at(last + 840 * 1.2), 30.0, 60.0, 5.0)
    assert over.kept == 0.0


def test_the_quantile_of_a_poisson_law_is_the_least_that_leaves_so_little() -> None:
    assert [poisson_quantile(mean, 0.05) for mean in (0.0, 0.02, 0.1, 1.0, 10.0)] == [0, 0, 1, 3, 15]
    assert poisson_quantile(400.0, 0.05) == pytest.approx(400 + 1.645 * 20, rel=1e-4)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arrived", "started", "stopped", "ended"]),
            st.integers(0, 3000),
            st.floats(0, 500),
        ),
        max_size=60,
    )
)
@settings(max_examples=60)
def test_whatever_happens_the_sums_hold_and_survive_being_saved(story: list[tuple[str, int, float]]) -> None:
    traffic, now = Traffic(), 0.0
    for what, count, after in story:
        now += after
        match what:
            case "arrived":
                traffic.arrived(at(now), count)
            case "started":
                traffic.started(at(now), count, 50)
            case "stopped":
                traffic.stopped(at(now), count)
            case _:
                traffic.ended(at(now), count)
        assert 0 <= traffic.running <= max(traffic.tasks, 0) + 50
        assert traffic.reached == sum(LEVELS[k] <= traffic.tasks for k in range(len(traffic.levels)))
        need = lead_time(traffic, at(now), 30.0, traffic.mean_seconds(at(now), 1.0), 5.0)
        assert 0.0 <= need.needed <= need.kept
    assert snapshot.decode(snapshot.encode(traffic), Traffic) == traffic


def daily(days: int, *, noise: float, swing: float) -> Traffic:
    """Tasks with a peak each noon."""
    source, traffic = random.Random(5), Traffic()
    bins = days * 24 * 3600 // HISTORY_BIN_SECONDS
    first = START_NS // (HISTORY_BIN_SECONDS * SECOND) + 1
    for number in range(bins):
        hour = number * HISTORY_BIN_SECONDS / 3600 % 24
        level = 40 + (swing if 11 <= hour < 12 else 0.0)
        count = max(1, round(source.gauss(level, noise)))
        traffic.arrived((first + number) * HISTORY_BIN_SECONDS * SECOND, count)
        traffic.ended((first + number) * HISTORY_BIN_SECONDS * SECOND + 1, count)
    return traffic


def test_a_forecast_is_used_where_it_beats_persistence_and_says_by_how_much() -> None:
    traffic = daily(6, noise=12.0, swing=0.0)
    forecast = forecast_arrivals(traffic, traffic.last_ns + HISTORY_BIN_SECONDS * SECOND)
    assert forecast is not None and forecast.is_used  # noise around a level: the mean beats the last value
    assert forecast.low < forecast.expected < forecast.high
    assert forecast.expected == pytest.approx(40, abs=8)


def test_a_peak_that_comes_every_noon_is_expected_before_it_comes() -> None:
    traffic = daily(8, noise=2.0, swing=400.0)
    for _ in range(11 * 3600 // HISTORY_BIN_SECONDS):  # the ninth morning
        traffic.arrived((traffic.last_bin + 1) * HISTORY_BIN_SECONDS * SECOND, 40)
    peak = forecast_arrivals(traffic, (traffic.last_bin + 1) * HISTORY_BIN_SECONDS * SECOND)
    assert peak is not None and peak.high > 200


def test_a_random_walk_is_left_to_persistence() -> None:
    source, traffic, level = random.Random(9), Traffic(), 2000.0
    first = START_NS // (HISTORY_BIN_SECONDS * SECOND) + 1
    for number in range(3 * 288):
        level = max(100.0, level + source.gauss(0, 40))
        traffic.arrived((first + number) * HISTORY_BIN_SECONDS * SECOND, round(level))
    forecast = forecast_arrivals(traffic, traffic.last_ns + HISTORY_BIN_SECONDS * SECOND)
    assert forecast is not None and not forecast.is_used


def test_two_days_are_needed_to_know_a_day() -> None:
    traffic = daily(1, noise=1.0, swing=0.0)
    assert forecast_arrivals(traffic, traffic.last_ns + HISTORY_BIN_SECONDS * SECOND) is None
