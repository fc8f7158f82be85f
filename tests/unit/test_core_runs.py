"""Runs: created once, fed in order, sealed, finished, cancelled."""

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run import limits
from dtf.core.run.commands import (
    CancelRun,
    Conflict,
    CreateRun,
    ElectLeader,
    InvalidRequest,
    NotFound,
    NotPossible,
    SubmitTasks,
)
from tests.unit.core_world import PASSED, World, checked, columns, kinds, task, template

world = pytest.fixture(checked)


def creation(request_id: str = "key", **fields: object) -> run_service_pb2.CreateRunRequest:
    values: dict[str, object] = {"suite": "suite", "templates": [template()], **fields}
    return run_service_pb2.CreateRunRequest(request_id=request_id, **values)  # type: ignore[arg-type]


def test_each_reign_has_the_next_epoch(world: World) -> None:
    assert world.state.epoch == 1
    (event,) = world.do(ElectLeader("host-2", 10.0))
    assert (event.leader_elected.epoch, world.state.epoch, world.state.leader) == (2, 2, "host-2")


def test_the_same_request_id_creates_one_run_only(world: World) -> None:
    assert kinds(world.do(CreateRun("a", creation()))) == ["run_created"]
    assert world.do(CreateRun("b", creation())) == []
    assert list(world.state.runs) == ["a"]
    assert world.state.run_requests == {"key": "a"}


def test_a_run_that_brings_its_only_task_is_fed_and_sealed_by_one_decision(world: World) -> None:
    only = task("shard", ["a", "b"], expected_seconds=2.0)
    made = ["run_created", "tasks_submitted", "submission_sealed"]
    assert kinds(world.do(CreateRun("a", creation(priority=3), only))) == made
    assert world.do(CreateRun("b", creation(priority=3), only)) == []
    assert (world.state.runs["a"].is_sealed, world.state.runs["a"].case_count) == (True, 2)
    world.refused(CreateRun("c", creation("other"), task("")), InvalidRequest, "name")
    assert list(world.state.runs) == ["a"]
    world.worker("w")
    assert world.grant(w=1) == {"w": [0]}
    needy = creation("needy", templates=[template(labels={"gpu": "h100"})])
    assert kinds(world.do(CreateRun("d", needy, task("t")))) == [*made[:2], "placement_changed", made[2]]


def test_a_request_id_with_another_content_is_a_conflict(world: World) -> None:
    world.do(CreateRun("a", creation()))
    world.refused(CreateRun("b", creation(suite="another")), Conflict, "created run a with another content")


def test_every_fault_of_a_creation_is_named(world: World) -> None:
    bad = creation(
        "", suite="", templates=[template(cpus=-1), common_pb2.TaskTemplate()], placement_timeout_seconds=-1
    )
    refusal = world.refused(CreateRun("a", bad), InvalidRequest)
    assert {violation.field for violation in refusal.violations} == {
        "request_id",
        "suite",
        "placement_timeout_seconds",
        "templates[0].requirements.resources.cpus",
        "templates[1].spec",
    }


@pytest.mark.parametrize("cpus", [float("nan"), float("inf"), -0.5])
def test_amounts_that_cannot_exist_are_refused(world: World, cpus: float) -> None:
    world.refused(CreateRun("a", creation(templates=[template(cpus=cpus)])), InvalidRequest, "cpus")


def test_a_creation_too_large_for_one_event_is_refused(world: World) -> None:
    large = template(labels={"key": "x"})
    large.callable.working_dir = "/" * limits.MAX_EVENT_BYTES
    world.refused(CreateRun("a", creation(templates=[large])), InvalidRequest, "blob store")


def test_an_empty_run_finishes_when_it_is_sealed(world: World) -> None:
    world.run("a", seal=False)
    events = world.do(SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id="a", seal=True)))
    assert kinds(events) == ["submission_sealed", "run_finished"]
    assert events[1].run_finished.state == common_pb2.RUN_STATE_FINISHED


def test_a_run_finishes_with_its_last_task_and_not_before_it_is_sealed(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("two")], seal=False)
    world.grant(w=9)
    assert kinds(world.report("w", columns("a", [1, 2]))) == ["results_accepted"]
    world.submit("a", [task("three")], seal=True)
    world.grant(w=9)
    events = world.report("w", columns("a", [3]))
    assert kinds(events) == ["results_accepted", "run_finished"]
    finished = events[1].run_finished
    assert (finished.counts.passed, finished.unjudged, finished.first_sequence) == (
        3,
        0,
        world.state.runs["a"].first_sequence,
    )
    assert "a" not in world.state.active_runs


def test_a_batch_sent_again_changes_nothing_and_a_gap_is_refused(world: World) -> None:
    world.run("a", [task("one"), task("two")], seal=False)
    again = run_service_pb2.SubmitTasksRequest(run_id="a", batch=1, tasks=[task("one"), task("two")])
    assert world.do(SubmitTasks(again)) == []
    assert world.state.runs["a"].task_count == 2
    gap = run_service_pb2.SubmitTasksRequest(run_id="a", batch=3, tasks=[task("three")])
    world.refused(SubmitTasks(gap), Conflict, "before batch 2")


