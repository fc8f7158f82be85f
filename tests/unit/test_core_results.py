"""Leases, fences, results: accepted exactly once a case, or refused, or known already."""

import pytest

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.run.commands import CancelRun, InvalidRequest, NotFound, ReportResults
from dtf.core.run.limits import MAX_DETAIL_BYTES, MAX_EVENT_BYTES
from tests.unit.core_world import (
    ERROR,
    FAILED,
    FLAKY,
    PASSED,
    SKIPPED,
    World,
    checked,
    columns,
    kinds,
    task,
    template,
)

world = pytest.fixture(checked)

TIMED_OUT = common_pb2.OUTCOME_TIMED_OUT
CRASHED = common_pb2.OUTCOME_CRASHED
CANCELLED = common_pb2.OUTCOME_CANCELLED


def end(
    fence: int, outcome: "common_pb2.Outcome.ValueType", running: int | None = None, **more: object
) -> worker_service_pb2.AttemptEnd:
    return worker_service_pb2.AttemptEnd(
        fence=fence,
        outcome=outcome,
        running_case=0 if running is None else running + 1,
        reason="killed by signal 11",
        **more,  # type: ignore[arg-type]  # detail or duration_seconds
    )


def verdicts(world: World, run_id: str = "a") -> list[int]:
    return list(world.state.runs[run_id].verdicts)


def state_of(world: World, index: int, run_id: str = "a") -> str:
    return common_pb2.TaskState.Name(world.state.runs[run_id].task_states[index]).removeprefix("TASK_STATE_")  # type: ignore[arg-type]


def test_each_lease_has_a_fence_of_its_own_that_rises(world: World) -> None:
    world.worker("w")
    world.worker("v")
    world.run("a", [task(f"t{index}") for index in range(6)])
    world.grant(w=2, v=2)
    world.grant(w=9)
    fences = [fence for worker in world.state.workers.values() for fence in worker.leases["a"]]
    assert sorted(fences) == [1, 2, 3, 4, 5, 6]
    assert world.state.next_fence == 7


def test_a_repeated_result_is_acknowledged_and_not_counted_again(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("shard", ["x", "y"])])
    world.grant(w=9)
    world.report("w", columns("a", [1]))
    assert world.report("w", columns("a", [1])) == [], "its fence is completed"
    world.report("w", columns("a", [2], [PASSED], [0]))
    assert world.report("w", columns("a", [2, 2], [PASSED, PASSED], [0, 0])) == [], "its fence is held"
    assert world.state.runs["a"].counts[PASSED] == 2


def test_one_message_that_says_a_thing_twice_counts_it_once(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("two")])
    world.grant(w=9)
    events = world.report("w", columns("a", [1, 1, 2]), columns("a", [2]))
    assert [list(event.results_accepted.fences) for event in events[:-1]] == [[1, 2]]
    assert world.state.runs["a"].counts[PASSED] == 2


def test_a_stale_fence_is_recorded_and_not_counted(world: World) -> None:
    world.worker("w")
    world.worker("v")
    world.run("a", [task("one")])
    world.grant(w=1)
    world.worker("w")
    world.grant(v=1)
    (refused,) = world.report("w", columns("a", [1], [FAILED]))
    assert list(refused.results_refused.fences) == [1]
    (by_old,) = world.report("w", columns("a", [1]), incarnation=1)
    assert by_old.results_refused.incarnation == 1
    assert verdicts(world) == [0]
    world.report("v", columns("a", [2]))
    assert verdicts(world) == [PASSED]


def test_a_fence_of_another_worker_or_run_is_refused(world: World) -> None:
    world.worker("w")
    world.worker("v")
    world.run("a", [task("one")])
    world.run("b", [task("one")])
    world.grant(w=1)
    assert kinds(world.report("v", columns("a", [1]))) == ["results_refused"]
    assert kinds(world.report("w", columns("b", [1]))) == ["results_refused"]
    assert kinds(world.report("w", columns("nowhere", [1]))) == ["results_refused"]


def test_an_unknown_worker_cannot_report(world: World) -> None:
    world.refused(ReportResults("nobody", 1), NotFound)


