"""Given commits of the log, then points."""

import json
from collections.abc import Sequence

import pytest

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import MOST_OTHER_SERIES, NameBook
from dtf.core.trend.points import Value
from tests.trend_events import (
    ERROR,
    FAILED,
    PASSED,
    SECOND_NS,
    START_NS,
    accepted,
    callable_template,
    commit,
    finished,
    granted,
    registered,
    run_created,
    shard_submitted,
    story,
    tasks_submitted,
)
from tests.trend_stores import PointTable, expected_content

pytestmark = pytest.mark.trend_analyzer

Rows = list[dict[str, Value]]


def points_of(*commits: events_pb2.Commit) -> dict[str, Rows]:
    """The points of a log, by measurement."""
    fold = LogFold(NameBook())
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
    return {points.measurement.name: points.as_dicts() for points in fold.take()}


def pick(rows: Rows, *names: str) -> list[tuple[Value, ...]]:
    """Some columns of the points."""
    return [tuple(row[name] for name in names) for row in rows]


def test_a_result_is_a_point_with_everything_known_of_it() -> None:
    points = points_of(
        commit(
            0, registered("w1", "big"), run_created(), shard_submitted("a", "b"), granted(0, attempts=[3])
        ),
        commit(1, accepted((0, 1, FAILED, 0.5), cpu_seconds=[0.25], peak_memory_bytes=[4096])),
    )
    assert points["cases"] == [
        {
            "time_ns": START_NS + SECOND_NS,
            "suite": "suite",
            "case": "b",
            "pool": "big",
            "run": "r1",
            "revision": "4f2a91c",
            "worker": "w1",
            "task": 0,
            "attempt": 3,
            "verdict": "failed",
            "duration_seconds": 0.5,
            "cpu_seconds": 0.25,
            "peak_memory_bytes": 4096,
        }
    ]


def test_columns_left_empty_mean_their_defaults() -> None:
    event = events_pb2.ResultsAccepted(
        run_id="r1", worker_id="w1", tasks=[0, 1], fences=[1, 2], all_completed=True
    )
    points = points_of(commit(0, run_created(), tasks_submitted("x", "y"), granted(0, 1)), commit(1, event))
    assert pick(points["cases"], "case", "verdict", "duration_seconds", "attempt") == [
        ("x", "passed", None, 1),
        ("y", "passed", None, 1),
    ]


def test_times_rise_by_a_nanosecond_an_item_even_where_commits_share_a_time() -> None:
    same = [
        commit(0, run_created(), shard_submitted("a", "b", "c", "d")),
        commit(1, accepted((0, 0, PASSED, 0.1), (0, 1, PASSED, 0.1))),
        commit(1, accepted((0, 2, PASSED, 0.1), (0, 3, PASSED, 0.1))),
    ]
    times = [time for (time,) in pick(points_of(*same)["cases"], "time_ns")]
    assert times == [START_NS + SECOND_NS + index for index in range(4)]


def test_a_case_that_passed_when_tried_again_is_flaky_and_its_failure_is_a_retry() -> None:
    points = points_of(
        commit(0, run_created(), shard_submitted("a"), granted(0)),
        commit(1, accepted((0, 0, FAILED, 0.5), retried=[0], completed=[1], requeued=[0])),
        commit(2, granted(0, attempts=[2])),
        commit(3, accepted((0, 0, PASSED, 0.7), completed=[1])),
    )
    assert pick(points["retries"], "case", "verdict", "attempt") == [("a", "failed", 1)]
    assert pick(points["cases"], "case", "verdict", "attempt") == [("a", "flaky", 2)]


def test_a_lost_attempt_is_a_point_and_charges_only_the_case_that_ran() -> None:
    lost = events_pb2.AttemptsEnded(
        run_id="r1",
        worker_id="w1",
        tasks=[0],
        fences=[1],
        outcomes=[common_pb2.OUTCOME_CRASHED],
        requeued=[True],
        running_cases=[2],
        verdicts=[ERROR],
        remaining_verdicts=[common_pb2.VERDICT_UNSPECIFIED],
        reasons=["killed by signal 11"],
        durations_seconds=[1.5],
    )
    points = points_of(
        commit(0, registered(), run_created(), shard_submitted("a", "b", "c")), commit(1, lost)
    )
    assert pick(points["attempts"], "outcome", "running_case", "reason", "is_requeued", "pool") == [
        ("crashed", "b", "killed by signal 11", True, "local")
    ]
    assert pick(points["cases"], "case", "verdict", "duration_seconds") == [("b", "error", 1.5)]


