"""What confirms a finding: the book of requests, and where the points of such runs have their place."""

from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import events_pb2, findings_pb2
from dtf.core.trend.confirmations import ConfirmationBook, confirmation_line
from dtf.core.trend.series_points import SeriesKey
from tests.trend_events import (
    PASSED,
    accepted,
    callable_template,
    commit,
    finished,
    granted,
    registered,
    run_created,
    tasks_submitted,
)
from tests.trend_histories import search


def request(finding: str, number: int, **fields: object) -> findings_pb2.ConfirmationRequested:
    """A request, or an answer to one."""
    return findings_pb2.ConfirmationRequested(
        finding_id=finding,
        number=number,
        source_run_id="r1",
        source_task=2,
        now_unix_nanos=number,
        **fields,  # type: ignore[arg-type]  # a test's own fields
    )


def test_an_answer_takes_the_place_of_its_request_and_stays() -> None:
    book = ConfirmationBook()
    book.apply(request("f", 1))
    assert book.unanswered() == [request("f", 1)]
    answer = request("f", 1, run_id="c1")
    for event in (answer, request("f", 1), request("f", 1, refusal="too late")):
        book.apply(event)
    assert book.of("f") == [answer]
    assert book.of_run("c1") == answer
    assert book.unanswered() == []
    assert list(book.about("r1", 2)) == [answer]
    assert confirmation_line(answer) == "confirmation 1: run c1 repeats task 2 of run r1"
    answer.code_note = "with edits"
    assert confirmation_line(answer).endswith("repeats task 2 of run r1; with edits")
    refused = confirmation_line(request("f", 2, refusal="it is gone"))
    assert refused == "confirmation 2: refused, task 2 of run r1 does not run again: it is gone"


def test_the_book_is_bounded_and_counts_a_request_once() -> None:
    book = ConfirmationBook(most=3)
    for number in range(1, 6):
        book.apply(request("f", number))
        book.apply(request("f", number, run_id=f"c{number}"))
    assert [each.number for each in book.of("f")] == [3, 4, 5]
    assert book.of_run("c1") is None
    assert [each.number for each in book.newest()] == [5]
    assert book.count_since(4) == 2


def run(run_id: str, at: float, revision: str, seconds: float, source: str = "") -> list[events_pb2.Commit]:
    """A run of one case; `source`: the run that it repeats."""
    created = run_created(run_id, "bench", revision, callable_template("bench:load"))
    if source:
        created.confirmation.CopyFrom(events_pb2.Confirmation(finding_id="f", number=1, run_id=source))
    results = accepted((0, 0, PASSED, seconds), run_id=run_id, completed=[1])
    return [
        commit(at, created, tasks_submitted("load", run_id=run_id)),
        commit(at + 1, granted(0, run_id=run_id)),
        commit(at + 2, results, finished(run_id, passed=1)),
    ]


def test_a_replicate_is_of_its_revision_and_of_no_other_and_not_of_the_suite() -> None:
    commits = [
        commit(0, registered()),
        *run("a", 10, "rev1", 1.0),
        *run("b", 20, "rev1", 1.1, source="a"),
        *run("c", 30, "rev2", 1.2),
        *run("d", 40, "rev1", 1.3, source="a"),
    ]
    book, _ = search(commits, MemoryVault())
    own = book.get(SeriesKey("bench", "load", "duration_seconds", "local"))
    assert own is not None
    assert [(each.run_id, each.revision, each.task) for each in own.positions] == [
        ("a", "rev1", 0),
        ("b", "rev1", 0),
        ("c", "rev2", 0),
    ]
    suite = book.get(SeriesKey("bench", "", "busy_seconds", ""))
    assert suite is not None
    assert [each.run_id for each in suite.positions] == ["a", "c"]
