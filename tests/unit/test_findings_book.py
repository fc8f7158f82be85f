"""The fold of the analysis stream: newest versions, judgements, what is raised, and the points of the store."""

import numpy as np
import pytest
from numpy.typing import ArrayLike

from dtf.api.v1 import findings_pb2 as pb
from dtf.core.trend.changes.stream import ChangeStream
from dtf.core.trend.findings import ChangePoint
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.points import Unusable, Value
from dtf.core.trend.series import Series
from dtf.core.trend.series_points import SeriesKey, SeriesPoint
from dtf.core.trend.triage import RuleRecord
from tests.unit.changing_series import with_step

pytestmark = pytest.mark.trend_analyzer

STEP = pb.FINDING_KIND_STEP
SERIES = pb.FindingSeries(suite="s", metric="m")


def finding(
    identity: str = "a1", version: int = 1, confidence: float = 0.99, **rest: object
) -> pb.AnalysisEvent:
    """A confirmed step."""
    values: dict[str, object] = {
        "kind": STEP,
        "state": pb.FINDING_STATE_CONFIRMED,
        "impact": pb.FINDING_IMPACT_REGRESSION,
        "time_unix_nanos": 1000,
        **rest,
    }
    made = pb.Finding(
        finding_id=identity,
        version=version,
        confidence=confidence,
        rule_version=1,
        series=pb.FindingSeries(suite="s", case_name="c", metric="m", pool="p"),
        **values,  # type: ignore[arg-type]  # of the message's fields
    )
    return pb.AnalysisEvent(finding=made)


def triaged(identity: str, verdict: "pb.TriageVerdict.ValueType") -> pb.AnalysisEvent:
    """A judgement."""
    return pb.AnalysisEvent(
        finding_triaged=pb.FindingTriaged(finding_id=identity, verdict=verdict, reason="why")
    )


def book_of(*events: pb.AnalysisEvent) -> FindingsBook:
    """The fold of these events."""
    book = FindingsBook()
    for sequence, event in enumerate(events, start=1):
        book.apply(event, sequence)
    return book


def raised(book: FindingsBook) -> list[str]:
    """Identities of what is raised."""
    required = book.required_confidences()
    return [identity for identity, known in book.findings.items() if book.is_raised(known, required)]


def test_the_highest_version_counts_and_one_said_twice_changes_nothing() -> None:
    book = book_of(
        finding(version=2, level_after=5.0),
        finding(version=1, level_after=4.0),
        finding(version=2, level_after=6.0),
    )
    assert book.findings["a1"].finding.level_after == 5.0
    assert book.record_of(STEP).standing == 1


def test_what_went_away_was_rejected_or_muted_is_not_raised_and_what_was_accepted_is() -> None:
    book = book_of(
        finding("gone", state=pb.FINDING_STATE_WENT_AWAY),
        finding("no"),
        finding("quiet"),
        finding("yes"),
        finding("spike", kind=pb.FINDING_KIND_POINT),
        triaged("no", pb.TRIAGE_VERDICT_REJECTED),
        triaged("quiet", pb.TRIAGE_VERDICT_MUTED),
        triaged("yes", pb.TRIAGE_VERDICT_ACCEPTED),
    )
    assert raised(book) == ["yes"]
    book.apply(triaged("no", pb.TRIAGE_VERDICT_UNSPECIFIED), 9)
    assert raised(book) == ["no", "yes"]


def test_what_older_rules_found_is_not_raised_though_it_was_accepted() -> None:
    book = FindingsBook(rule_version=2)
    book.apply(finding("old"), 1)
    book.apply(triaged("old", pb.TRIAGE_VERDICT_ACCEPTED), 2)
    now = finding("now")
    now.finding.rule_version = 2
    book.apply(now, 3)
    assert raised(book) == ["now"]


def test_a_rule_whose_findings_are_rejected_needs_more_evidence() -> None:
    rejections = [
        each
        for number in range(8)
        for each in (finding(f"x{number}"), triaged(f"x{number}", pb.TRIAGE_VERDICT_REJECTED))
    ]
    book = book_of(*rejections, finding("weak", confidence=0.99), finding("sure", confidence=0.9999))
    assert book.record_of(STEP).precision == 0.0
    assert raised(book) == ["sure"]
    acceptances = [
        each
        for number in range(40)
        for each in (finding(f"y{number}"), triaged(f"y{number}", pb.TRIAGE_VERDICT_ACCEPTED))
    ]
    for sequence, event in enumerate(acceptances, start=100):
        book.apply(event, sequence)
    assert {"weak", "sure"} <= set(raised(book))