def test_an_attempt_that_is_not_tried_again_judges_every_case_left() -> None:
    ended = events_pb2.AttemptsEnded(
        run_id="r1",
        worker_id="w1",
        tasks=[0],
        fences=[1],
        outcomes=[common_pb2.OUTCOME_LOST],
        requeued=[False],
        running_cases=[0],
        verdicts=[common_pb2.VERDICT_UNSPECIFIED],
        remaining_verdicts=[ERROR],
        reasons=["its worker fell silent"],
    )
    points = points_of(
        commit(0, run_created(), shard_submitted("a", "b", "c")),
        commit(1, accepted((0, 1, PASSED, 0.1))),
        commit(2, ended),
    )
    assert pick(points["cases"], "case", "verdict") == [("b", "passed"), ("a", "error"), ("c", "error")]


def test_tasks_that_no_worker_could_run_end_in_error() -> None:
    abandoned = events_pb2.TasksAbandoned(run_id="r1", tasks=[1], reason="no gpu")
    points = points_of(commit(0, run_created(), tasks_submitted("a", "b")), commit(1, abandoned))
    assert pick(points["cases"], "case", "verdict", "worker") == [("b", "error", "")]
    assert pick(points["fleet"], "queued") == [(2,), (1,)]


def test_the_end_of_a_run_is_a_point_with_its_sums() -> None:
    points = points_of(*story("r1", 0, [0.5, 0.25]))
    (run,) = points["runs"]
    assert (run["duration_seconds"], run["busy_seconds"], run["passed"]) == (1.5, 0.75, 2)
    assert (run["task_count"], run["case_count"], run["state"]) == (1, 2, "finished")
    assert (run["first_sequence"], run["last_sequence"], run["owner"]) == (1, 5, "ann@host")


def test_cases_of_one_name_have_one_point_and_the_rest_are_summed_up() -> None:
    points = points_of(
        commit(0, run_created(template=callable_template()), tasks_submitted("noop", "noop", "noop")),
        commit(1, accepted((0, 0, PASSED, 1.0), (1, 0, PASSED, 2.0), (2, 0, FAILED, 4.0))),
        commit(2, finished(passed=2, failed=1)),
    )
    assert pick(points["cases"], "case", "duration_seconds") == [("noop", 1.0)]
    groups = pick(
        points["case_groups"], "group", "count", "total_seconds", "longest_seconds", "passed", "failed"
    )
    assert groups == [("bench:noop", 2, 6.0, 4.0, 1, 1)]


def test_a_suite_of_made_up_names_gets_a_bounded_number_of_series() -> None:
    count = MOST_OTHER_SERIES + 50
    names = [f"fuzz-{number}" for number in range(count)]
    points = points_of(
        commit(0, run_created(template=callable_template("fuzz:once")), tasks_submitted(*names)),
        commit(1, accepted(*[(task, 0, PASSED, 0.5) for task in range(count)])),
        commit(2, finished(passed=count)),
    )
    assert len(points["cases"]) == MOST_OTHER_SERIES
    assert pick(points["case_groups"], "group", "count") == [("fuzz:once", 50)]


def test_numbers_and_cases_of_a_result_file_are_points_of_their_own() -> None:
    detail = events_pb2.CaseDetail(
        measurements=[
            events_pb2.Measurement(metric="mean", value=1.5, unit="s", is_lower_better=True),
            events_pb2.Measurement(metric="mean", value=2.5, unit="s", case_name="inner"),
        ],
        found=[events_pb2.FoundCase(name="pkg.Class::one", verdict=FAILED, duration_seconds=0.25)],
    )
    points = points_of(
        commit(0, run_created(template=callable_template()), tasks_submitted("ctest")),
        commit(1, accepted((0, 0, FAILED, 3.0), details=[detail.SerializeToString()])),
    )
    assert pick(points["cases"], "case", "verdict", "duration_seconds") == [
        ("ctest", "failed", 3.0),
        ("pkg.Class::one", "failed", 0.25),
    ]
    assert pick(points["benchmarks"], "case", "metric", "value", "unit", "is_lower_better") == [
        ("ctest", "mean", 1.5, "s", True),
        ("inner", "mean", 2.5, "s", False),
    ]


