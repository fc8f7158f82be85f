"""Who gets which tasks, and what is said when nobody can."""

from typing import Any

import pytest

from dtf.api.v1 import common_pb2
from dtf.core.run.commands import DrainWorker, GrantLeases, ReviewPlacement
from dtf.core.run.placement import next_deadline
from dtf.core.run.queries import exhausted_runs, run_message, task_messages
from tests.unit.core_world import SECOND, World, checked, columns, kinds, task, template

world = pytest.fixture(checked)


def tasks(count: int, **more: Any) -> list[common_pb2.TaskSpec]:
    return [task(f"t{index}", **more) for index in range(count)]


def teach_that_cases_are_short(world: World) -> None:
    """With what it learns here the run's tasks are given far in advance."""
    world.worker("teacher")
    world.grant(teacher=1)
    world.report("teacher", columns("a", [1], seconds=1e-5))
    world.do(DrainWorker("teacher", "", ""))


def test_higher_priority_goes_first_and_then_the_oldest(world: World) -> None:
    world.worker("w", slots=9)
    world.run("low", tasks(2), priority=-1)
    world.run("a", [task("first"), task("urgent", priority=7), task("second")])
    granted = [
        (e.leases_granted.run_id, list(e.leases_granted.tasks)) for e in world.do(GrantLeases({"w": 9}))
    ]
    assert granted == [("a", [1, 0, 2]), ("low", [0, 1])]


def test_runs_of_one_priority_share_in_turns(world: World) -> None:
    world.run("a", tasks(200, expected_seconds=0.001))
    world.run("b", tasks(200, expected_seconds=0.001))
    world.worker("w", slots=4)
    world.grant(w=128)
    assert [world.state.runs[name].leased_count for name in ("a", "b")] == [64, 64]


def test_a_run_that_comes_later_gets_its_turn_with_the_next_leases(world: World) -> None:
    world.worker("w", slots=9)
    world.run("a", tasks(18, expected_seconds=60.0))
    world.grant(w=3)
    world.run("b", tasks(18, expected_seconds=60.0))
    for _ in range(3):
        world.grant(w=1)
    assert 1 <= world.state.runs["b"].leased_count <= 2


def test_long_tasks_find_room_in_a_window_full_of_quick_ones(world: World) -> None:
    world.worker("w")
    world.run("quick", tasks(30, expected_seconds=0.05))
    assert len(world.grant(w=64)["w"]) == 11
    world.run("long", tasks(2, expected_seconds=60.0), priority=1)
    assert world.grant(w=64)["w"] == [], "half a second waits"
    world.report("w", columns("quick", [1]))
    assert world.grant(w=64)["w"] == [0]
    assert world.grant(w=64)["w"] == []


def test_few_tasks_are_spread_over_the_workers(world: World) -> None:
    world.run("a", tasks(9))
    teach_that_cases_are_short(world)
    for name in ("u", "v", "w"):
        world.worker(name)
    got = world.grant(u=64, v=64, w=64)
    assert sorted(map(len, got.values())) == [2, 3, 3]


def test_the_least_loaded_worker_is_raised_first(world: World) -> None:
    world.run("a", tasks(11))
    teach_that_cases_are_short(world)
    world.worker("w")
    world.grant(w=4)
    world.worker("v", slots=2)
    got = world.grant(w=64, v=64)
    assert {name: len(indexes) for name, indexes in got.items()} == {"w": 0, "v": 6}


def test_long_tasks_are_given_one_in_advance_a_slot_and_short_ones_many(world: World) -> None:
    world.worker("w", slots=2)
    world.run("a", tasks(100, expected_seconds=30.0))
    assert len(world.grant(w=64)["w"]) == 4
    world.worker("v", slots=2)
    world.run("b", tasks(100, expected_seconds=0.0001), priority=1)
    assert len(world.grant(v=64)["v"]) == 64


def test_credits_and_the_limit_bound_what_is_granted(world: World) -> None:
    world.run("a", tasks(50, expected_seconds=0.0001))
    world.worker("w")
    assert world.grant(w=0) == {"w": []}
    assert len(world.grant(w=7)["w"]) == 7
    assert sum(len(e.leases_granted.tasks) for e in world.do(GrantLeases({"w": 50}, limit=3))) == 3
    assert world.do(GrantLeases({"nobody": 5})) == []


@pytest.mark.parametrize(
    ("needs", "has"),
    [
        (template(labels={"os": "linux"}), {"labels": {"os": "linux", "zone": "b"}}),
        (template(pool="gpu"), {"pool": "gpu"}),
        (template(gpus=2), {"gpus": 2}),
        (template(cpus=16), {"cpus": 16}),
        (template(memory_bytes=2**35), {"memory_bytes": 2**35}),
    ],
)
def test_a_task_goes_only_to_a_worker_that_has_what_it_needs(
    world: World, needs: common_pb2.TaskTemplate, has: dict[str, object]
) -> None:
    world.worker("plain")
    world.run("a", tasks(1), templates=[needs])
    assert world.grant(plain=5) == {"plain": []}
    world.worker("able", **has)  # type: ignore[arg-type]  # fields of a worker
    assert world.grant(plain=5, able=5) == {"plain": [], "able": [0]}


