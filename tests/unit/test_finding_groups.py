"""What is one thing is told once: in lists, notices, comparisons and at the gate; and cost that moved is said to have."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dtf.adapters.memory_vault import MemoryVault
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.cli.main import run_cli
from dtf.cli.trends_list_command import entries, finding_document
from dtf.core.trend.finding_groups import group_findings, groups_by_finding
from dtf.core.trend.findings_book import FindingsBook
from dtf.core.trend.gating import GateRule, GateVerdict, judge
from dtf.core.trend.group_text import group_sentence
from dtf.core.trend.series_book import SeriesBook
from dtf.core.trend.series_points import SeriesKey, SeriesPoint
from dtf.report.compare import render_comparison
from dtf.trend_analyzer.notices import make_notice
from tests.trend_histories import noise, stepped

pytestmark = pytest.mark.trend_analyzer

STATES = findings_pb2.FindingState
WORSE, BETTER = findings_pb2.FINDING_IMPACT_REGRESSION, findings_pb2.FINDING_IMPACT_IMPROVEMENT
RUN_NS = 1_000_000_000


def finding(
    case: str,
    absolute: float,
    at: int = 40,
    *,
    first: int | None = None,
    last: int | None = None,
    metric: str = "duration_seconds",
    suite: str = "s",
    revisions: bool = True,
    **rest: Any,
) -> findings_pb2.Finding:
    """A confirmed change of 2 s by so much, known to a tenth, at one of the runs that each had a revision."""
    first, last = at if first is None else first, at if last is None else last
    reach = 0.1 * abs(absolute)
    values: dict[str, Any] = {"state": STATES.FINDING_STATE_CONFIRMED, "unit": "s", **rest}
    if revisions:
        values |= {"revision_before": f"r{first - 1}", "revision": f"r{at}", "revision_last": f"r{last}"}
    return findings_pb2.Finding(
        finding_id=f"id-{case or suite}-{metric[0]}{at}",
        version=1,
        series=findings_pb2.FindingSeries(
            suite=suite, case_name=case, metric=metric, pool="p" if case else ""
        ),
        kind=findings_pb2.FINDING_KIND_STEP,
        impact=WORSE if absolute > 0 else BETTER,
        index=at,
        first_index=first,
        last_index=last,
        time_unix_nanos=at * RUN_NS + len(case),
        before_unix_nanos=(first - 1) * RUN_NS + len(case),
        last_unix_nanos=last * RUN_NS + len(case),
        run_id=f"run{at}",
        level_before=2.0,
        level_after=2.0 + absolute,
        absolute=absolute,
        absolute_low=absolute - reach,
        absolute_high=absolute + reach,
        relative=absolute / 2,
        relative_low=(absolute - reach) / 2,
        relative_high=(absolute + reach) / 2,
        confidence=0.999,
        **values,
    )


def tracked(
    found: findings_pb2.Finding,
    verdict: "findings_pb2.TriageVerdict.ValueType" = findings_pb2.TRIAGE_VERDICT_UNSPECIFIED,
) -> pb.TrackedFinding:
    """The finding, raised."""
    triage = findings_pb2.FindingTriaged(finding_id=found.finding_id, verdict=verdict) if verdict else None
    return pb.TrackedFinding(finding=found, triage=triage, is_raised=True)


def compared(*findings: findings_pb2.Finding | pb.TrackedFinding) -> pb.CompareRevisionsResponse:
    """A comparison in which each series has this one change."""
    response = pb.CompareRevisionsResponse(base="r1", head="r99")
    for each in findings:
        one = each if isinstance(each, pb.TrackedFinding) else tracked(each)
        found = one.finding
        response.series.append(
            pb.SeriesComparison(
                series=found.series,
                unit="s",
                is_lower_better=True,
                base_count=1,
                base_value=found.level_before,
                head_count=1,
                head_value=found.level_after,
                impact=found.impact,
                absolute=found.absolute,
                relative=found.relative,
                relative_low=found.relative_low,
                relative_high=found.relative_high,
                findings=[one],
            )
        )
    return response


def gate(*findings: findings_pb2.Finding | pb.TrackedFinding) -> GateVerdict:
    """What the gate says of these."""
    return judge(compared(*findings).series, GateRule(0.05, {}))


def members(findings: Sequence[findings_pb2.Finding]) -> list[set[str]]:
    """Cases of each group."""
    return [{each.series.case_name for each in group.findings} for group in group_findings(findings)]


SHARED = [
    finding("a", 0.4),
    finding("b", 0.6, 41, first=39, last=42),
    finding("c", 1.0, 40, first=40, last=43),
]
MOVED = [finding("parse", -1.0), finding("setup", 1.02)]


def test_changes_that_a_revision_explains_are_one_whose_place_is_what_they_have_in_common() -> None:
    (group,) = group_findings([*SHARED, finding("alone", 0.5, 60)])
    assert {each.series.case_name for each in group.findings} == {"a", "b", "c"}
    assert not group.is_moved
    assert group_sentence(group) == (
        "confirmed regression of 3 series, median +30 %, since r39..r40; "
        "the largest: c duration_seconds (p) +50 % (+45 % to +55 %), 2 s → 3 s [id-c-d40]"
    )


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        pytest.param([finding("a", 0.4), finding("b", 0.4, 41)], [], id="next revision"),
        pytest.param([finding("a", 0.4), finding("b", 0.4, suite="other")], [], id="other suite"),
        pytest.param([finding("a", 1.0), finding("b", -0.1)], [], id="other direction"),
        pytest.param(
            [finding("a", 0.4), finding("b", 0.4, 43, first=42, last=44), finding("c", 0.4, 41, first=40, last=42)],
            [{"a", "c"}],
            id="end of an interval at which nothing was seen",
        ),
        pytest.param(
            [finding("a", 0.4, 40, first=40, last=42), finding("b", 0.4, 43, first=42, last=44)],
            [{"a", "b"}],
            id="intervals that meet where nothing was seen",
        ),
        pytest.param(
            [finding("a", 0.4, revisions=False), finding("b", 0.4, revisions=False)], [{"a", "b"}], id="one run"
        ),
        pytest.param(
            [finding("a", 0.4, revisions=False), finding("b", 0.4, 41, revisions=False)], [], id="two runs"
        ),
        pytest.param(
            [finding("a", 0.4), finding("b", 0.4, state=STATES.FINDING_STATE_WENT_AWAY)], [], id="went away"
        ),
    ],
)  # fmt: skip
def test_what_is_taken_for_one_change(findings: list[findings_pb2.Finding], expected: list[set[str]]) -> None:
    assert members(findings) == expected
    assert members(findings[::-1]) == expected


def test_cost_that_moved_is_said_to_have_moved_unless_the_suite_changed() -> None:
    (group,) = group_findings([*MOVED, finding("", 0.8, 70, metric="busy_seconds")])
    assert group_sentence(group) == (
        "confirmed: 1 s of duration_seconds (p) moved from parse to setup since r39..r40; "
        "together -123 ms to 163 ms, the suite did not change"
    )
    assert not any(
        each.is_moved for each in group_findings([*MOVED, finding("", 0.8, metric="busy_seconds")])
    )


WRITTEN: dict[str, Any] = {"metric": "written_bytes", "unit": "bytes", "is_lower_better": True}


@pytest.mark.parametrize(
    ("rest", "is_moved"),
    [
        (WRITTEN, True),
        ({**WRITTEN, "metric": "allocations", "unit": "count"}, True),
        ({**WRITTEN, "unit": "s"}, False),
        ({**WRITTEN, "metric": "peak_memory_bytes"}, False),
        ({**WRITTEN, "metric": "written.p99"}, False),
        ({**WRITTEN, "is_lower_better": False}, False),
        ({"metric": "written_bytes", "unit": "bytes"}, False),
    ],
    ids=lambda each: " ".join(map(str, each.values())) if isinstance(each, dict) else None,
)
def test_other_costs_that_add_up_move_too(rest: dict[str, Any], is_moved: bool) -> None:
    groups = group_findings([finding("parse", -1000.0, **rest), finding("setup", 1020.0, **rest)])
    assert [group.is_moved for group in groups] == [True] * is_moved


def test_what_moved_without_a_series_of_the_sum_is_told_and_counts() -> None:
    moved = [finding("parse", -1000.0, **WRITTEN), finding("setup", 1020.0, **WRITTEN)]
    (group,) = group_findings(moved)
    assert group_sentence(group).startswith(
        "confirmed: 1000 B of written_bytes (p) moved from parse to setup since r39..r40; together "
    )
    assert group_sentence(group).endswith("; the suite has no series of the sum")
    (breach,) = gate(*moved).breaches
    assert breach.sentence.endswith(
        "moved from parse to setup, and no series of the suite says that the sum stayed"
    )
    assert make_notice(moved).title == "dtf: 1 became worse, 1 became better in s"
    root = ElementTree.fromstring(render_comparison(compared(*moved), "s", "junit"))
    assert len(root.findall(".//failure")) == 1


def test_a_list_has_a_line_for_a_group_and_each_of_its_findings_where_that_is_asked_for() -> None:
    findings = [
        tracked(each) for each in (*SHARED, *(finding(c, a, 70) for c, a in (("p", -1.0), ("q", 1.0))))
    ]
    findings.append(tracked(finding("alone", 0.5, 60)))
    groups = groups_by_finding(group_findings(each.finding for each in findings))
    short = list(entries(findings, groups, with_members=False))
    assert [lines[0].split("  ")[0] for lines in short] == ["3 series", "2 series", "id-alone-d60"]
    assert "moved from p to q" in short[1][0]
    everything = "\n".join(line for lines in entries(findings, groups, with_members=True) for line in lines)
    assert all(each.finding.finding_id in everything for each in findings)
    document: Any = finding_document(findings[0], groups["id-a-d40"])
    assert document["finding"]["finding_id"] == "id-a-d40"
    assert document["group"]["kind"] == "shared"
    assert sorted(document["group"]["finding_ids"]) == ["id-a-d40", "id-b-d41", "id-c-d40"]


def test_findings_of_several_suites_say_which() -> None:
    findings = [tracked(each) for each in (*SHARED, finding("alone", 0.5, 60, suite="other"))]
    groups = groups_by_finding(group_findings(each.finding for each in findings))
    heads = [lines[0] for lines in entries(findings, groups, with_members=False)]
    assert [head.rpartition(" in ")[2] for head in heads] == ["s", "other"]


def test_a_notice_has_a_line_for_a_group_and_does_not_call_moved_cost_worse() -> None:
    notice = make_notice([*SHARED, finding("setup", 1.0, 70)], [*SHARED, finding("parse", -1.0, 70)])
    assert notice.title == "dtf: 3 became worse, cost moved in s"
    assert len(notice.lines) == 2
    assert notice.lines[0].startswith("confirmed regression of 3 series, median +30 %, since r39..r40")
    assert "moved from parse to setup" in notice.lines[1]
    assert notice.lines[1].endswith("[id-setup-d70]")
    assert len(notice.findings) == 4
    unsure = finding("parse", -1.0, 70, state=STATES.FINDING_STATE_PROVISIONAL)
    assert make_notice([finding("setup", 1.0, 70)], [unsure]).title == "dtf: 1 became worse in s"
    late = make_notice(SHARED[:1], SHARED)
    assert late.lines == [make_notice(SHARED[:1]).lines[0]], "what was told before is not told again"


def test_the_gate_names_moved_cost_and_passes() -> None:
    verdict = gate(*MOVED)
    assert verdict.is_passed
    (moved,) = verdict.moved
    assert moved.sentence.endswith("; 1 s of duration_seconds (p) moved from parse to setup")


def test_the_gate_counts_moved_cost_that_is_not_sure_was_accepted_or_is_not_all() -> None:
    doubtful = gate(finding("parse", -1.0, state=STATES.FINDING_STATE_PROVISIONAL), MOVED[1])
    assert [breach.sentence.rsplit(", ", 1)[1] for breach in doubtful.breaches] == ["which is not confirmed"]
    assert not gate(MOVED[0], tracked(MOVED[1], findings_pb2.TRIAGE_VERDICT_ACCEPTED)).is_passed
    both = compared(*MOVED)
    both.series[1].findings.append(tracked(finding("setup", 0.5, 60)))
    assert len(judge(both.series, GateRule(0.05, {})).breaches) == 1
    assert judge(both.series, GateRule(0.3, {})).is_passed
    assert len(gate(*SHARED).breaches) == 3, "each series of a shared change is judged"


def test_a_comparison_tells_groups_once_and_the_series_behind_them_where_there_is_room() -> None:
    response = compared(*SHARED, *(finding(case, by, 70) for case, by in (("p", -1.0), ("q", 1.0))))
    text = render_comparison(response, "s", "text").splitlines()
    assert text[0].endswith("3 worse, 2 moved, 0 without a change of 5 series")
    assert [line.split()[0] for line in text[1:]] == ["worse", "moved"]
    assert "q duration_seconds (p)" in render_comparison(response, "s", "text", shows_each=True)
    folded = render_comparison(response, "s", "md")
    assert (
        folded.index("- **moved** confirmed: 1 s") < folded.index("<details>") < folded.index("| worse | a ")
    )
    assert [each["kind"] for each in json.loads(render_comparison(response, "s", "json"))["groups"]] == [
        "shared",
        "moved",
    ]
    assert "<li><b>moved</b> confirmed: 1 s" in render_comparison(response, "s", "html")
    suites = ElementTree.fromstring(render_comparison(response, "s", "junit"))
    failed = [case.get("name", "")[0] for case in suites.iter("testcase") if case.find("failure") is not None]
    assert failed == ["a", "b", "c"]


def test_cost_that_moves_between_real_series_is_found_as_their_points_come() -> None:
    series = {
        ("parse", "duration_seconds", "p"): stepped(noise(21, 70, 0.6, 0.006), 40, -0.2),
        ("setup", "duration_seconds", "p"): stepped(noise(22, 70, 0.4, 0.006), 40, 0.2),
        ("", "busy_seconds", ""): noise(23, 70, 1.0, 0.01),
    }
    book, known = SeriesBook(MemoryVault()), FindingsBook()
    for number in range(70):
        for place, ((case, metric, pool), values) in enumerate(series.items()):
            key = SeriesKey("s", case, metric, pool)
            time_ns = (number + 1) * RUN_NS + place
            revision = f"v{number:02d}"
            point = SeriesPoint(key, "s", True, time_ns, values[number], 1.0, f"r{number}", revision, number)
            for found in book.append(point):
                known.apply(findings_pb2.AnalysisEvent(finding=found), known.sequence + 1)
    required = known.required_confidences()
    raised = [each.finding for each in known.findings.values() if known.is_raised(each, required)]
    assert all(0 < each.before_unix_nanos < each.time_unix_nanos <= each.last_unix_nanos for each in raised)
    (group,) = group_findings(raised)
    assert group.is_confirmed
    assert "moved from parse to setup since v39..v40" in group_sentence(group)


class Analyzer:
    """Answers the commands as the service would."""

    call: Mapping[str, Any] = {}

    def __init__(self, *findings: findings_pb2.Finding) -> None:
        self.stub = self
        self._findings = findings

    async def settle(self) -> None:
        """Everything was searched."""

    async def ListFindings(self, request: pb.ListFindingsRequest) -> pb.ListFindingsResponse:
        """A finding a page."""
        asked = [each for each in self._findings if request.case_name in ("", each.series.case_name)]
        place = int(request.page_token or 0)
        following = place + 1
        return pb.ListFindingsResponse(
            findings=[tracked(asked[place])],
            next_page_token=str(following) if following < len(asked) else "",
        )

    async def ListSeries(self, _request: pb.ListSeriesRequest) -> pb.ListSeriesResponse:
        """One of each finding."""
        names = [each.series for each in self._findings]
        return pb.ListSeriesResponse(
            series=[
                pb.SeriesKey(suite=each.suite, case_name=each.case_name, metric=each.metric) for each in names
            ]
        )

    async def QuerySeries(self, _request: pb.QuerySeriesRequest) -> pb.QuerySeriesResponse:
        """A hundred runs."""
        points = [pb.SeriesPoint(time_at=float(at), value=2.0, run_id=f"run{at}") for at in range(100)]
        return pb.QuerySeriesResponse(points=points)

    async def CountSeries(self, _request: pb.CountSeriesRequest) -> pb.CountSeriesResponse:
        """None is short."""
        return pb.CountSeriesResponse(series_count=8, least_point_count=12)

    async def CompareRevisions(self, _request: pb.CompareRevisionsRequest) -> pb.CompareRevisionsResponse:
        """All of them lie between."""
        return compared(*self._findings)

    def ask(self, _invocation: object, ask: Callable[["Analyzer"], Awaitable[Any]]) -> Any:
        """In the place of `ask_analyzer`."""
        return asyncio.run(self._ask(ask))

    async def _ask(self, ask: Callable[["Analyzer"], Awaitable[Any]]) -> Any:
        return await ask(self)


def test_the_commands_tell_groups_by_all_series_and_let_moved_cost_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    analyzer = Analyzer(*MOVED, *(finding(each.series.case_name, 0.4, 60) for each in SHARED))
    for command in ("trends_list_command", "trends_show_command", "gate_command", "report_comparison"):
        monkeypatch.setattr(f"dtf.cli.{command}.ask_analyzer", analyzer.ask)

    def said(*arguments: str, code: int = ExitCode.OK) -> list[str]:
        assert run_cli(["--project", str(tmp_path), *arguments]) == code
        return capsys.readouterr().out.splitlines()

    assert [line.split("  ")[0] for line in said("trends")[::2]] == ["2 series", "3 series"]
    assert "moved from parse to setup" in said("trends", "list", "--case", "setup")[0]
    *documents, history = [json.loads(line) for line in said("trends", "list", "--json")]
    counts = {"series": 8, "short": 0, "least_points": 12, "together_limit": 0, "orphans": 0}
    assert history == {"history": {**counts, "sentence": ""}}
    assert [each["group"]["kind"] for each in documents] == ["moved"] * 2 + ["shared"] * 3
    assert "    with others: confirmed: 1 s of duration_seconds (p) moved from parse to setup" in "\n".join(
        said("trends", "show", "setup")
    )
    document = json.loads("\n".join(said("trends", "show", "setup", "--json")))
    assert document["findings"][0]["group"]["kind"] == "moved"
    judged = said("gate", code=ExitCode.REGRESSED)
    assert len([line for line in judged if line.startswith("regression ")]) == 3
    assert [line for line in judged if line.startswith("moved ") and line.endswith(": does not count")]
    document = json.loads("\n".join(said("gate", "--max-regression", "0.3", "--json")))
    assert document["is_passed"]
    assert [each["group"]["kind"] for each in document["moved"]] == ["moved"]
    assert len(said("report", "--compare", "..")) == 3
    assert len(said("report", "--compare", "..", "--all")) == 3 + 2 * 5