def test_the_fleet_is_sampled_as_it_stood_at_the_end_of_each_second() -> None:
    points = points_of(
        commit(0.1, registered("w1"), registered("w2", slots=3)),
        commit(0.6, run_created(), tasks_submitted("a", "b", "c")),
        commit(0.9, granted(0, 1, worker_id="w2")),
        commit(2.5, accepted((0, 0, PASSED, 0.1), (1, 0, PASSED, 0.1), worker_id="w2", all_completed=True)),
        commit(2.7, events_pb2.WorkerDrainRequested(worker_id="w1")),
        commit(4.0, events_pb2.WorkerLeft(worker_id="w1", incarnation=1)),
    )
    assert pick(points["fleet"], "time_ns", "workers", "slots", "queued", "leased") == [
        (START_NS, 2, 4, 1, 2),
        (START_NS + 2 * SECOND_NS, 2, 4, 1, 0),
        (START_NS + 4 * SECOND_NS, 1, 3, 1, 0),
    ]
    assert pick(points["pools"], "pool", "workers", "draining", "leased") == [
        ("local", 2, 0, 2),
        ("local", 2, 1, 0),
        ("local", 1, 0, 0),
    ]


def test_a_worker_that_came_back_is_not_taken_away_by_the_loss_of_its_last_self() -> None:
    again = events_pb2.WorkerRegistered(worker_id="w1", incarnation=2, pool="local", slots=1)
    lost = events_pb2.WorkerLost(worker_id="w1", incarnation=1)
    points = points_of(commit(0, registered("w1")), commit(1, again), commit(2, lost))
    assert pick(points["fleet"], "workers") == [(1,), (1,), (1,)]


def test_leases_given_back_and_cancelled_runs_leave_the_counts_right() -> None:
    points = points_of(
        commit(0, registered(), run_created(), tasks_submitted("a", "b", "c"), granted(0, 1)),
        commit(1, events_pb2.LeasesReleased(run_id="r1", worker_id="w1", tasks=[1], fences=[2])),
        commit(2, events_pb2.RunCancelRequested(run_id="r1")),
    )
    assert pick(points["fleet"], "queued", "leased") == [(1, 2), (2, 1), (0, 1)]


