"""Strategies, rules, schedules and the division among pools: given a story, how many workers are wanted?"""

from datetime import UTC, datetime

import pytest

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.scaling import snapshot
from dtf.core.scaling.adaptive import BadWeight, PoolTelemetry, parse_weights
from dtf.core.scaling.allocation import Allocation, allocate, recorded_allocation
from dtf.core.scaling.choices import Strategy
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import POLICY_VERSION, ScalingPolicy, wished_policy
from dtf.core.scaling.schedule import BadSchedule, next_boundary_ns, parse_schedule, scheduled_policy
from dtf.core.scaling.stepwise import BadStep, parse_steps
from dtf.core.scaling.story import tell
from tests.unit.scaling_events import SECOND, START_NS, Story

pytestmark = pytest.mark.resource_manager

HOLD = scaling_pb2.SCALING_ACTION_HOLD
OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN


class Pool:
    """A pool whose launches register a second after they were asked for."""

    def __init__(self, policy: ScalingPolicy) -> None:
        self.story = Story()
        self.policy = policy
        self.ledger = PoolLedger(policy.pool)
        self.allocation: Allocation | None = None
        self.telemetry: PoolTelemetry | None = None

    def decide(self) -> scaling_pb2.ScalingDecision | None:
        """One decision, recorded."""
        self.ledger.sync(self.story.projection, self.story.now_ns)
        plan = decide_scaling(
            self.story.projection,
            self.ledger,
            self.policy,
            self.story.now_ns,
            telemetry=self.telemetry,
            allocation=self.allocation,
        )
        if plan.decision is not None:
            self.ledger.record(plan.decision, plan.hold_kind)
        return plan.decision

    def must(self) -> scaling_pb2.ScalingDecision:
        """One decision that must be made."""
        decision = self.decide()
        assert decision is not None
        return decision

    def staff(self, count: int) -> "Pool":
        """`count` workers that have been there for a while."""
        wanted = ScalingPolicy(self.policy.pool, count, 99, 1)
        decision = decide_scaling(self.story.projection, self.ledger, wanted, self.story.now_ns).decision
        assert decision is not None
        self.ledger.record(decision)
        self.story.wait(1.0)
        for launch_id in decision.launch_ids:
            self.story.worker(launch_id, launch_id=launch_id, pool=self.policy.pool)
        self.story.wait(2.0)
        return self

    def effect(self, decision: scaling_pb2.ScalingDecision, rule: str) -> tuple[int, int]:
        """What a rule made of the recommendation."""
        return next((effect.before, effect.after) for effect in decision.rules if effect.rule == rule)


def policy(minimum: int = 0, maximum: int = 20, **more: object) -> ScalingPolicy:
    """A policy whose pace does not keep a test waiting."""
    pace: dict[str, object] = {"scale_out_cooldown_seconds": 0.0, "scale_in_cooldown_seconds": 0.0}
    return ScalingPolicy("local", minimum, maximum, 1, **(pace | more))  # type: ignore[arg-type]


def test_a_static_pool_has_its_size_whatever_there_is_to_do() -> None:
    pool = Pool(policy(strategy=Strategy.STATIC, workers=3))
    assert pool.must().desired == 3
    pool.story.run().submit(500, seconds=60.0)
    assert pool.decide() is None


def test_the_largest_step_that_applies_grows_the_pool_once() -> None:
    pool = Pool(policy(strategy=Strategy.STEPWISE, steps={"queue >= 1": "+1", "queue >= 50": "+100%"})).staff(
        4
    )
    pool.story.run().submit(60, seconds=60.0)
    grown = pool.must()
    assert (grown.action, grown.desired, grown.reason) == (
        OUT,
        8,
        "queue is 60: the step queue >= 50 asks for 8",
    )
    again = pool.decide()
    assert again is None or again.action == HOLD


def test_a_step_down_waits_for_idle_workers() -> None:
    pool = Pool(policy(strategy=Strategy.STEPWISE, steps={"utilization < 0.3": "-1"})).staff(3)
    pool.story.wait(60.0)
    assert (decision := pool.must()).action == IN and len(decision.worker_ids) == 1


@pytest.mark.parametrize(
    "step", [("queue > x", "+1"), ("lunch > 1", "+1"), ("queue > 1", "more"), ("queue > 1", "*2")]
)
def test_a_step_that_cannot_be_read_is_refused_with_what_can_be(step: tuple[str, str]) -> None:
    with pytest.raises(BadStep, match='write "queue >= 20"'):
        parse_steps((step,))


