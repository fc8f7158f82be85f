"""The books of the chaos harness: each loss is seen, and a whole history has none."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2, events_pb2
from dtf.ports.event_log import StoredCommit
from tests.chaos.books import Finding, LogBook, Loss, check_executions, check_journal, check_verdicts
from tests.chaos.faults import KIND_NAMES
from tests.chaos.load import Submitted
from tests.chaos.schedule import plan, share
from tests.chaos.table import Struck, Tally

RUN = "7f3k"


def created() -> events_pb2.Event:
    return events_pb2.Event(run_created=events_pb2.RunCreated(run_id=RUN))


def submitted(first: int, names: Sequence[str]) -> events_pb2.Event:
    return events_pb2.Event(
        tasks_submitted=events_pb2.TasksSubmitted(run_id=RUN, first_task=first, names=names)
    )


def sealed() -> events_pb2.Event:
    return events_pb2.Event(submission_sealed=events_pb2.SubmissionSealed(run_id=RUN))


def granted(*tasks: int) -> events_pb2.Event:
    return events_pb2.Event(
        leases_granted=events_pb2.LeasesGranted(run_id=RUN, tasks=tasks, first_fence=tasks[0] + 1)
    )


def accepted(*tasks: int, verdict: int = common_pb2.VERDICT_PASSED) -> events_pb2.Event:
    verdicts = [common_pb2.Verdict.ValueType(verdict)] * len(tasks)
    return events_pb2.Event(
        results_accepted=events_pb2.ResultsAccepted(run_id=RUN, tasks=tasks, verdicts=verdicts)
    )


def finished() -> events_pb2.Event:
    return events_pb2.Event(run_finished=events_pb2.RunFinished(run_id=RUN))


WHOLE = (created(), submitted(0, ["a", "b"]), sealed(), granted(0, 1), accepted(0), accepted(1), finished())


def chain_of(*events: events_pb2.Event) -> Iterator[StoredCommit]:
    """The events as messages of one chain."""
    previous = b""
    for number, event in enumerate(events, 1):
        commit = events_pb2.Commit(commit_id=number.to_bytes(16, "big"), prev_hash=previous, events=[event])
        payload = commit.SerializeToString()
        previous = hashlib.sha256(payload).digest()
        yield StoredCommit(number, payload, previous.hex(), {})


def book_of(*events: events_pb2.Event) -> LogBook:
    """The books of a log with one event a commit."""
    book = LogBook()
    for stored in chain_of(*events):
        book.read(stored)
    return book


def told(names: Sequence[str] = ("a", "b"), *, is_sealed: bool = True) -> Submitted:
    """What a client was told of the run."""
    return Submitted(
        RUN,
        1.0,
        names=list(names),
        acknowledged_at=[2.0] * len(names),
        sealed_at=3.0 if is_sealed else 0.0,
        seen=Counter([0, 1]),
        is_finished=True,
    )


def all_findings(book: LogBook, journal: Submitted) -> Iterator[Finding]:
    yield from book.findings
    yield from check_journal(book, {RUN: journal})
    yield from check_verdicts(book, is_whole=True)


def losses(book: LogBook, journal: Submitted) -> Counter[Loss]:
    return Counter(finding.loss for finding in all_findings(book, journal))


def test_a_whole_history_has_no_findings() -> None:
    assert not losses(book_of(*WHOLE), told())


def test_a_message_under_another_id_counts_for_nothing() -> None:
    book = book_of(*WHOLE)
    again = events_pb2.Commit(commit_id=bytes(16), events=[accepted(0)])
    book.read(StoredCommit(99, again.SerializeToString(), "", {}))
    assert not losses(book, told())


def test_a_commit_said_again_under_its_own_id_counts_once() -> None:
    book = LogBook()
    for stored in (messages := list(chain_of(*WHOLE))):
        book.read(stored)
    for stored in messages:
        book.read(StoredCommit(len(messages) + stored.sequence, stored.payload, stored.message_id, {}))
    assert not losses(book, told())


def test_an_acknowledged_run_that_is_not_there_is_lost() -> None:
    assert losses(book_of(), told())[Loss.SUBMISSION_LOST] == 1


def test_each_acknowledged_task_that_is_not_there_is_lost() -> None:
    assert losses(book_of(*WHOLE), told(["a", "b", "c", "d"]))[Loss.SUBMISSION_LOST] == 2


def test_an_acknowledged_seal_that_is_not_there_is_lost() -> None:
    without = [event for event in WHOLE if not event.HasField("submission_sealed")]
    assert losses(book_of(*without), told())[Loss.SUBMISSION_LOST] == 1
    assert not losses(book_of(*without), told(is_sealed=False))


def test_a_task_that_is_there_twice_is_found() -> None:
    twice = [*WHOLE[:2], submitted(2, ["a"]), *WHOLE[2:-1], granted(2), accepted(2), finished()]
    assert losses(book_of(*twice), told()) == {Loss.OTHER: 1}


def test_a_second_verdict_is_found_where_it_was_accepted() -> None:
    book = book_of(*WHOLE[:-1], accepted(1), finished())
    (found,) = all_findings(book, told())
    assert (found.loss, found.sequence) == (Loss.VERDICT_TWICE, 7)


def test_a_task_of_an_ended_run_without_a_verdict_has_lost_it() -> None:
    book = book_of(*(event for event in WHOLE if event != accepted(1)))
    assert losses(book, told())[Loss.VERDICT_LOST] == 2  # missing, and the client had seen it


def test_a_task_of_a_run_that_never_ended_is_lost_only_if_there_was_time() -> None:
    book = book_of(created(), submitted(0, ["a"]), sealed())
    assert [finding.loss for finding in check_verdicts(book, is_whole=True)] == [Loss.VERDICT_LOST]
    assert not list(check_verdicts(book, is_whole=False))


def test_a_verdict_of_an_attempt_that_ended_counts() -> None:
    ended = events_pb2.AttemptsEnded(
        run_id=RUN,
        tasks=[1],
        verdicts=[common_pb2.VERDICT_UNSPECIFIED],
        remaining_verdicts=[common_pb2.VERDICT_ERROR],
    )
    without = [event for event in WHOLE if event != accepted(1)]
    book = book_of(*without[:-1], events_pb2.Event(attempts_ended=ended), finished())
    (found,) = all_findings(book, told())
    assert found.loss is Loss.OTHER and "ERROR" in found.what


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (["begin a", "end a", "begin b"], "has a verdict and never ended"),
        (["begin a", "end a", "begin b", "end b", "begin b"], "began 2 times on 1 leases"),
    ],
)
def test_executions_must_explain_the_log(tmp_path: Path, lines: Sequence[str], what: str) -> None:
    file = tmp_path / "executions"
    file.write_text("".join(f"{line}\n" for line in lines))
    (found,) = check_executions(book_of(*WHOLE), [RUN], file)
    assert what in found.what


def test_executions_of_a_name_are_counted_over_its_runs(tmp_path: Path) -> None:
    """A probe that is submitted again, as its submission failed, is another run with tasks of the same names."""
    again = []
    for event in (created(), submitted(0, ["a", "b"])):
        copy = events_pb2.Event.FromString(event.SerializeToString().replace(RUN.encode(), b"r" * len(RUN)))
        again.append(copy)
    file = tmp_path / "executions"
    file.write_text("begin a\nend a\nbegin b\nend b\n")
    assert list(check_executions(book_of(*WHOLE, *again), [RUN, "r" * len(RUN)], file)) == []


def test_every_kind_comes_equally_often_and_a_seed_gives_the_same_again() -> None:
    planned = list(plan("7", KIND_NAMES, 3 * len(KIND_NAMES)))
    assert Counter(each.kind for each in planned) == dict.fromkeys(KIND_NAMES, 3)
    assert planned == list(plan("7", KIND_NAMES, 3 * len(KIND_NAMES)))
    assert planned != list(plan("8", KIND_NAMES, 3 * len(KIND_NAMES)))


def test_stacks_share_a_schedule_without_rest() -> None:
    shares = [share(plan("7", KIND_NAMES, 50), stack, 3) for stack in range(3)]
    together = sorted((each for part in shares for each in part), key=lambda each: each.number)
    assert together == list(plan("7", KIND_NAMES, 50))


def struck(kind: str, *, recovery_seconds: float, leases: int = 1) -> Struck:
    return Struck(0, 1, kind, "", 1.0, 1, leases, 1, 0.5, recovery_seconds)


def test_a_tally_is_clean_only_if_everything_came_back_and_nothing_was_found() -> None:
    assert Tally([struck("twice", recovery_seconds=0.5)]).is_clean
    assert not Tally([struck("twice", recovery_seconds=-1.0)]).is_clean
    tally = Tally([struck("twice", recovery_seconds=0.5)])
    tally.found["twice"]["verdicts lost"] += 1
    assert not tally.is_clean


def test_the_table_counts_what_was_in_flight() -> None:
    tally = Tally([struck("twice", recovery_seconds=0.5), struck("twice", recovery_seconds=2.0, leases=0)])
    line = next(line for line in tally.lines(["twice"], []) if line.startswith("twice"))
    assert line.split() == ["twice", "2", "1", "0", "0", "0", "0", "1.2", "2.0"]