@pytest.mark.parametrize(
    "event",
    [
        accepted((0, 0, PASSED, 0.1), run_id="unknown"),
        accepted((7, 0, PASSED, 0.1)),
        accepted((0, 9, PASSED, 0.1)),
        accepted((0, 0, PASSED, 0.1), details=[b"\xff\xff"]),
        events_pb2.ResultsAccepted(run_id="r1", tasks=[0], cpu_seconds=[1.0, 2.0], durations_seconds=[]),
        events_pb2.AttemptsEnded(
            run_id="r1", tasks=[9], outcomes=[common_pb2.OUTCOME_LOST], remaining_verdicts=[ERROR]
        ),
        events_pb2.AttemptsEnded(run_id="unknown", tasks=[0]),
        events_pb2.TasksAbandoned(run_id="r1", tasks=[9]),
        events_pb2.TasksSubmitted(run_id="r1", first_task=5, names=["gap"]),
        events_pb2.RunFinished(run_id="unknown"),
        events_pb2.WorkerLost(worker_id="unknown", incarnation=3),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_that_fits_nothing_known_is_no_reason_to_stop(event: object) -> None:
    before = [commit(0, run_created(), tasks_submitted("a"))]
    points = points_of(*before, commit(1, event), commit(2, finished()))
    assert pick(points["runs"], "task_count") == [(1,)]


def test_a_batch_of_tasks_that_comes_again_changes_nothing() -> None:
    tasks = tasks_submitted("a", "b")
    points = points_of(commit(0, run_created(), tasks), commit(1, tasks), commit(2, finished()))
    assert pick(points["runs"], "task_count", "case_count") == [(2, 2)]


def long_story() -> list[events_pb2.Commit]:
    """Two suites at once, with losses, retries, groups and a run that is open at the end."""
    noops = [f"n{number % 3}" for number in range(6)]
    lost = events_pb2.AttemptsEnded(
        run_id="r3",
        worker_id="w1",
        tasks=[1],
        fences=[9],
        outcomes=[common_pb2.OUTCOME_LOST],
        requeued=[True],
        running_cases=[0],
        verdicts=[common_pb2.VERDICT_UNSPECIFIED],
        remaining_verdicts=[common_pb2.VERDICT_UNSPECIFIED],
    )
    return [
        commit(0, registered("w1"), registered("w2", "other")),
        *story("r1", 0.5, [0.1, 0.2, 0.3]),
        commit(
            3, run_created("r2", "other", template=callable_template()), tasks_submitted(*noops, run_id="r2")
        ),
        commit(3.1, granted(0, 1, 2, run_id="r2", worker_id="w2"), run_created("r3")),
        commit(3.2, shard_submitted("a", "b", run_id="r3"), shard_submitted("c", run_id="r3", first_task=1)),
        commit(
            3.2,
            accepted(
                *[(t, 0, PASSED, 0.1) for t in range(3)], run_id="r2", worker_id="w2", all_completed=True
            ),
        ),
        commit(3.9, granted(0, 1, run_id="r3")),
        commit(
            4.1,
            accepted(
                (0, 0, FAILED, 0.1),
                (0, 1, PASSED, 0.2),
                run_id="r3",
                retried=[0],
                completed=[1],
                requeued=[0],
            ),
        ),
        commit(4.1, lost, granted(3, 4, 5, run_id="r2", worker_id="w2")),
        commit(4.2, granted(0, 1, run_id="r3", attempts=[2, 2])),
        commit(
            5.0,
            accepted(
                *[(t, 0, PASSED, 0.1) for t in range(3, 6)], run_id="r2", worker_id="w2", all_completed=True
            ),
        ),
        commit(5.1, accepted((0, 0, PASSED, 0.3), run_id="r3", completed=[3]), finished("r2", passed=6)),
        commit(5.2, accepted((1, 0, PASSED, 0.3), run_id="r3", completed=[4])),
        commit(5.3, events_pb2.WorkerLeft(worker_id="w2", incarnation=1)),
    ]


def restarted_content(commits: Sequence[events_pb2.Commit], at: int) -> object:
    """What a store holds when the fold stops after `at` commits and a new one goes on from its state."""
    table, first = PointTable(), LogFold(NameBook())
    for sequence, each in enumerate(commits[:at], start=1):
        first.apply(each, sequence)
    table.write(first.take())
    state = json.loads(json.dumps(first.state()))
    content = table.content()
    known = {(str(row[1]), str(row[2])) for name in ("cases", "retries") for row in content.get(name, [])}
    second = LogFold(NameBook(known))
    for sequence in range(state["replay_after"] + 1, at + 1):
        second.apply(commits[sequence - 1], sequence)
    second.restore(state)
    for sequence in range(at + 1, len(commits) + 1):
        second.apply(commits[sequence - 1], sequence)
    table.write(second.take())
    return table.content()


@pytest.mark.parametrize("at", range(1, len(long_story())))
def test_a_fold_that_starts_again_anywhere_leaves_the_same_points(at: int) -> None:
    commits = long_story()
    assert restarted_content(commits, at) == expected_content(commits)


def test_the_state_says_from_where_the_open_runs_must_be_read_again() -> None:
    fold = LogFold(NameBook())
    for sequence, each in enumerate(long_story(), start=1):
        fold.apply(each, sequence)
    assert set(fold.runs) == {"r3"}
    assert fold.state()["replay_after"] == 7
    assert fold.state()["sequence"] == len(long_story())


def test_writing_after_every_commit_or_once_at_the_end_is_the_same() -> None:
    commits = long_story()
    fold, table = LogFold(NameBook()), PointTable()
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
        table.write(fold.take())
    assert table.content() == expected_content(commits)
