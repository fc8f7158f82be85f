"""How often workers are heard from, by the size of the fleet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.coordinator.heartbeat_rule import STEP, HeartbeatRule
from dtf.settings.model import CoordinatorSettings

DEFAULTS = CoordinatorSettings()
RULE = HeartbeatRule(
    DEFAULTS.heartbeat_seconds,
    DEFAULTS.lease_seconds,
    DEFAULTS.heartbeats_per_second,
    DEFAULTS.lease_heartbeats,
)


@pytest.mark.parametrize("fleet", [0, 1, 10, 250])
def test_a_small_fleet_is_as_ever(fleet: int) -> None:
    assert RULE.interval(fleet) == DEFAULTS.heartbeat_seconds
    assert RULE.attached_lease(RULE.interval(fleet)) == DEFAULTS.lease_seconds
    assert RULE.detached_lease(RULE.interval(fleet)) == DEFAULTS.lease_seconds
    assert RULE.review_period(RULE.interval(fleet)) == DEFAULTS.heartbeat_seconds


@given(st.integers(1, 200_000))
def test_a_fleet_of_any_size_says_no_more_than_it_may_a_second(fleet: int) -> None:
    rate = fleet / RULE.interval(fleet)
    assert rate <= DEFAULTS.heartbeats_per_second * (1 + 1e-6)
    if fleet > DEFAULTS.heartbeats_per_second:
        assert rate > DEFAULTS.heartbeats_per_second / STEP * (1 - 1e-6), "stretched further than it must"


@given(st.integers(1, 200_000))
def test_a_worker_may_miss_several_heartbeats_and_come_back_with_the_whole_fleet(fleet: int) -> None:
    interval = RULE.interval(fleet)
    assert RULE.attached_lease(interval) >= DEFAULTS.lease_heartbeats * interval
    assert RULE.detached_lease(interval) * DEFAULTS.heartbeats_per_second >= fleet
    assert RULE.review_period(interval) < RULE.attached_lease(interval)


def test_one_more_worker_changes_nobodys_interval() -> None:
    intervals = {RULE.interval(fleet) for fleet in range(1, 20_001)}
    assert len(intervals) <= 21
