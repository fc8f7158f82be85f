"""What a run's events say of it: verdicts, tries, whose fault, bars, queue and pool."""

import pytest

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.run.pool_summary import PoolSummary, SizePoint
from dtf.core.run.summary import Fault
from dtf.core.run.summary_fold import fold_run, iterate_commit
from tests.unit.run_events import BEGIN_NS, ERROR, FAILED, FLAKY, NONE, PASSED, SECOND, SKIPPED, RunStory

LOST = common_pb2.OUTCOME_LOST
CRASHED = common_pb2.OUTCOME_CRASHED
TIMED_OUT = common_pb2.OUTCOME_TIMED_OUT


def test_a_case_that_passed_keeps_no_tries() -> None:
    story = RunStory().begin("a").lease("w1", 0, 1).wait(2).result("w1", 0, 1, seconds=1.5)
    (case,) = story.summary.cases
    assert (case.name, case.verdict, case.seconds, case.worker_id, case.tries) == ("a", PASSED, 1.5, "w1", [])


def test_cases_of_shards_are_named_and_judged_one_by_one() -> None:
    story = RunStory().begin("t::a", "t::b", "t::c", cases=[2, 1]).lease("w1", 0, 1)
    story.result("w1", 0, 1, PASSED, is_last=False).result("w1", 0, 1, SKIPPED, case=1)
    assert [(c.name, c.task, c.case, c.verdict) for c in story.summary.cases] == [
        ("t::a", 0, 0, PASSED),
        ("t::b", 0, 1, SKIPPED),
        ("t::c", 1, 0, NONE),
    ]


def test_a_failure_says_why_and_is_the_tests_fault() -> None:
    detail = events_pb2.CaseDetail(message="assert 1 == 2")
    story = RunStory().begin("a").lease("w1", 0, 1).result("w1", 0, 1, FAILED, detail=detail)
    (case,) = story.summary.failures
    assert (case.message, case.fault, case.tries[0].attempt) == ("assert 1 == 2", Fault.TEST, 1)


def test_a_flaky_case_has_both_tries_and_did_not_fail() -> None:
    story = RunStory().begin("a").lease("w1", 0, 1).result("w1", 0, 1, FAILED, is_retried=True)
    story.lease("w2", 0, 2, attempt=2).result("w2", 0, 2, FLAKY)
    (case,) = story.summary.flaky
    assert [(t.attempt, t.worker_id, t.verdict) for t in case.tries] == [(1, "w1", FAILED), (2, "w2", FLAKY)]
    assert case.fault is None
    assert story.summary.failures == []


def test_a_failure_after_a_lost_worker_is_the_tests_fault_and_the_loss_is_not() -> None:
    story = RunStory().begin("a").lease("w1", 0, 1)
    story.end_attempt("w1", 0, 1, LOST, "silent for 10 s", running=1, is_requeued=True)
    story.lease("w2", 0, 2, attempt=2).result("w2", 0, 2, FAILED)
    (case,) = story.summary.failures
    assert [one.fault for one in case.tries] == [Fault.INFRASTRUCTURE, Fault.TEST]
    assert case.fault is Fault.TEST
    assert [what for _, what in story.summary.disturbances] == ["w1: silent for 10 s"]


def test_a_case_whose_every_worker_was_lost_is_the_infrastructures_fault() -> None:
    story = RunStory().begin("a")
    story.lease("w1", 0, 1).end_attempt("w1", 0, 1, LOST, "silent", running=1, is_requeued=True)
    story.lease("w2", 0, 2, 2).end_attempt("w2", 0, 2, LOST, "silent", running=1, verdict=ERROR)
    (case,) = story.summary.failures
    assert (case.verdict, case.fault) == (ERROR, Fault.INFRASTRUCTURE)


def test_a_case_that_kills_every_process_it_runs_in_is_itself_at_fault() -> None:
    story = RunStory().begin("a")
    story.lease("w1", 0, 1).end_attempt(
        "w1", 0, 1, CRASHED, "killed by signal 11", running=1, is_requeued=True
    )
    assert story.summary.cases[0].tries[0].fault is Fault.INFRASTRUCTURE
    story.lease("w2", 0, 2, 2).end_attempt(
        "w2", 0, 2, CRASHED, "killed by signal 11", running=1, verdict=ERROR
    )
    (case,) = story.summary.failures
    assert (case.fault, case.message) == (Fault.TEST, "killed by signal 11")
    assert story.summary.disturbances == []


