"""Given events, what does the resource manager decide?"""

import pytest

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.scaling.decide import Plan, decide_scaling
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy
from tests.unit.scaling_events import SECOND, Story

pytestmark = pytest.mark.resource_manager

HOLD = scaling_pb2.SCALING_ACTION_HOLD
OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN
REPLACE = scaling_pb2.SCALING_ACTION_REPLACE
TERMINATE = scaling_pb2.SCALING_ACTION_TERMINATE


class Manager:
    """The pure half of the resource manager, told a story."""

    def __init__(self, story: Story, minimum: int = 1, maximum: int = 6, **policy: float) -> None:
        self.story = story
        self.ledger = PoolLedger("local")
        self.policy = ScalingPolicy("local", minimum, maximum, 1, **policy)  # type: ignore[arg-type]

    def plan(self) -> Plan:
        """One decision, recorded."""
        self.ledger.sync(self.story.projection, self.story.now_ns)
        plan = decide_scaling(self.story.projection, self.ledger, self.policy, self.story.now_ns)
        if plan.decision is not None:
            self.ledger.record(plan.decision, plan.hold_kind)
        return plan

    def decide(self) -> scaling_pb2.ScalingDecision:
        """One decision that must be made."""
        decision = self.plan().decision
        assert decision is not None
        return decision

    def staff(self, count: int) -> "Manager":
        """`count` workers that were launched and registered a while ago."""
        wanted = ScalingPolicy("local", count, 99, 1)
        plan = decide_scaling(self.story.projection, self.ledger, wanted, self.story.now_ns)
        assert plan.decision is not None
        self.ledger.record(plan.decision)
        self.story.wait(1.0)
        for launch_id in plan.decision.launch_ids:
            self.story.worker(launch_id, launch_id=launch_id)
        self.story.wait(2.0)
        self.ledger.sync(self.story.projection, self.story.now_ns)
        return self


def test_the_minimum_is_launched_before_there_is_any_work() -> None:
    decision = Manager(Story(), minimum=2).decide()
    assert (decision.action, decision.reason) == (OUT, "the pool keeps at least 2")
    assert decision.launch_ids == ["local-1", "local-2"]


def test_launches_that_have_not_registered_yet_are_not_asked_for_again() -> None:
    manager = Manager(Story(), minimum=2)
    manager.decide()
    assert manager.plan().decision is None


def test_a_backlog_scales_out_to_the_aim_for_each_worker() -> None:
    manager = Manager(Story(), backlog_aim_seconds=15).staff(2)
    manager.story.run().submit(89, seconds=0.54)
    decision = manager.decide()
    assert (decision.action, decision.observed, decision.recommended, decision.desired) == (OUT, 2, 4, 4)
    assert decision.reason == "backlog 48.1 s of work for 2 workers, aim 15 s each"
    assert (decision.demand.queue_depth, decision.demand.known_count) == (89, 89)


def test_an_alternative_says_what_one_worker_fewer_would_mean() -> None:
    manager = Manager(Story(), backlog_aim_seconds=15).staff(2)
    manager.story.run().submit(48, seconds=1.0)
    fewer = manager.decide().alternatives[0]
    # startup 1 s: 4 workers end after (48 + 2) / 4 = 12.5 s, 3 after (48 + 1) / 3 = 16.33 s
    assert fewer.workers == 3
    assert fewer.backlog_seconds == pytest.approx(16.0)
    assert fewer.saved_worker_seconds == pytest.approx(4 * 12.5 - 49)
    assert fewer.description == "3 workers: 16.0 s each, saves 1.0 worker-seconds, ends 3.8 s later"


def test_the_maximum_is_never_passed_and_the_rule_says_so() -> None:
    manager = Manager(Story(), maximum=3).staff(2)
    manager.story.run().submit(100, seconds=1.0)
    decision = manager.decide()
    assert (decision.desired, decision.recommended) == (3, 49)
    effects = {effect.rule: (effect.before, effect.after) for effect in decision.rules}
    assert effects["maximum"] == (49, 3)


def test_no_more_workers_than_tasks() -> None:
    manager = Manager(Story()).staff(1)
    manager.story.run().submit(2, seconds=100.0)
    assert manager.decide().desired == 2


def test_work_that_ends_before_a_worker_could_start_launches_none() -> None:
    manager = Manager(Story(), backlog_aim_seconds=0.2).staff(1)
    manager.story.run().submit(9, seconds=0.1)
    decision = manager.decide()
    assert (decision.action, decision.recommended, decision.desired) == (HOLD, 1, 1)
    assert decision.reason.startswith("the work ends in 0.9 s, a new worker takes 1.0 s to start")


def test_leased_work_that_waits_on_a_worker_counts_as_backlog() -> None:
    manager = Manager(Story()).staff(1)
    manager.story.run().submit(8, seconds=5.0).lease("local-1", *range(8))
    assert manager.decide().desired == 6