def test_a_shard_completes_with_its_last_case_in_any_order(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y", "z"])])
    world.grant(w=1)
    world.report("w", columns("a", [1, 1], [SKIPPED, PASSED], [2, 0]))
    assert state_of(world, 0) == "LEASED"
    events = world.report("w", columns("a", [1], [FAILED], [1]))
    assert kinds(events) == ["results_accepted", "run_finished"]
    assert events[0].results_accepted.all_completed
    assert verdicts(world) == [PASSED, FAILED, SKIPPED]


def test_a_failed_case_is_tried_again_alone_and_a_pass_makes_it_flaky(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y"])], templates=[template(test_retries=1)])
    world.grant(w=1)
    (accepted,) = world.report("w", columns("a", [1, 1], [FAILED, PASSED], [0, 1]))
    assert list(accepted.results_accepted.retried) == [0]
    assert list(accepted.results_accepted.requeued) == [0]
    assert world.state.runs["a"].unjudged_cases(0) == [0]
    world.grant(w=1)
    assert world.state.runs["a"].attempts[0] == 2
    events = world.report("w", columns("a", [2], [PASSED], [0]))
    assert list(events[0].results_accepted.verdicts) == [FLAKY]
    assert events[1].run_finished.counts.flaky == 1


def test_a_case_that_fails_every_try_is_failed(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")], templates=[template(test_retries=2)])
    for fence in (1, 2, 3):
        assert verdicts(world) == [0]
        world.grant(w=1)
        world.report("w", columns("a", [fence], [FAILED]))
    assert verdicts(world) == [FAILED]


def test_a_single_case_that_passes_when_tried_again_is_flaky(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("two")], templates=[template(test_retries=1)])
    world.grant(w=2)
    world.report("w", columns("a", [1, 2], [ERROR, PASSED]))
    world.grant(w=1)
    world.report("w", columns("a", [3]))
    assert verdicts(world) == [FLAKY, PASSED]


def test_a_crash_costs_the_running_case_one_try_and_the_rest_is_run_again(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y", "z"])])
    world.grant(w=1)
    events = world.report(
        "w", columns("a", [1], [PASSED], [0]), ends=[end(1, CRASHED, 1, detail=b"\x1a\x01x")]
    )
    ended = events[1].attempts_ended
    assert (list(ended.requeued), list(ended.running_cases), list(ended.verdicts)) == ([True], [2], [0])
    assert list(ended.details) == [b"\x1a\x01x"]
    assert world.state.runs["a"].unjudged_cases(0) == [1, 2]
    world.grant(w=1)
    events = world.report("w", ends=[end(2, CRASHED, 1)])
    assert list(events[0].attempts_ended.verdicts) == [ERROR]
    assert world.state.runs["a"].unjudged_cases(0) == [2]
    world.grant(w=1)
    events = world.report("w", columns("a", [3], [PASSED], [2]))
    assert events[1].run_finished.infrastructure_failures == 2
    assert verdicts(world) == [PASSED, ERROR, PASSED]


def test_a_pass_after_a_crash_is_no_flake(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")])
    world.grant(w=1)
    world.report("w", ends=[end(1, CRASHED)])
    world.grant(w=1)
    world.report("w", columns("a", [2]))
    assert verdicts(world) == [PASSED]


def test_a_crash_with_no_case_known_is_charged_to_the_task(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y"])])
    for fence in (1, 2):
        world.grant(w=1)
        events = world.report("w", ends=[end(fence, CRASHED)])
    assert list(events[0].attempts_ended.remaining_verdicts) == [ERROR]
    assert events[1].run_finished.counts.error == 2


def test_a_time_out_is_a_failure_of_the_test(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one"), task("shard", ["x", "y"])], templates=[template(infrastructure_retries=5)])
    world.grant(w=2)
    world.report("w", ends=[end(1, TIMED_OUT), end(2, TIMED_OUT, 0)])
    assert verdicts(world) == [FAILED, FAILED, 0]
    assert [state_of(world, 0), state_of(world, 1)] == ["FINISHED", "QUEUED"]


def test_a_time_out_is_retried_by_test_retries_only(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")], templates=[template(test_retries=1, infrastructure_retries=0)])
    world.grant(w=1)
    world.report("w", ends=[end(1, TIMED_OUT, 0)])
    world.grant(w=1)
    world.report("w", columns("a", [2]))
    assert verdicts(world) == [FLAKY]


def test_an_attempt_stopped_by_its_worker_is_run_again_without_a_charge(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")], templates=[template(infrastructure_retries=0)])
    for fence in range(1, 5):
        world.grant(w=1)
        world.report("w", ends=[end(fence, CANCELLED, 0)])
    world.grant(w=1)
    world.report("w", columns("a", [5]))
    assert verdicts(world) == [PASSED]


def test_released_leases_go_back_and_count_as_no_attempt(world: World) -> None:
    world.worker("w")
    world.worker("v")
    world.run("a", [task("one"), task("two"), task("three")])
    world.grant(w=3)
    (event,) = world.report("w", released=[3, 2, 77])
    assert list(event.leases_released.fences) == [3, 2]
    assert list(world.state.runs["a"].attempts) == [1, 0, 0]
    assert sorted(world.grant(v=2)["v"]) == [1, 2]


def test_what_ended_in_a_message_is_not_ended_or_released_again_by_it(world: World) -> None:
    world.worker("w")
    world.run("a", [task("one")])
    world.grant(w=1)
    events = world.report("w", columns("a", [1]), ends=[end(1, CRASHED)], released=[1])
    assert kinds(events) == ["results_accepted", "run_finished"]


def test_results_of_a_cancelled_run_still_count_but_nothing_is_tried_again(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y"])], templates=[template(test_retries=3)])
    world.grant(w=1)
    world.report("w", columns("a", [1], [FAILED], [0]))
    world.do(CancelRun("a", "", ""))
    events = world.report("w", columns("a", [1], [FAILED], [1]))
    assert kinds(events) == ["results_accepted", "run_finished"]
    assert events[1].run_finished.unjudged == 1
    assert state_of(world, 0) == "CANCELLED"


def test_large_details_are_cut_into_several_events(world: World) -> None:
    world.worker("w", slots=8)
    world.run("a", [task(f"t{index}") for index in range(8)])
    world.grant(w=8)
    results = columns("a", list(range(1, 9)))
    results.details.extend([b"\x1a" + b"d" * (MAX_DETAIL_BYTES // 2)] * 8)
    events = world.report("w", results)
    accepted = [event.results_accepted for event in events[:-1]]
    assert len(accepted) == 4
    assert all(event.ByteSize() <= MAX_EVENT_BYTES for event in events)
    assert [task for part in accepted for task in part.tasks] == list(range(8))


def test_measured_columns_are_kept_beside_the_entries_that_count(world: World) -> None:
    world.worker("w")
    world.run("a", [task("shard", ["x", "y"])])
    world.grant(w=1)
    results = worker_service_pb2.CaseResults(
        run_id="a",
        fences=[99, 1, 1],
        cases=[0, 1, 0],
        durations_seconds=[9.0, 0.5, 0.25],
        cpu_seconds=[9.0, 0.125, 0.0625],
        peak_memory_bytes=[9, 2, 1],
        started_at=[9.0, 2.0, 1.0],
        details=[b"9", b"", b""],
    )
    events = world.report("w", results)
    accepted = events[0].results_accepted
    expected = events_pb2.ResultsAccepted(
        run_id="a",
        worker_id="w",
        tasks=[0, 0],
        fences=[1, 1],
        cases=[1, 0],
        durations_seconds=[0.5, 0.25],
        cpu_seconds=[0.125, 0.0625],
        peak_memory_bytes=[2, 1],
        started_at=[2.0, 1.0],
        completed=[1],
    )
    assert accepted == expected
    assert kinds(events) == ["results_accepted", "results_refused", "run_finished"]


@pytest.mark.parametrize(
    "results",
    [
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[]),
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[float("nan")]),
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[-1.0]),
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[1.0], verdicts=[FLAKY]),
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[1.0], verdicts=[99]),  # type: ignore[list-item]
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[1.0], cases=[0, 1]),
        worker_service_pb2.CaseResults(run_id="a", fences=[1], durations_seconds=[1.0], cases=[7]),
        worker_service_pb2.CaseResults(
            run_id="a", fences=[1], durations_seconds=[1.0], details=[b"d" * (MAX_DETAIL_BYTES + 1)]
        ),
    ],
)
def test_results_that_contradict_themselves_are_refused_whole(
    world: World, results: worker_service_pb2.CaseResults
) -> None:
    world.worker("w")
    world.run("a", [task("one")])
    world.grant(w=1)
    world.refused(ReportResults("w", 1, [results]), InvalidRequest, "results cannot be read")
    assert verdicts(world) == [0]


@pytest.mark.parametrize(
    "ending",
    [
        worker_service_pb2.AttemptEnd(fence=1, outcome=common_pb2.OUTCOME_LOST),
        worker_service_pb2.AttemptEnd(fence=1, outcome=common_pb2.OUTCOME_COMPLETED),
        worker_service_pb2.AttemptEnd(fence=1, outcome=CRASHED, running_case=9),
        worker_service_pb2.AttemptEnd(fence=1, outcome=CRASHED, duration_seconds=float("inf")),
    ],
)
def test_ends_that_cannot_be_are_refused_whole(world: World, ending: worker_service_pb2.AttemptEnd) -> None:
    world.worker("w")
    world.run("a", [task("one")])
    world.grant(w=1)
    world.refused(ReportResults("w", 1, [], [ending]), InvalidRequest)
