"""The gate: what is beyond the limits, what waits, and what it would take to pass; and findings in words."""

import html
from typing import Any

import pytest

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.core.trend.finding_text import relative_text, revisions_text, value_text
from dtf.core.trend.gating import GateRule, judge
from dtf.report.compare import render_comparison

pytestmark = pytest.mark.trend_analyzer

RULE = GateRule(0.05, {"*startup* duration_seconds": 0.5})
CONFIRMED, PROVISIONAL = findings_pb2.FINDING_STATE_CONFIRMED, findings_pb2.FINDING_STATE_PROVISIONAL
WORSE, BETTER = findings_pb2.FINDING_IMPACT_REGRESSION, findings_pb2.FINDING_IMPACT_IMPROVEMENT


def compared(
    name: str,
    relative: float,
    impact: "findings_pb2.FindingImpact.ValueType" = WORSE,
    state: "findings_pb2.FindingState.ValueType" = CONFIRMED,
    is_lower_better: bool = True,
) -> pb.SeriesComparison:
    """A series that changed by a share of its level, 2 s."""
    series = findings_pb2.FindingSeries(suite="s", case_name=name, metric="duration_seconds", pool="p")
    finding = findings_pb2.Finding(
        finding_id=f"id-{name}",
        series=series,
        unit="s",
        kind=findings_pb2.FINDING_KIND_STEP,
        state=state,
        impact=impact,
        level_before=2.0,
        level_after=2.0 * (1 + relative),
        relative=relative,
        relative_low=relative - 0.01,
        relative_high=relative + 0.01,
        revision_before="aaa",
        revision_last="bbb",
    )
    return pb.SeriesComparison(
        series=series,
        unit="s",
        is_lower_better=is_lower_better,
        base_count=1,
        base_value=2.0,
        head_count=1,
        head_value=2.0 * (1 + relative),
        impact=impact,
        relative=relative,
        relative_low=relative - 0.01,
        relative_high=relative + 0.01,
        findings=[pb.TrackedFinding(finding=finding, is_raised=True)],
    )


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (compared("case", 0.3), (1, 0, 0)),
        (compared("case", 0.04), (0, 0, 1)),
        (compared("case", -0.3, is_lower_better=False), (1, 0, 0)),
        (compared("case", -0.3, BETTER), (0, 0, 0)),
        (compared("case", 0.3, state=PROVISIONAL), (0, 1, 0)),
        (compared("test_startup[a]", 0.3), (0, 0, 1)),
        (compared("test_startup[a]", 0.6), (1, 0, 0)),
        (compared("case", float("nan")), (1, 0, 0)),
    ],
)
def test_what_is_confirmed_and_beyond_its_limit_is_a_breach(
    series: Any, expected: tuple[int, int, int]
) -> None:
    verdict = judge([series], RULE)
    assert (len(verdict.breaches), len(verdict.waiting), verdict.within) == expected
    assert verdict.is_passed == (expected[0] == 0)


def test_what_is_provisional_is_a_breach_where_that_is_asked_for() -> None:
    rule = GateRule(0.05, {}, fails_on_provisional=True)
    assert not judge([compared("case", 0.3, state=PROVISIONAL)], rule).is_passed


def test_a_breach_says_why_and_what_it_would_take_to_pass() -> None:
    (breach,) = judge([compared("case", 0.3)], RULE).breaches
    assert breach.sentence == (
        "case duration_seconds (p) +30 % (+29 % to +31 %) since aaa..bbb, confirmed; the limit is +5.0 %"
    )
    assert breach.remedies == [
        "bring it back to at most 2.1 s (now 2.6 s)",
        "or live with it: dtf trends mute id-case --reason …",
        "or, if it is a false alarm: dtf trends reject id-case --reason …",
    ]
    (fewer,) = judge([compared("case", -0.3, is_lower_better=False)], RULE).breaches
    assert fewer.remedies[0] == "bring it back to at least 1.9 s (now 1.4 s)"


def test_values_and_changes_have_units_and_no_more_digits_than_help() -> None:
    assert [value_text(value, "s") for value in (0.0000123, 0.0456, 1.234567)] == [
        "12.3 µs",
        "45.6 ms",
        "1.235 s",
    ]
    assert [
        value_text(value, unit) for value, unit in ((3 * 2**20, "bytes"), (512.0, "1/s"), (0.5, "1"))
    ] == [
        "3 MiB",
        "512 1/s",
        "0.5",
    ]
    assert [relative_text(value) for value in (0.3, -0.042, float("nan"))] == ["+30 %", "−4.2 %", "from 0"]
    known = findings_pb2.Finding(revision_before="a" * 40, revision_last="b" * 40)
    assert revisions_text(known) == f"{'a' * 12}..{'b' * 12}"
    assert revisions_text(findings_pb2.Finding(revision_last="b")) == "b"


@pytest.mark.parametrize("kind", ["text", "md", "html", "junit"])
def test_names_of_any_kind_break_no_report(kind: str) -> None:
    hostile = 'a|b`c<script>&"\x1b[31m\n</testcase>'
    response = pb.CompareRevisionsResponse(base="v1", head="v2", series=[compared(hostile, 0.3)])
    said = render_comparison(response, "s", kind)
    assert "\x1b" not in said
    assert "<script>" not in said or kind == "text"
    if kind == "md":
        assert any(line.startswith("| worse |") and line.count(" | ") == 5 for line in said.splitlines())


def test_markdown_of_hostile_names_is_text_alone() -> None:
    """No link, picture, emphasis or column comes of a case's name, and nobody is called; underscores of words stay."""
    hostile = "test_a::__init__[![x](http://e)*b*~c~ \\|@octocat #7 &lt;]"
    response = pb.CompareRevisionsResponse(base="v1", head="v2", series=[compared(hostile, 0.3)])
    (row,) = [line for line in render_comparison(response, "s", "md").splitlines() if "octocat" in line]
    name = row.split(" | ")[1]
    assert name.startswith("test_a::&#95;&#95;init&#95;&#95;&#91;&#33;&#91;x&#93;(http://e)&#42;b&#42;")
    assert "@<!-- -->octocat" in name
    assert html.unescape(name).replace("<!-- -->", "").startswith(hostile)
    assert row.count("|") == 7