def test_pressure_weighs_queue_processors_and_memory() -> None:
    pool = Pool(policy(strategy=Strategy.ADAPTIVE, backlog_aim_seconds=10.0)).staff(4)
    pool.story.run().submit(4, seconds=20.0)
    pool.telemetry = PoolTelemetry(cpu_ratio=0.75, memory_ratio=0.75)
    # queue: 80 s / (4 x 10 s) = 2; the others are as they should be: 0.6 x 2 + 0.3 + 0.1 = 1.6
    decision = pool.must()
    assert decision.desired == 7
    assert decision.reason == "pressure 1.60 on 4 workers (queue 2.00, cpu 1.00, memory 1.00)"


def test_without_telemetry_the_queue_alone_presses() -> None:
    pool = Pool(policy(strategy=Strategy.ADAPTIVE, backlog_aim_seconds=10.0)).staff(4)
    pool.story.run().submit(4, seconds=20.0)
    assert pool.must().desired == 8


def test_weights_are_checked() -> None:
    assert parse_weights({"cpu": "0"})["cpu"] == 0.0
    for written in ({"cpu": "-1"}, {"disk": "1"}, {"aim": "0"}, {"cpu": "much"}):
        with pytest.raises(BadWeight):
            parse_weights(written)


def test_shrinking_follows_the_highest_recommendation_of_its_window() -> None:
    pool = Pool(
        policy(
            strategy=Strategy.STEPWISE,
            steps={"queue >= 1": "=4", "queue == 0": "=0"},
            scale_in_window_seconds=300.0,
        )
    )
    pool.story.run().submit(1, seconds=1.0)
    launched = pool.must().launch_ids
    pool.story.wait(1.0)
    for launch_id in launched:
        pool.story.worker(launch_id, launch_id=launch_id)
    pool.story.lease(launched[0], 0).wait(1.0).finish(launched[0], 0)
    pool.story.wait(100.0)
    held = pool.must()
    assert (held.action, held.reason) == (HOLD, "4 were needed within the last 300 s")
    pool.story.wait(301.0)
    assert pool.must().action == IN


def test_growing_waits_until_the_lowest_recommendation_of_its_window_has_grown() -> None:
    pool = Pool(
        policy(
            strategy=Strategy.STEPWISE,
            steps={"queue >= 1": "=4", "queue == 0": "=1"},
            scale_out_window_seconds=30.0,
        )
    ).staff(1)
    pool.story.run()
    pool.decide()
    pool.story.submit(9, seconds=60.0).wait(1.0)
    assert pool.must().reason == "0 were enough within the last 30 s"
    pool.story.wait(31.0)
    assert pool.must().desired == 4


def test_the_pool_grows_and_shrinks_within_its_rate() -> None:
    pool = Pool(policy(scale_out_limit=2, scale_out_limit_ratio=0.5, limit_seconds=60.0)).staff(6)
    pool.story.wait(60.0).run().submit(20, seconds=100.0)
    assert pool.must().desired == 9
    assert pool.must().reason == "at most 3 workers are launched in 60 s"
    slow = Pool(policy(scale_in_limit=2, limit_seconds=60.0)).staff(6)
    slow.story.wait(60.0)
    assert len(slow.must().worker_ids) == 2
    held = slow.must()
    assert (held.action, held.reason) == (HOLD, "at most 2 workers go in 60 s")


def test_a_small_change_is_tolerated_and_a_reserve_is_kept() -> None:
    pool = Pool(policy(warm_workers=2)).staff(1)
    decision = pool.must()
    assert (decision.desired, pool.effect(decision, "reserve")) == (2, (0, 2))
    steady = Pool(policy(strategy=Strategy.STATIC, workers=11, tolerance_ratio=0.2)).staff(10)
    held = steady.must()
    assert (held.action, held.reason) == (HOLD, "1 of 10 workers is too small a change")


def test_all_pools_together_leave_so_much_room_and_take_nothing_that_is_there() -> None:
    pool = Pool(policy()).staff(3)
    pool.story.run().submit(50, seconds=100.0)
    pool.allocation = Allocation({"": 1.0}, 5)
    decision = pool.must()
    assert (decision.desired, pool.effect(decision, "all pools")[1]) == (5, 5)
    pool.allocation = Allocation({"": 1.0}, 1)
    held = pool.must()
    assert (held.action, held.reason) == (HOLD, "all pools together leave 1 to this one")