def test_precision_has_an_interval_that_narrows() -> None:
    few, many = RuleRecord(accepted=8, rejected=2), RuleRecord(accepted=80, rejected=20)
    assert few.precision == many.precision == 0.8
    assert few.precision_interval == pytest.approx((0.4901, 0.9433), abs=1e-3)
    assert many.precision_interval == pytest.approx((0.7112, 0.8666), abs=1e-3)
    assert RuleRecord(accepted=1).required_confidence == 0.0
    assert RuleRecord(rejected=10).required_confidence == pytest.approx(1 - 0.05 * (4 / 11) / 4)


def test_a_finding_that_moves_leaves_its_old_point_marked() -> None:
    book = book_of(finding(version=1), finding(version=2, time_unix_nanos=2000))
    (points,) = book.take()
    rows = points.as_dicts()
    assert [(row["time_ns"], row["state"]) for row in rows][-2:] == [(1000, "moved"), (2000, "confirmed")]


def test_only_the_newest_findings_are_known_and_those_that_went_away_are_forgotten_first() -> None:
    book = FindingsBook(most_findings=2)
    for sequence, event in enumerate(
        (finding("a"), finding("b", state=pb.FINDING_STATE_WENT_AWAY), finding("c"), finding("d")), 1
    ):
        book.apply(event, sequence)
    assert list(book.findings) == ["c", "d"]


@pytest.mark.parametrize(
    "event",
    [
        finding(""),
        pb.AnalysisEvent(points_imported=pb.PointsImported(times_unix_nanos=[1])),
        *(
            pb.AnalysisEvent(points_imported=pb.PointsImported(series=SERIES, **columns))  # type: ignore[arg-type]  # of the message
            for columns in (
                {"times_unix_nanos": [1, 2], "values": [1.0]},
                {"times_unix_nanos": [2, 2], "values": [1.0, 1.0]},
                {"times_unix_nanos": [1], "values": [1.0], "weights": [1.0, 1.0]},
                {"times_unix_nanos": [1], "values": [1.0], "weights": [0.0]},
                {"times_unix_nanos": [1], "values": [1.0], "weights": [float("nan")]},
                {"times_unix_nanos": [1], "values": [1.0], "revisions": ["a", "b"]},
            )
        ),
    ],
)
def test_what_nothing_can_be_made_of_changes_nothing(event: pb.AnalysisEvent) -> None:
    book = FindingsBook()
    with pytest.raises(Unusable):
        book.apply(event, 1)
    assert (book.findings, book.imports, book.take()) == ({}, [], [])


def test_a_finding_does_not_become_one_of_another_series() -> None:
    book = book_of(finding())
    other = finding(version=2)
    other.finding.series.suite = "another"
    with pytest.raises(Unusable, match="another series than it was"):
        book.apply(other, 2)


def test_kinds_states_and_impacts_of_a_later_version_are_kept_and_in_no_group() -> None:
    strange = [
        finding("kind", kind=99),
        finding("none", kind=0, time_unix_nanos=2000),
        finding("state", state=99),
        finding("impact", impact=99),
    ]
    rows = rows_of(book_of(*steps(0.4, 0.6), *strange))
    assert rows["kind"]["kind"] == "unknown"
    assert {name for name, row in rows.items() if row["group_kind"]} == {"f0", "f1"}


def test_a_judgement_of_what_nobody_knows_changes_nothing() -> None:
    book = book_of(triaged("none", pb.TRIAGE_VERDICT_REJECTED))
    assert (book.take(), book.record_of(STEP).rejected) == ([], 0)


def rows_of(book: FindingsBook) -> dict[str, dict[str, Value]]:
    """What would be written now, by finding."""
    return {str(row["finding"]): row for points in book.take() for row in points.as_dicts()}


def steps(*sizes: float, at: int = 40) -> list[pb.AnalysisEvent]:
    """A step of each case, all with one revision, of 2 s by so much."""
    made = []
    for number, size in enumerate(sizes):
        event = finding(
            f"f{number}",
            impact=pb.FINDING_IMPACT_REGRESSION if size > 0 else pb.FINDING_IMPACT_IMPROVEMENT,
            time_unix_nanos=at + number,
            revision_before=f"r{at - 1}",
            revision=f"r{at}",
            revision_last=f"r{at}",
            absolute=size,
            absolute_low=size - 0.05,
            absolute_high=size + 0.05,
            relative=size / 2,
            relative_low=size / 2,
            relative_high=size / 2,
            unit="s",
        )
        event.finding.series.case_name, event.finding.series.metric = f"c{number}", "duration_seconds"
        made.append(event)
    return made