def test_a_second_scale_out_waits_for_the_cool_down_and_says_when() -> None:
    manager = Manager(Story(), scale_out_cooldown_seconds=3.0).staff(1)
    manager.story.run().submit(2, seconds=10.0)
    assert manager.decide().desired == 2
    manager.story.wait(1.0).submit(2, seconds=10.0, first=2)
    plan = manager.plan()
    assert plan.decision is not None and plan.decision.action == HOLD
    assert plan.wake_at_ns == manager.ledger.last_scale_out_ns + 3 * SECOND
    manager.story.wait(2.0)
    assert (manager.decide().desired) == 4


def test_a_hold_is_published_once_for_each_reason() -> None:
    manager = Manager(Story(), maximum=1).staff(1)
    manager.story.run().submit(100, seconds=1.0)
    assert manager.decide().reason == "the pool has at most 1"
    for _ in range(5):
        manager.story.wait(2.0)
        assert manager.plan().decision is None


def test_idle_workers_go_when_their_time_is_over_idle_longest_first() -> None:
    manager = Manager(Story(), minimum=1, scale_in_idle_seconds=5.0).staff(3)
    story = manager.story.run().submit(2, seconds=0.5).lease("local-1", 0).lease("local-2", 1, first_fence=2)
    story.wait(0.5).finish("local-2", 1, first_fence=2)
    story.wait(2.1)
    assert manager.decide().action == HOLD  # nobody has been idle for five seconds yet
    story.wait(0.5)
    assert manager.decide().worker_ids == ["local-3"]
    story.wait(1.0)
    assert manager.decide().action == HOLD
    story.wait(2.0)
    assert manager.decide().worker_ids == ["local-2"]


def test_a_worker_that_holds_a_lease_never_goes() -> None:
    manager = Manager(Story(), minimum=0).staff(2)
    manager.story.run().submit(1, seconds=0.001).lease("local-1", 0)
    manager.story.wait(600.0)
    assert manager.decide().worker_ids == ["local-2"]
    manager.story.drain_requested("local-2").wait(600.0)
    plan = manager.plan()
    assert plan.decision is None or plan.decision.action == HOLD


def test_the_pool_does_not_shrink_below_its_minimum() -> None:
    manager = Manager(Story(), minimum=2).staff(3)
    manager.story.wait(60.0)
    assert manager.decide().worker_ids == ["local-1"]
    manager.story.drain_requested("local-1").left("local-1").wait(60.0)
    assert manager.decide().action == TERMINATE
    assert manager.plan().decision is None


def test_a_worker_started_by_hand_counts_and_is_never_drained() -> None:
    manager = Manager(Story(), minimum=1)
    manager.story.worker("by-hand").wait(600.0)
    assert manager.plan().decision is None
    manager.policy = ScalingPolicy("local", 0, 6, 1)
    decision = manager.decide()
    assert (decision.action, decision.observed, decision.reason) == (
        HOLD,
        1,
        "no worker has been idle for 2 s",
    )


def test_a_worker_that_left_has_its_process_ended_once() -> None:
    manager = Manager(Story(), minimum=0).staff(1)
    manager.story.drain_requested("local-1").left("local-1")
    decision = manager.decide()
    assert decision.action == TERMINATE
    assert decision.launch_ids == ["local-1"]
    assert decision.worker_ids == ["local-1"]
    assert manager.plan().decision is None


def test_a_worker_whose_process_died_is_replaced_at_once() -> None:
    manager = Manager(Story(), minimum=1, maximum=2).staff(2)
    manager.story.run().submit(100, seconds=1.0).wait(20.0)
    manager.ledger.exited("local-2", "was killed by signal 9", manager.story.now_ns, is_clean=False)
    decision = manager.decide()
    assert decision.action == REPLACE
    assert decision.launch_ids == ["local-3"]
    assert decision.reason == "local-2 was killed by signal 9"


def test_a_worker_that_died_when_nothing_needs_it_is_not_replaced() -> None:
    manager = Manager(Story(), minimum=1).staff(2)
    manager.ledger.exited("local-2", "was killed by signal 9", manager.story.now_ns, is_clean=False)
    plan = manager.plan()
    assert plan.decision is None or plan.decision.action == HOLD


def test_a_lost_worker_is_replaced_at_once_and_its_process_ended_if_it_stays_away() -> None:
    manager = Manager(Story(), minimum=2).staff(2)
    manager.story.lost("local-1")
    assert manager.decide().action == REPLACE
    manager.story.wait(9.9)
    assert manager.plan().decision is None
    manager.story.wait(0.1)
    assert (decision := manager.decide()).action == TERMINATE and decision.launch_ids == ["local-1"]


