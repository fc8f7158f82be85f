"""Telemetry and scaling decisions as points."""

import json

import pytest

from dtf.api.v1 import scaling_pb2, worker_service_pb2
from dtf.core.trend.points import Value
from dtf.core.trend.record_folds import SLOT_KEPT_SECONDS, ScalingFold, TelemetryFold
from tests.trend_events import SECOND_NS, START_NS

pytestmark = pytest.mark.trend_analyzer


def sample(worker_id: str, at_seconds: float, pool: str = "local") -> worker_service_pb2.TelemetrySample:
    """A sample of a worker."""
    return worker_service_pb2.TelemetrySample(
        worker_id=worker_id,
        incarnation=1,
        pool=pool,
        heard_unix_nanos=START_NS + round(at_seconds * SECOND_NS),
        telemetry=worker_service_pb2.Telemetry(cpu_ratio=0.5, running=2),
    )


def slots(fold: TelemetryFold) -> list[tuple[Value, Value, Value]]:
    """Pool, slot and worker of each point."""
    return [(row["pool"], row["slot"], row["worker"]) for points in fold.take() for row in points.as_dicts()]


def test_workers_of_a_pool_have_slots_of_their_own_and_keep_them() -> None:
    fold = TelemetryFold()
    for sequence, (worker, pool) in enumerate(
        [("a", "x"), ("b", "x"), ("c", "y"), ("a", "x"), ("b", "x")], start=1
    ):
        fold.apply(sample(worker, sequence, pool), sequence)
    assert slots(fold) == [
        ("x", "0", "a"),
        ("x", "1", "b"),
        ("y", "0", "c"),
        ("x", "0", "a"),
        ("x", "1", "b"),
    ]


def test_the_slot_of_a_silent_worker_is_given_to_the_next() -> None:
    fold = TelemetryFold()
    fold.apply(sample("a", 0), 1)
    fold.apply(sample("b", SLOT_KEPT_SECONDS), 2)
    fold.apply(sample("c", SLOT_KEPT_SECONDS + 1), 3)
    assert [slot for _pool, slot, _worker in slots(fold)] == ["0", "1", "0"]


def test_a_sample_that_comes_twice_or_late_is_no_point() -> None:
    fold = TelemetryFold()
    for sequence, at in enumerate((5, 5, 4, 6), start=1):
        fold.apply(sample("a", at), sequence)
    assert len(slots(fold)) == 2
    assert fold.state()["sequence"] == 4


def test_a_telemetry_fold_goes_on_from_its_state() -> None:
    fold, again = TelemetryFold(), TelemetryFold()
    fold.apply(sample("a", 0), 1)
    fold.apply(sample("b", 1), 2)
    again.restore(json.loads(json.dumps(fold.state())))
    again.apply(sample("a", 1), 2)
    again.apply(sample("b", 3), 3)
    assert slots(again) == [("local", "1", "b")]


def test_decisions_of_one_moment_have_times_of_their_own() -> None:
    decision = scaling_pb2.ScalingDecision(
        decision_id="local-1",
        now_unix_nanos=START_NS,
        pool="local",
        action=scaling_pb2.SCALING_ACTION_SCALE_OUT,
        desired=4,
        reason="backlog 48 s",
        demand=scaling_pb2.Demand(queue_depth=89, backlog_seconds=48.1),
    )
    fold, again = ScalingFold(), ScalingFold()
    fold.apply(decision, 1)
    (first,) = fold.take()[0].as_dicts()
    again.restore(json.loads(json.dumps(fold.state())))
    again.apply(decision, 1)
    again.apply(decision, 2)
    (second,) = again.take()[0].as_dicts()
    assert (first["time_ns"], second["time_ns"]) == (START_NS, START_NS + 1)
    assert (first["action"], first["desired"], first["queue_depth"]) == ("scale_out", 4, 89)
    assert (first["reason"], first["backlog_seconds"]) == ("backlog 48 s", 48.1)
