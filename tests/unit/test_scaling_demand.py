"""The projection: sums that follow the log, and the same state whether folded whole or resumed."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.scaling import snapshot
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.durations import PRIOR_SECONDS, Kind, SampleRing
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.measure import demand_message, measure
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import RateMeter
from tests.unit.scaling_events import SECOND, Story

pytestmark = pytest.mark.resource_manager
POLICY = ScalingPolicy("local", 0, 10, 1)


def demand_of(story: Story) -> scaling_pb2.Demand:
    """What the pool has to do now."""
    measured = measure(story.projection, PoolLedger("local"), POLICY, story.now_ns)
    return demand_message(measured, story.projection)


def test_a_run_of_unknown_single_cases_keeps_no_list() -> None:
    story = Story().run(kind="callable").submit(4096, names=[""] * 4096).submit(1000, first=4096)
    run = story.projection.runs["r1"]
    assert (run.task_count, run.seconds, run.cases, run.templates, run.names) == (5096, [], [], [], [])
    assert demand_of(story).queue_depth == 5096


def test_backlog_falls_by_the_case_while_a_shard_runs() -> None:
    story = Story().run(kind="pytest").submit(1, seconds=10.0, cases=5).worker("w").lease("w", 0)
    story.tell(
        results_accepted=events_pb2.ResultsAccepted(
            run_id="r1", worker_id="w", tasks=[0, 0], fences=[1, 1], cases=[0, 1], durations_seconds=[2, 2]
        )
    )
    assert demand_of(story).backlog_seconds == pytest.approx(6.0)
    assert story.projection.workers["w"].lease_count == 1


def test_a_shard_that_completes_frees_its_lease_and_leaves_nothing() -> None:
    story = Story().run(kind="pytest").submit(1, seconds=10.0, cases=2).worker("w").lease("w", 0)
    story.tell(
        results_accepted=events_pb2.ResultsAccepted(
            run_id="r1", worker_id="w", tasks=[0, 0], fences=[1, 1], cases=[0, 1], completed=[1]
        )
    )
    demand = demand_of(story)
    assert (demand.backlog_seconds, demand.leased_count, story.projection.workers["w"].lease_count) == (
        0.0,
        0,
        0,
    )


def test_a_retried_task_goes_back_to_the_queue_with_what_is_left() -> None:
    story = Story().run(kind="pytest").submit(1, seconds=10.0, cases=2).worker("w").lease("w", 0)
    story.tell(
        results_accepted=events_pb2.ResultsAccepted(
            run_id="r1",
            worker_id="w",
            tasks=[0, 0],
            fences=[1, 1],
            cases=[0, 1],
            retried=[1],
            completed=[1],
            requeued=[0],
        )
    )
    demand = demand_of(story)
    assert (demand.queue_depth, demand.leased_count) == (1, 0)
    assert demand.backlog_seconds == pytest.approx(5.0)


def test_a_lost_attempt_goes_back_to_the_queue() -> None:
    story = Story().run().submit(2, seconds=3.0).worker("w").lease("w", 0, 1)
    story.tell(
        attempts_ended=events_pb2.AttemptsEnded(
            run_id="r1",
            worker_id="w",
            tasks=[0, 1],
            fences=[1, 2],
            outcomes=[common_pb2.OUTCOME_LOST] * 2,
            requeued=[True, False],
        )
    )
    demand = demand_of(story)
    assert (demand.queue_depth, demand.leased_count) == (1, 0)
    assert demand.backlog_seconds == pytest.approx(3.0)


def test_cancelling_empties_the_queue_and_what_comes_back_is_not_queued() -> None:
    story = Story().run().submit(3, seconds=1.0).worker("w").lease("w", 0)
    story.tell(run_cancel_requested=events_pb2.RunCancelRequested(run_id="r1"))
    assert demand_of(story).queue_depth == 0
    story.tell(leases_released=events_pb2.LeasesReleased(run_id="r1", worker_id="w", tasks=[0], fences=[1]))
    demand = demand_of(story)
    assert (demand.queue_depth, demand.leased_count, demand.backlog_seconds) == (0, 0, 0.0)


def test_the_end_of_a_run_frees_what_its_workers_held() -> None:
    story = Story().run().submit(1).worker("w").lease("w", 0).wait(3.0)
    story.tell(run_finished=events_pb2.RunFinished(run_id="r1"))
    worker = story.projection.workers["w"]
    assert (worker.lease_count, worker.idle_since_ns) == (0, story.now_ns)


def test_an_unknown_duration_is_assumed_and_then_learned() -> None:
    story = Story().run().worker("w").submit(20)
    assert demand_of(story).backlog_seconds == pytest.approx(20 * PRIOR_SECONDS[Kind.COMMAND])
    story.lease("w", *range(10)).finish("w", *range(10), seconds=0.2)
    demand = demand_of(story)
    assert demand.assumed_seconds == pytest.approx(0.2)
    assert demand.backlog_seconds == pytest.approx(10 * 0.2)


def test_a_task_seen_before_under_its_name_has_a_known_duration() -> None:
    story = Story().run().worker("w").submit(2, names=["make a", "make b"])
    story.lease("w", 0, 1).finish("w", 0, seconds=7.0).finish("w", 1, seconds=1.0, first_fence=2)
    story.tell(run_finished=events_pb2.RunFinished(run_id="r1"))
    story.run("r2").submit(2, names=["make a", "make b"], run_id="r2")
    demand = demand_of(story)
    assert demand.known_count == 2
    assert demand.backlog_seconds == pytest.approx(8.0)


def test_one_wild_duration_hardly_moves_what_is_assumed() -> None:
    ring = SampleRing()
    for _ in range(40):
        ring.add([0.1])
    ring.add([1000.0])
    assert ring.typical_seconds() == pytest.approx(0.1)


def test_arrivals_older_than_a_minute_do_not_count() -> None:
    meter = RateMeter()
    meter.add(100 * SECOND, 60.0)
    assert meter.per_second(159 * SECOND) == pytest.approx(1.0)
    assert meter.per_second(161 * SECOND) == 0.0
    meter.add(300 * SECOND, 6.0)
    assert meter.total(300 * SECOND) == 6.0


def test_service_rate_counts_busy_workers_only() -> None:
    story = Story().run().worker("w").worker("idle").submit(4, seconds=1.0).lease("w", 0, 1, 2, 3)
    story.wait(2.0).finish("w", 0, 1, 2, 3)
    assert demand_of(story).service_rate == pytest.approx(2.0)


STEPS = st.lists(st.integers(0, 9), min_size=5, max_size=40)


def told(steps: list[int]) -> Story:
    """A story that every kind of event may occur in."""
    story = Story().run(kind="pytest").run("r2").worker("w1", launch_id="local-1").worker("w2")
    submitted, leased = 0, 0
    for step in steps:
        story.wait(0.37 * (step + 1))
        if step < 3:
            story.submit(step + 1, seconds=0.1 * step, first=submitted, cases=step)
            submitted += step + 1
        elif step < 6 and leased < submitted:
            story.lease("w1", leased, first_fence=leased + 1)
            leased += 1
        elif step == 6:
            story.submit(2, run_id="r2", first=story.projection.runs["r2"].task_count)
        elif leased:
            story.finish("w1", leased - 1, seconds=step / 10, first_fence=leased)
        if step == 9:
            story.lost("w1").worker("w1", launch_id="local-1")
    return story


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, cut_share=st.floats(0, 1))
def test_a_projection_resumed_anywhere_equals_one_folded_whole(steps: list[int], cut_share: float) -> None:
    story = told(steps)
    cut = int(cut_share * len(story.commits))
    first = DemandProjection()
    for number, commit in enumerate(story.commits[:cut], 1):
        first.apply(number, f"id-{number}", commit)
    resumed = snapshot.decode(snapshot.encode(first), DemandProjection)
    assert resumed is not None
    for number, commit in enumerate(story.commits[cut:], cut + 1):
        resumed.apply(number, f"id-{number}", commit)
    assert snapshot.encode(resumed) == snapshot.encode(story.projection)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_no_sum_is_ever_negative_and_no_work_is_exactly_nothing(steps: list[int]) -> None:
    story = told(steps)
    for run in story.projection.runs.values():
        for load in run.loads:
            for work in (load.queued, load.leased):
                assert min(work.tasks, work.seconds, work.cases, work.unknown_tasks) >= 0
                assert work.tasks or not (work.seconds or work.cases)


def test_a_snapshot_of_another_schema_or_a_damaged_one_is_not_read() -> None:
    data = snapshot.encode(DemandProjection())
    assert snapshot.decode(data, DemandProjection) == DemandProjection()
    assert snapshot.decode(data[:-3], DemandProjection) is None
    assert snapshot.decode(b"", DemandProjection) is None
    assert snapshot.decode(msgspec.msgpack.encode((0, DemandProjection())), DemandProjection) is None