def test_leases_that_had_not_started_when_their_worker_was_lost_are_one_line_and_no_try() -> None:
    story = RunStory().begin("a", "b", "c")
    for task in range(3):
        story.lease("w1", task, task + 1)
    for task in range(3):
        story.end_attempt("w1", task, task + 1, LOST, "worker w1 was killed", is_requeued=True)
    assert [what for _, what in story.summary.disturbances] == ["worker w1 was killed"]
    assert [case.tries for case in story.summary.cases] == [[], [], []]


def test_a_time_out_is_the_tests_fault() -> None:
    story = RunStory().begin("a").lease("w1", 0, 1).wait(5)
    story.end_attempt("w1", 0, 1, TIMED_OUT, "ran longer than 5 s", running=1, verdict=FAILED, seconds=5.0)
    (case,) = story.summary.failures
    assert (case.fault, case.seconds) == (Fault.TEST, 5.0)


def test_a_lost_shard_charges_no_case_that_is_not_known_to_have_run() -> None:
    story = RunStory().begin("a", "b", cases=[2]).lease("w1", 0, 1)
    story.result("w1", 0, 1, is_last=False).end_attempt("w1", 0, 1, LOST, "silent", is_requeued=True)
    story.lease("w2", 0, 2, 2).result("w2", 0, 2, case=1)
    assert [(c.verdict, c.tries) for c in story.summary.cases] == [(PASSED, []), (PASSED, [])]


def test_an_attempt_that_never_got_going_condemns_what_is_left_of_its_task() -> None:
    story = RunStory().begin("a", "b", cases=[2]).lease("w1", 0, 1)
    story.end_attempt("w1", 0, 1, CRASHED, "import failed", remaining=ERROR)
    assert [(c.verdict, c.message, c.fault) for c in story.summary.failures] == [
        (ERROR, "import failed", Fault.INFRASTRUCTURE)
    ] * 2


def test_abandoned_tasks_end_in_error_through_no_fault_of_theirs() -> None:
    story = RunStory().begin("a")
    story.tell(
        tasks_abandoned=events_pb2.TasksAbandoned(run_id="r1", tasks=[0], reason="no worker with gpu=a100")
    )
    (case,) = story.summary.failures
    assert (case.message, case.fault) == ("no worker with gpu=a100", Fault.INFRASTRUCTURE)


