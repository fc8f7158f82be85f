"""Journals of clients and workers, held against a log: what they were told must be in it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.client.journal import JournalWriter
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.journal import Journal, JournalError
from dtf.core.check.properties import Property, Source
from dtf.core.check.report import CheckReport
from dtf.core.events import parse_commit
from dtf.ports.event_log import StoredCommit

STREAM = Path(__file__).parents[1] / "streams" / "callables" / "events.dtfstream"


def log() -> list[StoredCommit]:
    """A recorded log: run of 400 calls, one worker."""
    with StreamFile(STREAM) as stream:
        return list(stream)


class Facts:
    """What the recorded log says, as its clients and workers were told it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = JournalWriter(path)
        self.batches: list[int] = []
        self.lease: tuple[str, str, int, int, int, int] = ("", "", 0, 0, 0, 0)
        for message in log():
            commit = parse_commit(message.payload, message.message_id)
            assert commit is not None
            for event in commit.events:
                if event.HasField("run_created"):
                    self.run_id = event.run_created.run_id
                elif event.HasField("tasks_submitted"):
                    self.batches.append(len(event.tasks_submitted.names))
                elif event.HasField("leases_granted") and not self.lease[0]:
                    said = event.leases_granted
                    self.lease = (
                        said.run_id,
                        said.worker_id,
                        said.incarnation,
                        said.tasks[0],
                        said.first_fence,
                        commit.now_unix_nanos,
                    )

    def note_client(self, batches: Sequence[int] = ()) -> None:
        """What its client was told, or that it submitted batches of these sizes."""
        self.writer.created(run_service_pb2.Run(run_id=self.run_id), "request")
        first_task = 0
        for number, count in enumerate(batches or self.batches, 1):
            request = run_service_pb2.SubmitTasksRequest(run_id=self.run_id, batch=number)
            request.tasks.extend(common_pb2.TaskSpec(name=str(index)) for index in range(count))
            response = run_service_pb2.SubmitTasksResponse(
                batch=number, first_task=first_task, task_count=count
            )
            self.writer.submitted(request, response)
            first_task += count
        request = run_service_pb2.SubmitTasksRequest(run_id=self.run_id, seal=True)
        response = run_service_pb2.SubmitTasksResponse(first_task=first_task)
        self.writer.submitted(request, response)

    def note_worker(self, *, fence: int = 0, seconds: float = 0.0, worker_id: str = "") -> None:
        """What its worker got and was told."""
        run_id, name, incarnation, task, first_fence, now_ns = self.lease
        fence = fence or first_fence
        batch = worker_service_pb2.Assignments(run_id=run_id, tasks=[task], fences=[fence])
        self.writer.leased(worker_id or name, incarnation, [batch], now_ns + round(seconds * 1e9))
        results = worker_service_pb2.CaseResults(run_id=run_id, fences=[fence])
        self.writer.acknowledged(name, incarnation, worker_service_pb2.AttachRequest(results=[results]))

    def check(self) -> CheckReport:
        """Hold it against the recorded log."""
        journal = Journal()
        with self.path.open(encoding="utf-8", newline="\n") as lines:
            journal.read(lines, self.path.name)
        checker = HistoryChecker(journal)
        for message in log():
            checker.take(message.sequence, message.payload, message.message_id)
        return checker.finish()


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Journals to be written."""
    return Facts(tmp_path / "journal.jsonl")


def violated(report: CheckReport) -> set[Property]:
    """The properties that do not hold."""
    return {each.property for each in report.properties if each.violation_count}


def test_true_journals_agree_with_the_log(facts: Facts) -> None:
    facts.note_client()
    facts.note_worker(seconds=0.01)
    report = facts.check()
    assert report.violations == []
    assert report.of(Property.ACKNOWLEDGED).checked == 2 + len(facts.batches)
    assert report.of(Property.GRANTED).checked == 1
    assert report.of(Property.RESULTS).checked == 1


def test_properties_that_need_a_journal_are_not_asked_without_one(facts: Facts) -> None:
    facts.note_client()
    report = facts.check()
    assert report.of(Property.ACKNOWLEDGED).is_asked
    unasked = {each.property.source for each in report.properties if not each.is_asked}
    assert unasked == {Source.WORKER_JOURNAL, Source.SCALING}


def test_an_acknowledged_batch_that_the_log_lacks_is_lost(facts: Facts) -> None:
    facts.note_client([*facts.batches, 7])
    report = facts.check()
    assert violated(report) == {Property.ACKNOWLEDGED}
    assert any("the log lacks 7 tasks from 400 on" in each.what for each in report.violations)


def test_an_acknowledged_batch_with_fewer_tasks_in_the_log_is_lost_in_part(facts: Facts) -> None:
    facts.note_client([*facts.batches[:-1], facts.batches[-1] + 5])
    report = facts.check()
    assert violated(report) == {Property.ACKNOWLEDGED}
    assert any("lacks 5 tasks" in each.what for each in report.violations)


def test_an_acknowledged_run_that_the_log_lacks_is_lost(facts: Facts) -> None:
    facts.writer.created(run_service_pb2.Run(run_id="none"), "request")
    assert violated(facts.check()) == {Property.ACKNOWLEDGED}


def test_a_lease_that_was_never_granted_is_told(facts: Facts) -> None:
    facts.note_worker(fence=999_999)
    assert violated(facts.check()) == {Property.GRANTED, Property.RESULTS}


def test_a_lease_held_by_another_worker_than_granted_is_told(facts: Facts) -> None:
    facts.note_worker(worker_id="someone-else")
    assert violated(facts.check()) == {Property.GRANTED}


def test_a_lease_that_came_before_its_grant_was_decided_is_told(facts: Facts) -> None:
    facts.note_worker(seconds=-5.0)
    report = facts.check()
    assert violated(report) == {Property.GRANTED}
    assert "5.000 s before its grant" in report.violations[0].what


def test_an_acknowledged_end_that_the_log_lacks_is_told(facts: Facts) -> None:
    end = worker_service_pb2.AttemptEnd(fence=1)
    facts.writer.acknowledged("w", 1, worker_service_pb2.AttachRequest(ends=[end]))
    assert violated(facts.check()) == {Property.RESULTS}


def test_a_line_cut_off_by_a_kill_is_passed_over(facts: Facts) -> None:
    facts.note_client()
    with facts.path.open("a") as file:
        file.write('{"what":"batch","run_id":"cut')
    assert facts.check().is_clean


def test_a_line_that_is_no_entry_is_refused_with_its_number(facts: Facts) -> None:
    facts.note_client()
    with facts.path.open("a") as file:
        file.write('{"what":"batch","run_id":"whole"}\n')
    line = 3 + len(facts.batches)
    with pytest.raises(JournalError, match=rf"journal\.jsonl, line {line}, .*KeyError: 'batch'"):
        facts.check()