def test_the_points_of_a_group_say_what_it_is_and_are_mended_when_it_changes() -> None:
    book = book_of(*steps(0.4, 0.6))
    rows = rows_of(book)
    assert [(row["finding_group"], row["group_kind"], row["group_count"]) for row in rows.values()] == [
        ("f0", "shared", 2),
        ("f0", "shared", 0),
    ]
    assert rows["f1"]["group_text"] == "with c0 duration_seconds (p)"
    assert rows["f0"]["group_relative"] == 0.25
    assert str(rows["f0"]["group_text"]).startswith("confirmed regression of 2 series, median +25 %")
    assert rows_of(book) == {}, "nothing is written twice"
    book.apply(steps(0.4, 0.6, 0.9)[2], 3)
    assert list(rows_of(book)) == ["f0", "f2"], "only the first speaks for all of them"
    book.apply(triaged("f2", pb.TRIAGE_VERDICT_REJECTED), 4)
    assert list(rows_of(book)) == ["f0", "f2"]
    book.apply(triaged("f1", pb.TRIAGE_VERDICT_REJECTED), 5)
    rows = rows_of(book)
    assert [
        (name, row["is_raised"], row["finding_group"], row["group_text"]) for name, row in rows.items()
    ] == [
        ("f0", True, "", ""),
        ("f1", False, "", ""),
    ], "what was rejected takes the other out of the group too"


def test_cost_that_moved_is_in_the_points_with_how_much() -> None:
    rows = rows_of(book_of(*steps(-1.0, 1.02)))
    assert [(row["group_kind"], row["group_moved"]) for row in rows.values()] == [
        ("moved", 1.0),
        ("moved", 0.0),
    ]
    assert "moved from c0 to c1" in str(rows["f0"]["group_text"])


def test_judgements_that_change_what_a_rule_needs_mend_the_points_of_its_other_findings() -> None:
    book = book_of(finding("weak"))
    assert rows_of(book)["weak"]["is_raised"] is True
    rejections = [
        each
        for number in range(8)
        for each in (finding(f"x{number}"), triaged(f"x{number}", pb.TRIAGE_VERDICT_REJECTED))
    ]
    for sequence, event in enumerate(rejections, start=2):
        if event.HasField("finding"):
            event.finding.series.suite = "another"
        book.apply(event, sequence)
    assert rows_of(book)["weak"]["is_raised"] is False


def test_a_finding_that_went_away_leaves_the_point_to_the_one_that_stands_there() -> None:
    book = book_of(finding("old"), finding("new"))
    assert len(book.take()) == 1
    book.apply(finding("old", version=2, state=pb.FINDING_STATE_WENT_AWAY), 3)
    ((row,),) = [points.as_dicts() for points in book.take()]
    assert (row["finding"], row["state"]) == ("new", "confirmed")


class WaveringStream(ChangeStream):
    """Finds late, takes back what it found, and finds it again at the same place."""

    _taken = 0

    @property
    def change_points(self) -> tuple[ChangePoint, ...]:
        """None while it wavers."""
        return super().change_points if 60 <= self._taken < 80 or self._taken >= 90 else ()

    def extend_to_news(
        self, times: ArrayLike, values: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[int, list[ChangePoint]]:
        """One value, which is always news."""
        super().extend_to_news(np.asarray(times)[:1], np.asarray(values)[:1], None)
        self._taken += 1
        return 1, list(super().change_points)


def test_an_imported_change_that_went_away_and_is_found_again_stands_again() -> None:
    key = SeriesKey("s", "c", "m", "imported")
    values = 100.0 + with_step("iid", 100, 3, at=50, size=8.0)
    series = Series(key, "s", True, changes=WaveringStream(lower_is_better=True))
    book, sequence = FindingsBook(), 0
    states = []
    for number, value in enumerate(values.tolist(), start=1):
        for said in series.append(SeriesPoint(key, "s", True, number * 10**9, value, 1.0, "", "", 0)):
            sequence += 1
            book.apply(pb.AnalysisEvent(finding=said), sequence)
            states.append(said.state)
    assert pb.FINDING_STATE_WENT_AWAY in states
    (standing,) = series.standing
    known = book.findings[standing.finding_id]
    assert known.finding.state == pb.FINDING_STATE_CONFIRMED
    assert raised(book) == [standing.finding_id]
