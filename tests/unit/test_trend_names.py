"""Names of series: the same in every store, and never too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.adapters.influx_lines import lines
from dtf.api.v1 import common_pb2, findings_pb2, scaling_pb2, worker_service_pb2
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import LONGEST_NAME, NameBook, SeriesRule, series_name
from dtf.core.trend.record_folds import ScalingFold, TelemetryFold
from tests.trend_events import (
    PASSED,
    accepted,
    callable_template,
    commit,
    finished,
    granted,
    pytest_template,
    registered,
    run_created,
    shard_submitted,
)

pytestmark = pytest.mark.trend_analyzer


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tests/test_a.py::test_x[1, b=2]", "tests/test_a.py::test_x[1, b=2]"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        (" blanks around ", "blanks around"),
        ("ends in a backslash\\", "ends in a backslash"),
        ("", "(unnamed)"),
        ("\n", "(unnamed)"),
        ("\\", "(unnamed)"),
        ("ä🐍", "ä🐍"),
    ],
)
def test_a_name_is_cleaned_of_what_a_store_cannot_write(name: str, expected: str) -> None:
    assert series_name(name) == expected


@given(st.text())
def test_a_cleaned_name_can_be_written_and_stays_as_it_is(name: str) -> None:
    cleaned = series_name(name)
    assert cleaned
    assert not cleaned.endswith("\\")
    assert "\n" not in cleaned
    cleaned.encode()
    assert series_name(cleaned) == cleaned


def test_long_names_are_cut_and_stay_different() -> None:
    first, second = (series_name("x" * 3_000 + end) for end in "ab")
    assert len(first) == LONGEST_NAME
    assert first != second


def test_a_book_admits_names_until_it_is_full_and_those_it_knows_for_ever() -> None:
    book = NameBook([("suite", "known")])
    assert book.admit("suite", "new", 2)
    assert not book.admit("suite", "too many", 2)
    assert book.admit("suite", "known", 2)
    assert book.admit("suite", "new", 2)
    assert book.admit("other", "too many", 2)


def test_all_suites_together_have_a_bounded_number_of_names() -> None:
    book = NameBook([("old", "a")], most_in_all=3)
    assert [book.admit(f"suite{number}", "new", 10) for number in range(3)] == [True, True, False]
    assert book.admit("old", "a", 10)
    assert not book.admit("old", "b", 10)
    assert book.share_used == 1.0


def test_suites_and_metrics_are_bounded_and_those_known_stay() -> None:
    book = NameBook([("old", "a")], metrics=[("old", "mean")], most_suites=2, most_metrics=2)
    assert [book.suite_of(name) for name in ("new", "third", "old", "new")] == [
        "new",
        "(other)",
        "old",
        "new",
    ]
    assert [book.metric_of("old", name) for name in ("max", "min", "mean")] == ["max", "(other)", "mean"]
    assert book.metric_of("new", "min") == "min"


def test_no_name_of_a_suite_or_a_pool_is_a_line_of_its_own_in_the_store() -> None:
    """A suite is named by whoever submits, a pool by whoever joins: neither may write points as they like."""
    forged = "a\nfleet workers=99i 1"
    fold = LogFold(NameBook())
    story = [
        commit(0, registered(pool=forged), run_created(suite=forged), shard_submitted("c")),
        commit(1, granted(0)),
        commit(2, accepted((0, 0, PASSED, 1.0), completed=[1]), finished(passed=1)),
    ]
    for sequence, each in enumerate(story, start=1):
        fold.apply(each, sequence)
    telemetry, scaling = TelemetryFold(), ScalingFold()
    telemetry.apply(worker_service_pb2.TelemetrySample(worker_id="w", pool=forged, heard_unix_nanos=1), 1)
    scaling.apply(scaling_pb2.ScalingDecision(pool=forged), 1)
    book = FindingsBook()
    finding = findings_pb2.Finding(finding_id="f", series=findings_pb2.FindingSeries(suite=forged))
    book.apply(findings_pb2.AnalysisEvent(finding=finding), 1)  # as a stranger's
    taken = [*fold.take(), *telemetry.take(), *scaling.take(), *book.take()]
    written = [line for points in taken for line in lines(points)]
    assert {line.split(",")[0].split(" ")[0] for line in written} >= {"cases", "runs", "workers", "findings"}
    assert not [line for line in written if "\n" in line]
    named = {
        row[tag]
        for points in taken[:-1]
        for row in points.as_dicts()
        for tag in ("suite", "pool")
        if tag in row
    }
    assert named == {"a fleet workers=99i 1"}, "in every store alike"


def test_groups_are_bounded_as_well() -> None:
    book = NameBook(most_in_all=2)
    assert [book.series_of("s", f"n{number}", 1, f"g{number}") for number in range(3)] == [
        "n0",
        "g1",
        "(other)",
    ]


def test_what_a_book_does_not_admit_goes_by_its_group() -> None:
    book = NameBook()
    assert book.series_of("suite", "one", 1, "group") == "one"
    assert book.series_of("suite", "two", 1, "group") == "group"


@pytest.mark.parametrize(
    ("template", "name", "expected"),
    [
        (callable_template("bench:noop"), "noop 17", "bench:noop"),
        (pytest_template(), "tests/t.py::test_x[0x7f31]", "tests/t.py::test_x"),
        (
            common_pb2.TaskTemplate(command=common_pb2.CommandSpec(argv=["/usr/bin/make", "-C", "x"])),
            "make -C x",
            "make",
        ),
        (common_pb2.TaskTemplate(command=common_pb2.CommandSpec()), "./bench --case 1", "./bench"),
    ],
)
def test_a_group_is_what_its_cases_have_in_common(
    template: common_pb2.TaskTemplate, name: str, expected: str
) -> None:
    assert SeriesRule.of(template).group_of(name) == expected
