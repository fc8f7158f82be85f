"""Progress of a run: given its events, what is shown."""

import io

import pytest

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.cli.progress_display import (
    ProgressDisplay,
    clock_text,
    duration_text,
    failure_line,
    region,
    summary_line,
    workers_text,
)
from dtf.cli.run_progress import RunProgress
from dtf.client.run import WatchedEvent
from tests.fakes import FakeClock

SECOND = 1_000_000_000
FAILED, PASSED, ERROR = common_pb2.VERDICT_FAILED, common_pb2.VERDICT_PASSED, common_pb2.VERDICT_ERROR


class Story:
    """Feeds events to a progress, a second apart."""

    def __init__(self) -> None:
        self.progress = RunProgress()
        self.now = 100 * SECOND
        self.tell(events_pb2.Event(run_created=events_pb2.RunCreated(run_id="r")))

    def tell(self, event: events_pb2.Event) -> list[str]:
        notes = self.progress.observe(WatchedEvent(1, self.now, event))
        self.now += SECOND
        return [failure_line(note) for note in notes]

    def submit(self, names: list[str], **columns: object) -> None:
        submitted = events_pb2.TasksSubmitted(names=names, **columns)  # type: ignore[arg-type]  # columns by name
        self.tell(events_pb2.Event(tasks_submitted=submitted))

    def grant(self, worker: str, tasks: list[int]) -> None:
        self.tell(events_pb2.Event(leases_granted=events_pb2.LeasesGranted(worker_id=worker, tasks=tasks)))

    def accept(self, worker: str, tasks: list[int], **columns: object) -> list[str]:
        accepted = events_pb2.ResultsAccepted(worker_id=worker, tasks=tasks, **columns)  # type: ignore[arg-type]  # columns by name
        return self.tell(events_pb2.Event(results_accepted=accepted))


@pytest.fixture
def story() -> Story:
    return Story()


def test_verdicts_are_counted_and_leases_follow_the_workers(story: Story) -> None:
    story.submit(["a", "b", "c"])
    story.grant("w-1", [0])
    story.grant("w-2", [1])
    progress = story.progress
    assert (progress.queue_depth, progress.busy_workers) == (1, 2)
    story.accept("w-1", [0], all_completed=True, durations_seconds=[2.0])
    assert (progress.done, progress.cases, progress.busy_workers) == (1, 3, 1)
    assert progress.longest == (2.0, "a", "w-1")
    assert summary_line(progress) == "1/3+   1 passed   00:04, about 4.0 s left"


def test_a_failure_is_told_with_its_reason(story: Story) -> None:
    story.submit(["a"])
    story.grant("w-1", [0])
    detail = events_pb2.CaseDetail(message="OSError: no").SerializeToString()
    assert story.accept("w-1", [0], verdicts=[FAILED], details=[detail]) == ["FAILED    a  OSError: no"]


def test_a_retried_case_has_no_verdict_yet(story: Story) -> None:
    story.submit(["a"])
    story.grant("w-1", [0])
    assert story.accept("w-1", [0], verdicts=[FAILED], retried=[0], requeued=[0]) == []
    assert (story.progress.done, story.progress.queue_depth) == (0, 1)


def test_a_shard_goes_on_until_each_of_its_cases_is_judged(story: Story) -> None:
    story.submit(["shard"], case_counts=[2], case_names=["t::a", "t::b"])
    story.grant("w-1", [0])
    story.accept("w-1", [0], cases=[0])
    assert (story.progress.done, story.progress.busy_workers) == (1, 1)
    story.accept("w-1", [0], cases=[1])
    assert (story.progress.done, story.progress.busy_workers) == (2, 0)