def test_what_operators_wish_comes_before_the_settings_and_is_named() -> None:
    pool = Pool(policy()).staff(2)
    scaled = events_pb2.PoolScaled(pool="local", workers=5, requested_by="ada", reason="release day")
    pool.story.tell(pool_scaled=scaled)
    decision = pool.must()
    assert (decision.desired, decision.reason) == (5, "the pool keeps at least 5, wished by ada: release day")
    pool.story.tell(pool_paused=events_pb2.PoolPaused(pool="local", requested_by="bob"))
    other = Pool(policy()).staff(2)
    other.story.tell(pool_paused=events_pb2.PoolPaused(pool="local", requested_by="bob", reason="audit"))
    other.story.run().submit(50, seconds=60.0)
    held = other.must()
    assert (held.action, held.reason) == (HOLD, "the pool is paused, wished by bob: audit")


def test_bounds_that_cross_are_settled_in_favour_of_what_was_wished() -> None:
    base = policy(2, 10)
    assert _bounds(wished_policy(base, PoolWish("local", max_workers=1))) == (1, 1)
    assert _bounds(wished_policy(base, PoolWish("local", min_workers=15))) == (15, 15)
    assert _bounds(wished_policy(base, None)) == (2, 10)


def _bounds(of: ScalingPolicy) -> tuple[int, int]:
    return of.min_workers, of.max_workers


WEEK = {"mon-fri 08:00-18:00": "5..50", "22:00-06:00": "0", "sat,sun": "1..4"}


@pytest.mark.parametrize(
    ("when", "bounds"),
    [
        ((2026, 11, 23, 9, 0), (5, 50)),  # a Monday
        ((2026, 11, 23, 18, 0), (2, 20)),  # no entry
        ((2026, 11, 23, 23, 30), (0, 0)),
        ((2026, 11, 24, 5, 59), (0, 0)),
        ((2026, 11, 28, 12, 0), (1, 4)),
    ],
)
def test_a_schedule_bounds_every_strategy_in_its_time_zone(
    when: tuple[int, int, int, int, int], bounds: tuple[int, int]
) -> None:
    local = policy(2, 20, schedule=WEEK, timezone="Europe/Berlin")
    utc = datetime(*when, tzinfo=UTC).timestamp() - 3600  # Berlin is an hour ahead in winter
    assert _bounds(scheduled_policy(local, int(utc * SECOND), 0.0)) == bounds


def test_scheduled_workers_are_launched_a_start_up_ahead_and_the_next_boundary_is_known() -> None:
    week = policy(0, 20, schedule=WEEK)
    eight = int(datetime(2026, 11, 23, 8, 0, tzinfo=UTC).timestamp() * SECOND)
    assert scheduled_policy(week, eight - 61 * SECOND, 60.0).min_workers == 0
    assert scheduled_policy(week, eight - 60 * SECOND, 60.0).min_workers == 5
    assert next_boundary_ns(week, eight - 90 * SECOND, 60.0) == eight - 60 * SECOND