def test_resources_are_occupied_while_leases_are_held(world: World) -> None:
    world.worker("w", slots=4, cpus=4)
    world.run("a", tasks(5), templates=[template(cpus=1.5)])
    assert world.grant(w=64)["w"] == [0, 1]
    assert world.grant(w=64)["w"] == []
    world.run("b", tasks(1))
    assert world.grant(w=64)["w"] == [0], "what needs no resources is not held up"
    world.report("w", columns("a", [1]))
    assert world.grant(w=64)["w"] == [2]


def test_a_task_that_fits_is_not_held_up_by_an_older_one_that_does_not(world: World) -> None:
    world.worker("w")
    world.run("a", [task("gpu"), task("plain", template=1)], templates=[template(gpus=1), template()])
    assert world.grant(w=9)["w"] == [1]


def test_what_no_present_worker_can_run_is_said_at_once(world: World) -> None:
    world.worker("w")
    world.run("a", templates=[template(), template(labels={"gpu": "a100"}, cpus=2)], seal=False)
    events = world.submit("a", [task("plain"), task("picky", template=1)])
    assert kinds(events) == ["tasks_submitted", "placement_changed"]
    reason = "waiting: none of the 1 workers can run this; needed: gpu=a100, 2 cpus"
    assert events[1].placement_changed.reason == reason
    assert run_message(world.state.runs["a"]).waiting_reason == reason
    events = world.worker("v", labels={"gpu": "a100"})
    assert kinds(events) == ["worker_registered", "placement_changed"]
    assert run_message(world.state.runs["a"]).waiting_reason == ""


def test_an_empty_fleet_is_a_reason_to_wait_only_when_no_worker_is_expected(world: World) -> None:
    world.run("a", tasks(1))
    assert world.do(ReviewPlacement(worker_expected=True)) == []
    (event,) = world.do(ReviewPlacement())
    assert event.placement_changed.reason == "waiting: no worker takes work now; needed: any worker"
    assert world.do(ReviewPlacement()) == []
    assert kinds(world.worker("w")) == ["worker_registered", "placement_changed"]


def test_the_last_able_worker_going_is_noticed(world: World) -> None:
    world.worker("w")
    world.worker("v", gpus=1)
    world.run("a", tasks(1), templates=[template(gpus=1)])
    assert world.do(ReviewPlacement()) == []
    world.do(DrainWorker("v", "", ""))
    (event,) = world.do(ReviewPlacement())
    assert event.placement_changed.waiting


def test_what_waits_too_long_ends_in_error(world: World) -> None:
    world.worker("w")
    world.run(
        "a",
        [task("plain"), task("picky", ["x", "y"], template=1)],
        templates=[template(), template(gpus=1)],
        placement_timeout_seconds=60,
    )
    deadline = next_deadline(world.state)
    assert deadline is not None
    world.now_ns = deadline - 2_000_000
    assert world.do(ReviewPlacement()) == []
    world.now_ns = deadline
    events = world.do(ReviewPlacement())
    assert kinds(events) == ["tasks_abandoned"]
    assert "within 60 s" in events[0].tasks_abandoned.reason
    assert next_deadline(world.state) is None
    world.grant(w=1)
    finished = world.report("w", columns("a", [1]))[1].run_finished
    assert (finished.counts.passed, finished.counts.error) == (1, 2)


def test_without_a_placement_timeout_nothing_is_due(world: World) -> None:
    world.worker("w")
    world.run("a", tasks(1), templates=[template(gpus=1)])
    assert next_deadline(world.state) is None
    world.now_ns += 10**6 * SECOND
    assert world.do(ReviewPlacement()) == []


def test_a_case_held_back_need_not_wait_for_what_the_worker_cannot_get(world: World) -> None:
    world.worker("w", slots=2, cpus=1)
    world.run("a", tasks(2), templates=[template(cpus=1)])
    world.grant(w=64)
    worker = world.state.workers["w"]
    assert world.state.runs["a"].queued_count == 1
    assert exhausted_runs(world.state, worker, 63) == ["a"]
    world.run("b", tasks(9, expected_seconds=60.0))
    world.grant(w=2)
    assert exhausted_runs(world.state, worker, 61) == ["a"]
    assert exhausted_runs(world.state, worker, 0) == ["a", "b"]


def test_tasks_are_shown_with_their_leases_and_verdicts(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y"]), task("one")], seal=False)
    world.grant(w=1)
    world.report("w", columns("a", [1], [common_pb2.VERDICT_FAILED], [1]))
    shard, one = task_messages(world.state, world.state.runs["a"], [0, 1])
    assert (shard.worker_id, shard.fence, shard.attempts) == ("w", 1, 1)
    assert [(case.name, case.verdict) for case in shard.cases] == [("x", 0), ("y", common_pb2.VERDICT_FAILED)]
    assert (one.state, one.worker_id, one.fence) == (common_pb2.TASK_STATE_QUEUED, "", 0)
