"""Demand read from a log; and the simulator held against runs that really were."""

from pathlib import Path

import pytest

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.simulation.scaling.outcome import PoolShape, Waits
from dtf.core.simulation.scaling.recorded import DemandReader, RecordedDemand
from dtf.core.simulation.scaling.regret import launches_of, observed_outcome, regret, startup_of
from dtf.core.simulation.scaling.shipped import ShippedPolicy
from dtf.core.simulation.scaling.simulator import simulate
from tests.unit.scaling_events import Story
from tests.unit.scaling_traces import CONTROLLERS, trace_of

pytestmark = pytest.mark.resource_manager

STREAMS = Path(__file__).parent.parent / "streams"


def _read(story: Story) -> RecordedDemand:
    reader = DemandReader("story")
    for sequence, commit in enumerate(story.commits, start=1):
        reader.take(sequence, f"id-{sequence}", commit)
    return reader.finish()


def test_a_task_is_as_long_as_it_keeps_its_slot() -> None:
    story = Story().run().worker("w1").submit(2, seconds=3.0)
    story.wait(1).lease("w1", 0, 1).wait(4).finish("w1", 0).wait(5).finish("w1", 1)
    demand = _read(story)
    # the second was leased with the first, and waited for its turn on the worker
    assert (list(demand.trace.submits), list(demand.trace.durations)) == ([0, 0], [4, 5])
    assert (list(demand.trace.expected), list(demand.waits)) == ([3, 3], [1, 5])
    assert demand.makespan_seconds == 10


def test_a_task_that_ran_again_counts_once_with_its_last_attempt() -> None:
    story = Story().run().worker("w1").worker("w2").submit(1).lease("w1", 0).wait(7)
    story.tell(
        attempts_ended=events_pb2.AttemptsEnded(
            run_id="r1", worker_id="w1", tasks=[0], fences=[1], requeued=[True]
        )
    ).lost("w1")
    story.wait(1).lease("w2", 0, first_fence=2).wait(5).finish("w2", 0, first_fence=2)
    assert list(_read(story).trace.durations) == [5]


def test_what_never_ended_is_left_out() -> None:
    story = Story().run().worker("w1").submit(3).lease("w1", 0).wait(2).finish("w1", 0).lease("w1", 1)
    assert list(_read(story).trace.durations) == [2]


def test_what_the_pool_cost_is_told_by_its_workers() -> None:
    story = Story().run().submit(1).wait(10).worker("w1").worker("w2").lease("w1", 0).wait(20)
    story.left("w2").wait(5).finish("w1", 0).wait(100)
    outcome = observed_outcome(_read(story), startup_seconds=10, price=3600)
    assert outcome.worker_seconds == (20 + 10) + (25 + 10) == outcome.cost
    assert outcome.waits.p95 == 10


def test_regret_says_what_the_candidate_would_have_saved() -> None:
    trace, shape = trace_of(*((at * 20.0, 5.0) for at in range(60))), PoolShape(price=1.0)
    ray, dask = (simulate(trace, shape, CONTROLLERS[name](shape)) for name in ("ray", "dask"))
    found = regret(dask, ray)
    assert found.waits.p95 == dask.waits.p95 - ray.waits.p95 > 0
    assert found.worker_seconds == dask.worker_seconds - ray.worker_seconds
    assert found.verdict.startswith("ray would have waited ")
    assert regret(ray, ray).verdict == "ray would have made no difference"
    assert regret(ray, ray).waits == Waits(0, 0, 0)


def _recording(directory: Path) -> tuple[RecordedDemand, list[scaling_pb2.ScalingDecision]]:
    reader = DemandReader(directory.name)
    with StreamFile(directory / "events.dtfstream") as stream:
        for message in stream:
            commit = events_pb2.Commit.FromString(message.payload)
            reader.take(message.sequence, message.message_id, commit)
    with StreamFile(directory / "scaling.dtfstream") as stream:
        decisions = [scaling_pb2.ScalingDecision.FromString(message.payload) for message in stream]
    return reader.finish(), decisions


def test_the_policy_that_really_ran_comes_to_what_was_observed() -> None:
    """tests/streams/backtest: the shipped policy on a pool of 0 to 4 (tests/streams/record_backtest.py)."""
    demand, decisions = _recording(STREAMS / "backtest")
    startup = startup_of(demand, launches_of(decisions))
    shape = PoolShape(max_workers=4, startup_seconds=startup)
    policy = ScalingPolicy("local", shape.min_workers, shape.max_workers, shape.slots)
    simulated = simulate(demand.trace, shape, ShippedPolicy("default", policy, pace_seconds=0.01))
    observed = observed_outcome(demand, decisions)
    assert len(demand.trace) >= 40
    assert simulated.makespan_seconds == pytest.approx(observed.makespan_seconds, rel=0.1)
    assert simulated.worker_seconds == pytest.approx(observed.worker_seconds, rel=0.1)