def test_the_queue_is_told_as_it_stood() -> None:
    story = RunStory().begin("a", "b").wait(1).lease("w1", 0, 1).wait(1).result("w1", 0, 1).wait(1)
    story.lease("w1", 1, 2).wait(1).end_attempt("w1", 1, 2, LOST, "silent", is_requeued=True)
    steps = [((p.at_ns - BEGIN_NS) // SECOND, p.queued, p.leased) for p in story.summary.queue]
    assert steps == [(0, 2, 0), (1, 1, 1), (2, 1, 0), (3, 0, 1), (4, 1, 0)]


def test_released_leases_go_back_to_the_queue() -> None:
    story = RunStory().begin("a").lease("w1", 0, 1).wait(1)
    story.tell(leases_released=events_pb2.LeasesReleased(run_id="r1", worker_id="w1", tasks=[0], fences=[1]))
    assert (story.summary.queue[-1].queued, story.summary.queue[-1].leased) == (1, 0)


def test_a_bar_lies_where_the_worker_said_if_the_log_agrees() -> None:
    story = RunStory().begin("a").wait(1).lease("w1", 0, 1).wait(3)
    story.result("w1", 0, 1, seconds=1.0, began_at=BEGIN_NS / SECOND + 1.5)
    (bar,) = story.summary.bars
    assert (bar.began_ns - BEGIN_NS, bar.ended_ns - BEGIN_NS) == (1.5 * SECOND, 2.5 * SECOND)


def test_a_bar_of_a_worker_whose_clock_is_off_ends_at_its_commit() -> None:
    story = RunStory().begin("a").wait(1).lease("w1", 0, 1).wait(3)
    story.result("w1", 0, 1, seconds=1.0, began_at=BEGIN_NS / SECOND - 3600)
    (bar,) = story.summary.bars
    assert (bar.began_ns - BEGIN_NS, bar.ended_ns - BEGIN_NS) == (3 * SECOND, 4 * SECOND)


def test_the_slowest_come_first_and_unjudged_cases_are_not_among_them() -> None:
    story = RunStory().begin("a", "b", "c").lease("w", 0, 1).lease("w", 1, 2)
    story.result("w", 0, 1, seconds=1.0).result("w", 1, 2, seconds=3.0)
    assert [case.name for case in story.summary.slowest(5)] == ["b", "a"]


def test_the_counts_are_the_coordinators_and_agree_with_the_cases() -> None:
    story = (
        RunStory()
        .begin("a", "b")
        .lease("w", 0, 1)
        .result("w", 0, 1)
        .lease("w", 1, 2)
        .result("w", 1, 2, FAILED)
    )
    story.wait(4).finish(passed=1, failed=1)
    summary = story.summary
    assert (summary.counts.passed, summary.counts.failed, len(summary.failures)) == (1, 1, 1)
    assert (summary.seconds, summary.first_sequence, summary.last_sequence) == (4.0, 1, len(story.events))


def test_results_that_came_too_late_are_counted_and_change_nothing() -> None:
    story = RunStory().begin("a")
    story.tell(results_refused=events_pb2.ResultsRefused(worker_id="w", fences=[7, 8]))
    assert story.summary.refused_count == 2
    assert story.summary.cases[0].verdict == NONE


def test_a_commit_of_several_runs_gives_only_the_run_asked_for() -> None:
    story = RunStory().begin("a")
    other = events_pb2.Event(run_created=events_pb2.RunCreated(run_id="other"))
    commit = events_pb2.Commit(now_unix_nanos=5, events=[story.events[0][2], other])
    assert fold_run(iterate_commit(9, commit, "r1")).run_id == "r1"
    assert len(list(iterate_commit(9, commit, "other"))) == 1


class TestPoolSummary:
    """How large the pool was, and why it moved."""

    def test_sizes_follow_the_fleet(self) -> None:
        pool = PoolSummary()
        pool.begin(0, ["w1"])
        pool.apply(
            2 * SECOND, events_pb2.Event(worker_registered=events_pb2.WorkerRegistered(worker_id="w2"))
        )
        pool.apply(4 * SECOND, events_pb2.Event(worker_lost=events_pb2.WorkerLost(worker_id="w1")))
        pool.apply(5 * SECOND, events_pb2.Event(worker_left=events_pb2.WorkerLeft(worker_id="w1")))
        assert pool.sizes == [SizePoint(0, 1), SizePoint(2 * SECOND, 2), SizePoint(4 * SECOND, 1)]
        assert (pool.size_at(3 * SECOND), pool.peak(10 * SECOND), pool.peak(SECOND)) == (2, 2, 1)

    def test_worker_seconds_count_the_span_asked_for(self) -> None:
        pool = PoolSummary()
        pool.begin(0, ["w1"])
        pool.apply(
            2 * SECOND, events_pb2.Event(worker_registered=events_pb2.WorkerRegistered(worker_id="w2"))
        )
        assert pool.worker_seconds(SECOND, 4 * SECOND) == pytest.approx(1 + 2 * 2)

    def test_moves_are_kept_and_holds_are_not(self) -> None:
        pool = PoolSummary()
        pool.decide(scaling_pb2.ScalingDecision(action=scaling_pb2.SCALING_ACTION_HOLD))
        pool.decide(
            scaling_pb2.ScalingDecision(
                action=scaling_pb2.SCALING_ACTION_SCALE_IN, worker_ids=["w1", "w2"], desired=1
            )
        )
        assert [(mark.action, mark.change, mark.desired) for mark in pool.marks] == [("scale in", -2, 1)]