def test_a_crash_charges_the_case_that_ran_and_requeues_the_rest(story: Story) -> None:
    story.submit(["shard"], case_counts=[2], case_names=["t::a", "t::b"])
    story.grant("w-1", [0])
    ended = events_pb2.AttemptsEnded(
        tasks=[0],
        requeued=[True],
        running_cases=[2],
        verdicts=[ERROR],
        remaining_verdicts=[common_pb2.VERDICT_UNSPECIFIED],
        reasons=["signal 11"],
    )
    assert story.tell(events_pb2.Event(attempts_ended=ended)) == ["ERROR     t::b  signal 11"]
    assert (story.progress.queue_depth, story.progress.busy_workers) == (1, 0)


def test_abandoned_tasks_are_errors(story: Story) -> None:
    story.submit(["a", "b"])
    abandoned = events_pb2.TasksAbandoned(tasks=[0, 1], reason="no gpu")
    notes = story.tell(events_pb2.Event(tasks_abandoned=abandoned))
    assert notes == ["ERROR     a  no gpu", "ERROR     b  no gpu"]
    assert story.progress.queue_depth == 0


def test_what_waits_says_why(story: Story) -> None:
    changed = events_pb2.PlacementChanged(template=0, waiting=True, reason="waiting: no worker has gpu=a100")
    story.tell(events_pb2.Event(placement_changed=changed))
    assert "  waiting: no worker has gpu=a100" in summary_line(story.progress)
    story.tell(events_pb2.Event(placement_changed=events_pb2.PlacementChanged(template=0, waiting=False)))
    assert "waiting" not in summary_line(story.progress)


def test_moves_of_the_pool_are_kept_with_their_reason(story: Story) -> None:
    decision = scaling_pb2.ScalingDecision(
        now_unix_nanos=105 * SECOND,
        action=scaling_pb2.SCALING_ACTION_SCALE_OUT,
        launch_ids=["l1", "l2"],
        requested=2,
        desired=4,
        reason="backlog 48 s",
    )
    story.progress.observe(WatchedEvent(0, 105 * SECOND, None, decision))
    assert [(move.at_seconds, move.change) for move in story.progress.pool_moves] == [(5.0, 2)]
    assert workers_text(story.progress) == "0 busy, 2 starting, 4 wanted   queue 0 tasks"


def test_expected_durations_make_the_backlog(story: Story) -> None:
    story.submit(["a", "b"], expected_seconds=[3.0, 0.0])
    assert story.progress.backlog_seconds == pytest.approx(3.4)


def test_elsewhere_than_on_a_terminal_failures_come_at_once_and_counts_now_and_then(story: Story) -> None:
    stream, clock = io.StringIO(), FakeClock()
    display = ProgressDisplay("r", "suite", stream, clock)
    story.submit(["a", "b"])
    story.grant("w-1", [0, 1])
    notes = story.progress.observe(
        WatchedEvent(
            2,
            story.now,
            events_pb2.Event(
                results_accepted=events_pb2.ResultsAccepted(worker_id="w", tasks=[0], verdicts=[FAILED])
            ),
        )
    )
    display.show(story.progress, notes)
    assert stream.getvalue() == "FAILED    a\n"


def test_the_region_shows_the_newest_failures(story: Story) -> None:
    from rich.console import Console

    story.submit([f"case-{number}" for number in range(9)])
    story.grant("w-1", list(range(9)))
    story.accept("w-1", list(range(9)), verdicts=[FAILED] * 9)
    console = Console(file=io.StringIO(), width=120)
    with console.capture() as capture:
        console.print(region("run r  suite", story.progress))
    shown = capture.get()
    assert "case-8" in shown and "FAILED    case-0" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.354, "0.35 s"),
        (2.04, "2.0 s"),
        (9.96, "10 s"),
        (119.0, "119 s"),
        (240.0, "4 min"),
        (9000.0, "2.5 h"),
    ],
)
def test_durations_have_the_digits_that_help(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_time_is_shown_as_on_a_clock() -> None:
    assert (clock_text(65), clock_text(3665)) == ("01:05", "1:01:05")