def test_a_sealed_run_takes_its_last_batch_again_but_no_new_one(world: World) -> None:
    world.run("a", [task("one")], seal=True)
    again = run_service_pb2.SubmitTasksRequest(run_id="a", batch=1, tasks=[task("one")], seal=True)
    assert world.do(SubmitTasks(again)) == []
    new = run_service_pb2.SubmitTasksRequest(run_id="a", batch=2, tasks=[task("two")])
    world.refused(SubmitTasks(new), NotPossible, "sealed")


def test_tasks_for_an_unknown_run_are_refused(world: World) -> None:
    world.refused(
        SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id="x" * 500)), NotFound, "there is no run"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (task(""), "tasks[0].name"),
        (task("n" * 4097), "tasks[0].name"),
        (common_pb2.TaskSpec(name="n", payload="é" * 9000), "tasks[0].payload bytes"),
        (task("n", template=1), "tasks[0].template"),
        (task("n", expected_seconds=float("nan")), "tasks[0].expected_seconds"),
        (task("n", priority=2**30), "tasks[0].priority"),
        (task("n", ["c", ""]), "tasks[0].cases"),
        (common_pb2.TaskSpec(name="n", cases=["c"], positions=[1, 2]), "tasks[0].positions"),
        (task("n", ["c" * 4000] * 60), "tasks[0]"),
    ],
)
def test_a_faulty_task_is_refused_by_its_field(world: World, spec: common_pb2.TaskSpec, field: str) -> None:
    world.run("a", seal=False)
    request = run_service_pb2.SubmitTasksRequest(run_id="a", batch=1, tasks=[spec])
    refusal = world.refused(SubmitTasks(request), InvalidRequest)
    assert [violation.field for violation in refusal.violations] == [field]


def test_a_large_batch_becomes_several_events_and_stays_one_batch(world: World) -> None:
    specs = [task(f"task {index:04}" + "." * 500) for index in range(1000)]
    world.run("a", seal=False)
    events = world.submit("a", specs, seal=True)
    assert len(events) > 3
    run = world.state.runs["a"]
    assert run.names == [spec.name for spec in specs]
    assert [(batch.first_task, batch.task_count) for batch in run.batches] == [(0, 1000)]
    assert list(run.queues[0][0].ranges()) == [(0, 1000)]


def test_columns_that_begin_late_hold_defaults_for_what_came_before(world: World) -> None:
    world.run("a", [task("plain")], templates=[template(), template()], seal=False, priority=5)
    world.submit("a", [common_pb2.TaskSpec(name="rich", template=1, payload="[1]", priority=-2)])
    world.submit("a", [common_pb2.TaskSpec(name="shard", cases=["x", "y"], positions=[7, 8])])
    world.submit("a", [task("late")])
    run = world.state.runs["a"]
    assert [run.template_of(index).index for index in range(4)] == [0, 1, 0, 0]
    assert [run.payload_of(index) for index in range(4)] == ["", "[1]", "", ""]
    assert [run.priority_of(index) for index in range(4)] == [5, 3, 5, 5]
    assert [list(run.cases_named(index)) for index in range(4)] == [["plain"], ["rich"], ["x", "y"], ["late"]]
    assert run.case_positions is not None
    assert list(run.case_positions) == [-1, -1, 7, 8, -1]


def test_a_cancelled_run_ends_at_once_if_nothing_runs(world: World) -> None:
    world.run("a", [task("one"), task("two")])
    events = world.do(CancelRun("a", "me@here", "enough"))
    assert kinds(events) == ["run_cancel_requested", "run_finished"]
    assert events[1].run_finished.state == common_pb2.RUN_STATE_CANCELLED
    assert events[1].run_finished.unjudged == 2
    assert world.state.queued_count == 0
    assert world.do(CancelRun("a", "me@here", "enough")) == []


def test_a_cancelled_run_ends_when_what_runs_was_stopped(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("two"), task("three")])
    world.grant(w=2)
    assert kinds(world.do(CancelRun("a", "me@here", ""))) == ["run_cancel_requested"]
    assert kinds(world.report("w", columns("a", [1], [PASSED]))) == ["results_accepted"]
    end = world.report("w", ends=[_end(2, common_pb2.OUTCOME_CANCELLED)])
    assert kinds(end) == ["attempts_ended", "run_finished"]
    assert end[1].run_finished.counts.passed == 1
    assert end[1].run_finished.unjudged == 2
    assert bytes(world.state.runs["a"].task_states) == bytes(
        [common_pb2.TASK_STATE_FINISHED, common_pb2.TASK_STATE_CANCELLED, common_pb2.TASK_STATE_CANCELLED]
    )


def _end(fence: int, outcome: "common_pb2.Outcome.ValueType") -> worker_service_pb2.AttemptEnd:
    return worker_service_pb2.AttemptEnd(fence=fence, outcome=outcome)


def test_a_finished_run_cannot_be_cancelled_nor_fed(world: World) -> None:
    world.run("a", [], seal=True)
    world.refused(CancelRun("a", "", ""), NotPossible, "has finished")
    request = run_service_pb2.SubmitTasksRequest(run_id="a", batch=1, tasks=[task("one")])
    world.refused(SubmitTasks(request), NotPossible, "takes no more tasks")