def test_launches_that_die_one_after_the_other_are_tried_ever_more_slowly() -> None:
    manager = Manager(Story(), minimum=1)
    waits = []
    for _ in range(5):
        manager.story.wait(0.1)
        launch_id = manager.decide().launch_ids[0]
        manager.story.wait(0.2)
        manager.ledger.exited(
            launch_id, "exited with code 3 (error: x)", manager.story.now_ns, is_clean=False
        )
        plan = manager.plan()
        if plan.decision is not None and plan.decision.launch_ids:
            waits.append(0.0)
            manager.ledger.exited(
                plan.decision.launch_ids[0], "exited with code 3", manager.story.now_ns, is_clean=False
            )
            plan = manager.plan()
        assert plan.wake_at_ns is not None
        waits.append((manager.ledger.retry_at_ns - manager.story.now_ns) / SECOND)
        manager.story.now_ns = manager.ledger.retry_at_ns
    assert waits == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]


def test_a_crash_loop_says_what_kills_the_launches() -> None:
    manager = Manager(Story(), minimum=1)
    for _ in range(2):
        manager.ledger.exited(
            manager.decide().launch_ids[0],
            "exited with code 3 (error: no token)",
            manager.story.now_ns,
            is_clean=False,
        )
    decision = manager.decide()
    assert decision.action == HOLD
    assert "2 launches in a row died young" in decision.reason
    assert "local-2 exited with code 3 (error: no token)" in decision.reason


def test_launches_that_are_stopped_young_with_everything_else_are_no_failures() -> None:
    manager = Manager(Story(), minimum=1)
    for _ in range(5):
        manager.ledger.exited(
            manager.decide().launch_ids[0],
            "was killed by signal 15",
            manager.story.now_ns,
            is_clean=False,
            is_dismissed=True,
        )
    assert manager.ledger.failures_in_a_row == 0
    assert manager.decide().launch_ids == ["local-6"]


def test_a_launch_that_never_registers_is_ended_and_replaced() -> None:
    manager = Manager(Story(), minimum=1)
    manager.decide()
    plan = manager.plan()
    assert plan.wake_at_ns == manager.story.now_ns + 120 * SECOND
    manager.story.wait(120.0)
    assert (manager.decide().action) == TERMINATE
    manager.ledger.exited("local-1", "exited with code 0", manager.story.now_ns, is_clean=True)
    assert manager.decide().launch_ids == ["local-2"]


def test_tasks_of_another_pool_are_not_this_pools_work() -> None:
    manager = Manager(Story(), minimum=0)
    manager.story.run(pool="gpu").submit(100, seconds=10.0)
    plan = manager.plan()
    assert plan.decision is None


def test_work_that_names_no_pool_is_shared_with_the_pools_that_are_staffed_for_it() -> None:
    alone = Manager(Story()).staff(1)
    alone.story.run().submit(9, seconds=10.0)
    demand = alone.decide().demand
    assert (demand.queue_depth, demand.backlog_seconds) == (9, 90.0)
    story = Story().worker("elsewhere", pool="other")
    shared = Manager(story).staff(1)
    shared.story.run().submit(9, seconds=10.0)
    demand = shared.decide().demand
    assert (demand.queue_depth, demand.backlog_seconds) == (5, 45.0)


def test_a_pool_that_cannot_run_it_takes_no_part_and_named_work_is_not_shared() -> None:
    story = Story().worker("elsewhere", pool="other")
    manager = Manager(story).staff(1)
    manager.story.tell(
        worker_drain_requested=events_pb2.WorkerDrainRequested(worker_id="elsewhere", reason="x")
    )
    manager.story.run().submit(4, seconds=10.0)
    assert manager.decide().demand.queue_depth == 4, "a pool nobody works in takes no part"
    named = Manager(Story().worker("elsewhere", pool="other")).staff(1)
    named.story.run(pool="local").submit(6, seconds=10.0)
    assert named.decide().demand.queue_depth == 6


def test_tasks_that_no_worker_of_the_pool_can_run_launch_none_and_are_counted() -> None:
    manager = Manager(Story()).staff(1)
    manager.story.run(labels={"gpu": "a100"}).submit(7, seconds=10.0)
    manager.story.run("r2").submit(1, seconds=50.0, run_id="r2").submit(1, seconds=50.0, run_id="r2", first=1)
    decision = manager.decide()
    assert (decision.demand.unplaceable_count, decision.demand.queue_depth, decision.desired) == (7, 2, 2)


def test_a_worker_that_is_being_drained_is_not_counted_and_not_asked_twice() -> None:
    manager = Manager(Story(), minimum=0).staff(1)
    manager.story.wait(60.0)
    assert manager.decide().worker_ids == ["local-1"]
    assert manager.plan().decision is None
    manager.story.wait(5.1)
    assert manager.decide().worker_ids == ["local-1"]  # the coordinator never said so: it is asked again


def test_startup_is_learned_from_launches() -> None:
    manager = Manager(Story(), minimum=1)
    manager.decide()
    manager.story.wait(3.0).worker("local-1", launch_id="local-1").run().submit(100, seconds=1.0)
    assert manager.decide().demand.startup_seconds == pytest.approx(3.0)