@pytest.mark.parametrize(
    "entry",
    [
        ("noon", "1"),
        ("mon 8:00-9:00", "1"),
        ("mon", "5..2"),
        ("25:00-26:00", "1"),
        ("", "1"),
        ("mon", "many"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(entry: tuple[str, str]) -> None:
    with pytest.raises(BadSchedule):
        parse_schedule((entry,))


def test_the_strategy_scheduled_follows_its_lower_bound_alone() -> None:
    pool = Pool(policy(strategy=Strategy.SCHEDULED, schedule={"mon-sun": "3..9"}))
    pool.story.run().submit(100, seconds=60.0)
    decision = pool.must()
    assert (decision.desired, decision.strategy, decision.policy_version) == (3, "scheduled", POLICY_VERSION)


def test_tasks_that_no_pool_can_run_are_named_with_what_they_need() -> None:
    pool = Pool(policy(minimum=1)).staff(1)
    resources = common_pb2.Resources(gpus=1)
    pool.story.run(resources=resources).submit(12, seconds=10.0).wait(1.0)
    decision = pool.must()
    assert (decision.action, decision.reason) == (HOLD, "12 tasks need gpus=1; no pool gives it")
    (unplaceable,) = decision.demand.unplaceable
    assert (unplaceable.requirement, unplaceable.queued, unplaceable.is_nowhere) == ("gpus=1", 12, True)


def test_victims_are_the_dearest_then_the_most_flawed_then_those_idle_longest() -> None:
    pool = Pool(policy(minimum=2)).staff(4)
    for name, price, flaw in (
        ("local-1", 1.0, 0.0),
        ("local-2", 3.0, 0.0),
        ("local-3", 1.0, 0.7),
        ("local-4", 1.0, 0.0),
    ):
        view = pool.story.projection.workers[name]
        view.price_per_hour, view.flaw_score = price, flaw
    pool.story.wait(60.0)
    assert pool.must().worker_ids == ["local-2", "local-3"]


def divide(story: Story, *policies: ScalingPolicy, most: int = 0) -> dict[str, dict[str, float]]:
    """The shares of each pool."""
    found = allocate(story.projection, {}, {of.pool: of for of in policies}, story.now_ns, most)
    return {name: allocation.shares for name, allocation in found.items()}


def pool_of(name: str, price: float, startup: float, most: int = 10, **more: object) -> ScalingPolicy:
    """A pool with a price and a start-up time."""
    return ScalingPolicy(name, 0, most, 1, price_per_hour=price, startup_seconds=startup, **more)  # type: ignore[arg-type]


def test_work_goes_to_the_cheapest_pool_that_fits_until_it_is_full() -> None:
    story = Story().run().submit(25, seconds=600.0)
    for _ in range(30):
        story.projection.traffic[""].ended(story.now_ns, 0)
    story.projection.traffic[""].running_seconds, story.projection.traffic[""].runs = 6e4, 99.0
    shares = divide(story, pool_of("dear", 3.0, 30.0, 100), pool_of("cheap", 1.0, 30.0))
    assert shares["cheap"][""] == pytest.approx(10 / 25)
    assert shares["dear"][""] == pytest.approx(15 / 25)


def test_short_work_goes_where_workers_start_fast_and_long_work_where_they_are_cheap() -> None:
    pools = (pool_of("near", 3.0, 1.0, 100), pool_of("far", 1.0, 120.0, 100))
    for seconds, taken in ((2.0, "near"), (7200.0, "far")):
        story = Story().run().submit(20, seconds=seconds)
        traffic = story.projection.traffic[""]
        traffic.running_seconds, traffic.runs = seconds * 100, 99.0
        shares = divide(story, *pools)
        assert shares[taken][""] == pytest.approx(1.0)


def test_workers_that_are_there_take_the_work_before_others_are_launched() -> None:
    story = Story().worker("d1", pool="dear").worker("d2", pool="dear").run().submit(4, seconds=60.0)
    traffic = story.projection.traffic[""]
    traffic.running_seconds, traffic.runs = 6000.0, 99.0
    shares = divide(story, pool_of("dear", 3.0, 30.0), pool_of("cheap", 1.0, 30.0))
    assert shares["dear"][""] == pytest.approx(0.5)
    assert shares["cheap"][""] == pytest.approx(0.5)


def test_a_class_that_one_pool_can_run_is_its_alone_and_shares_are_a_whole() -> None:
    story = Story().worker("plain", pool="cheap")
    story.tell(
        worker_registered=events_pb2.WorkerRegistered(
            worker_id="g", incarnation=1, pool="gpu", slots=1, resources=common_pb2.Resources(cpus=4, gpus=1)
        )
    )
    story.run("r1", resources=common_pb2.Resources(gpus=1)).submit(5, seconds=10.0)
    story.run("r2").submit(50, seconds=10.0, run_id="r2")
    shares = divide(story, pool_of("cheap", 1.0, 10.0), pool_of("gpu", 9.0, 10.0))
    assert shares["gpu"]["gpus=1"] == pytest.approx(1.0)
    assert "gpus=1" not in shares["cheap"]
    assert sum(shares[name].get("", 0.0) for name in shares) == pytest.approx(1.0)


def test_the_bound_of_all_pools_is_divided_by_what_each_is_short_of() -> None:
    story = Story().run(pool="a").submit(30, seconds=600.0)
    story.run("r2", pool="b").submit(10, seconds=600.0, run_id="r2")
    for traffic in story.projection.traffic.values():
        traffic.running_seconds, traffic.runs = 6e4, 99.0
    found = allocate(story.projection, {}, {n: pool_of(n, 1.0, 10.0, 100) for n in "ab"}, story.now_ns, 20)
    assert (found["a"].room, found["b"].room) == (15, 5)


@pytest.mark.parametrize("way_out", ["draining", "asked to drain", "ending", "in quarantine", "lost"])
def test_the_bound_of_all_pools_counts_what_is_on_its_way_out(way_out: str) -> None:
    """Three workers are allowed in all; while one of "a" still runs, "b" is left one and not two."""
    pool = Pool(policy()).staff(2)
    story, ledger = pool.story, pool.ledger
    match way_out:
        case "draining":
            story.tell(worker_drain_requested=events_pb2.WorkerDrainRequested(worker_id="local-1"))
        case "asked to drain":
            ledger.drains_asked["local-1"] = story.now_ns
        case "ending":
            ledger.launches["local-1"].is_stopping = True
        case "in quarantine":
            story.tell(worker_quarantined=events_pb2.WorkerQuarantined(worker_id="local-1", reason="slow"))
        case _:
            story.tell(worker_lost=events_pb2.WorkerLost(worker_id="local-1", incarnation=1, reason="silent"))
    ledger.sync(story.projection, story.now_ns)
    story.run(pool="b").submit(30, seconds=600.0)
    traffic = story.projection.traffic["pool=b"]
    traffic.running_seconds, traffic.runs = 6e4, 99.0
    policies = {"local": pool.policy, "b": pool_of("b", 1.0, 10.0, 100)}
    ledgers = {"local": ledger, "b": PoolLedger("b")}

    def rooms() -> tuple[int | None, int | None]:
        found = allocate(story.projection, ledgers, policies, story.now_ns, 3)
        return found["local"].room, found["b"].room

    assert rooms() == (1, 1)
    if "local-1" in story.projection.workers:
        story.tell(worker_left=events_pb2.WorkerLeft(worker_id="local-1", incarnation=1))
    assert rooms() == (1, 1), "it left the log; its process still runs"
    ledger.exited("local-1", "exited with code 0", story.now_ns, is_clean=True)
    assert rooms() == (1, 2)


def test_one_place_for_two_pools_goes_to_one_of_them() -> None:
    story = Story().worker("l-1", pool="l").run(pool="a").submit(5, seconds=600.0)
    story.run("r2", pool="b").submit(5, seconds=600.0, run_id="r2")
    policies = {name: pool_of(name, 1.0, 10.0, 100) for name in "lab"}
    found = allocate(story.projection, {}, policies, story.now_ns, 2)
    assert {name: allocation.room for name, allocation in found.items()} == {"l": 1, "a": 1, "b": 0}


def test_a_decision_carries_its_allocation_and_is_made_again_from_it() -> None:
    pool = Pool(policy()).staff(1)
    story = pool.story.run().submit(40, seconds=60.0)
    story.projection.traffic[""].running_seconds, story.projection.traffic[""].runs = 6e3, 99.0
    policies = {"local": pool.policy, "other": pool_of("other", 1.0, 10.0, 100)}
    ledgers = {"local": pool.ledger, "other": PoolLedger("other")}
    pool.allocation = allocate(story.projection, ledgers, policies, story.now_ns, 12)["local"]
    before = snapshot.encode(pool.ledger)
    decision = pool.must()
    stored = scaling_pb2.ScalingDecision.FromString(decision.SerializeToString())
    assert stored.allocation.room == pool.allocation.room
    assert stored.allocation.shares[0].reason.startswith("50% of work that any worker can do")
    assert ("part", f"all pools together leave it {pool.allocation.room} workers") in tell(stored)

    def again(allocation: Allocation | None) -> scaling_pb2.ScalingDecision | None:
        ledger = snapshot.decode(before, PoolLedger)
        assert ledger is not None
        ledger.sync(story.projection, story.now_ns)
        return decide_scaling(
            story.projection, ledger, pool.policy, story.now_ns, allocation=allocation
        ).decision

    assert again(recorded_allocation(stored)) == stored
    assert again(None) != stored


def test_a_quarantined_worker_is_replaced_with_the_reason_once() -> None:
    pool = Pool(policy(minimum=2)).staff(2)
    pool.story.tell(worker_quarantined=events_pb2.WorkerQuarantined(worker_id="local-1", reason="slow disk"))
    decision = pool.must()
    assert decision.action == scaling_pb2.SCALING_ACTION_REPLACE
    assert decision.reason == "local-1 was quarantined: slow disk"
    pool.story.wait(1.0)
    assert pool.decide() is None


def test_a_decision_says_from_where_to_where_it_read_the_log() -> None:
    pool = Pool(policy()).staff(1)
    first = pool.story.projection.last_sequence
    pool.story.run().submit(50, seconds=60.0)
    decision = pool.must()
    assert (
        decision.first_log_sequence
        <= first + 1
        < decision.log_sequence
        == pool.story.projection.last_sequence
    )
    assert {part.name for part in decision.considerations} == {"queue", "forecast"}
    assert decision.forecast.horizon_seconds == pytest.approx(1.0)
    assert decision.now_unix_nanos > START_NS
