"""What was said of a finding is said of the one that stands in its place after the rules, or its place, became others."""

import pytest

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.succession import Succession

pytestmark = pytest.mark.trend_analyzer

STEP, DRIFT, VARIANCE = pb.FINDING_KIND_STEP, pb.FINDING_KIND_DRIFT, pb.FINDING_KIND_VARIANCE
GONE = pb.FINDING_STATE_WENT_AWAY
REJECTED, ACCEPTED, MUTED = (
    pb.TRIAGE_VERDICT_REJECTED,
    pb.TRIAGE_VERDICT_ACCEPTED,
    pb.TRIAGE_VERDICT_MUTED,
)


def finding(identity: str, index: int = 60, rules: int = 1, **rest: object) -> pb.AnalysisEvent:
    """A confirmed step up whose place is known to the position; position n is at n nanoseconds."""
    values: dict[str, object] = {
        "version": 1,
        "kind": STEP,
        "state": pb.FINDING_STATE_CONFIRMED,
        "impact": pb.FINDING_IMPACT_REGRESSION,
        "confidence": 0.999,
        "absolute": 1.0,
        "index": index,
        "time_unix_nanos": index,
        "before_unix_nanos": index - 1,
        "last_unix_nanos": index,
        "series": pb.FindingSeries(suite="s", case_name="c", metric="m", pool="p"),
        **rest,
    }
    made = pb.Finding(finding_id=identity, rule_version=rules, **values)  # type: ignore[arg-type]  # of the message's fields
    return pb.AnalysisEvent(finding=made)


def judged(identity: str, verdict: "pb.TriageVerdict.ValueType", at: int = 1) -> pb.AnalysisEvent:
    """A judgement."""
    return pb.AnalysisEvent(
        finding_triaged=pb.FindingTriaged(
            finding_id=identity, verdict=verdict, reason="why", now_unix_nanos=at
        )
    )


def told(*identities: str) -> pb.AnalysisEvent:
    """A notice."""
    return pb.AnalysisEvent(
        findings_notified=pb.FindingsNotified(channel="slack confirmed", finding_ids=identities)
    )


def book_of(*events: pb.AnalysisEvent) -> FindingsBook:
    """The fold of these events by rules of version 2."""
    book = FindingsBook(rule_version=2)
    for sequence, event in enumerate(events, start=1):
        book.apply(event, sequence)
    return book


def followed(book: FindingsBook) -> FindingsBook:
    """The same once what it says of successors is on the stream."""
    for found in book.successions():
        event = pb.FindingSucceeded(finding_id=found.finding_id, successor_id=found.successor_id)
        book.apply(pb.AnalysisEvent(finding_succeeded=event), book.sequence + 1)
    return book


@pytest.mark.parametrize(
    "now",
    [
        finding("new", 61, 2),
        finding("new", 63, 2),
        finding("new", 58, 2, kind=DRIFT, before_unix_nanos=40, last_unix_nanos=75),
        finding("new", 70, 2, kind=DRIFT, before_unix_nanos=50, last_unix_nanos=75),
        finding("new", 60, 2, state=pb.FINDING_STATE_PROVISIONAL),
    ],
)
def test_a_judgement_follows_to_what_other_rules_find_in_the_same_place(now: pb.AnalysisEvent) -> None:
    book = book_of(finding("old"), judged("old", REJECTED), now)
    assert book.successions() == [Succession("old", "new")]
    known = followed(book).findings["new"]
    assert (known.verdict, known.triage and known.triage.finding_id) == (REJECTED, "old")
    assert not book.is_raised(known, book.required_confidences())
    assert (book.successions(), book.orphans()) == ([], [])
    assert book.followed(book.findings["old"]) is known
    assert sum(book.record_of(kind).rejected for kind in (STEP, DRIFT)) == 1, "a judgement counts once"
    assert book.record_of(now.finding.kind).rejected == 1, "and for the rule that finds it now"


@pytest.mark.parametrize(
    "now",
    [
        finding("new", 64, 2),
        finding("new", 60, 2, absolute=-1.0),
        finding("new", 60, 2, kind=VARIANCE),
        finding("new", 60, 2, state=GONE),
        finding("new", 60, 1),
        finding("new", 60, 2, series=pb.FindingSeries(suite="s", case_name="c", metric="m", pool="q")),
    ],
)
def test_a_judgement_of_what_is_not_found_again_is_an_orphan_and_still_counts(now: pb.AnalysisEvent) -> None:
    book = followed(book_of(finding("old"), judged("old", ACCEPTED), now))
    assert [known.finding.finding_id for known in book.orphans()] == ["old"]
    assert book.findings["new"].triage is None
    assert (book.record_of(STEP).accepted, book.record_of(STEP).standing) == (
        1,
        int(now.finding.kind == STEP and now.finding.rule_version == 2 and now.finding.state != GONE),
    )


def test_what_was_taken_back_or_had_gone_away_before_is_no_orphan() -> None:
    book = book_of(
        finding("undone"),
        judged("undone", REJECTED),
        judged("undone", pb.TRIAGE_VERDICT_UNSPECIFIED),
        finding("gone", 90, state=GONE),
        judged("gone", REJECTED),
    )
    assert (book.successions(), book.orphans()) == ([], [])


def test_of_two_in_one_place_each_takes_its_nearest_and_one_that_is_left_shares_it() -> None:
    book = book_of(
        finding("a", 60),
        finding("b", 62),
        finding("c", 63),
        judged("a", REJECTED, at=1),
        judged("b", MUTED, at=2),
        judged("c", ACCEPTED, at=3),
        finding("x", 61, 2),
        finding("y", 63, 2),
    )
    assert sorted(book.successions()) == [("a", "x"), ("b", "x"), ("c", "y")]
    followed(book)
    assert (book.findings["x"].verdict, book.findings["y"].verdict) == (MUTED, ACCEPTED), (
        "the last one counts"
    )
    assert (book.record_of(STEP).accepted, book.record_of(STEP).rejected) == (1, 0)


def test_a_judgement_follows_a_change_that_moves_on_and_comes_back() -> None:
    book = followed(book_of(finding("old"), judged("old", REJECTED), finding("x", 61, 2)))
    book.apply(finding("x", 61, 2, version=2, state=GONE, is_moved=True), 10)
    book.apply(finding("y", 63, 2), 11)
    followed(book)
    assert book.followed(book.findings["old"]).finding.finding_id == "y"
    book.apply(finding("y", 63, 2, version=2, state=GONE, is_moved=True), 20)
    book.apply(finding("x", 61, 2, version=3), 21)
    followed(book)
    assert book.followed(book.findings["y"]).finding.finding_id == "x"
    assert (book.findings["x"].verdict, book.record_of(STEP).rejected) == (REJECTED, 1)


def test_what_a_person_says_of_the_successor_counts_and_what_is_told_is_not_told_again() -> None:
    book = book_of(finding("old"), judged("old", REJECTED, at=1), told("old"), finding("new", 61, 2))
    book.apply(judged("new", ACCEPTED, at=2), 9)
    followed(book)
    assert (book.findings["new"].verdict, book.findings["new"].notified) == (ACCEPTED, {"slack confirmed"})
    assert (book.record_of(STEP).accepted, book.record_of(STEP).rejected) == (1, 0)


def test_what_people_judged_is_forgotten_last() -> None:
    book = FindingsBook(most_findings=2)
    for sequence, event in enumerate(
        (finding("a"), judged("a", MUTED), finding("b"), finding("c"), finding("d", state=GONE)), 1
    ):
        book.apply(event, sequence)
    assert list(book.findings) == ["a", "c"]
