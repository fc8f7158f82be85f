"""What reports say, and that nothing hostile in a run gets out of the page's text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dtf.api.v1 import (
    analysis_service_pb2,
    common_pb2,
    events_pb2,
    findings_pb2,
    fleet_service_pb2,
    scaling_pb2,
)
from dtf.core.run.pool_summary import PoolSummary, ScaleMark
from dtf.core.run.summary import Bar
from dtf.report.axis import round_step, tick_text, ticks
from dtf.report.document import report_document
from dtf.report.gather import RunReport
from dtf.report.lanes import LANES_LIMIT, lay_out, shown
from dtf.report.output import PART_CHARACTERS_LIMIT, longrepr_text, output_parts, plain
from dtf.report.page import render_page
from dtf.report.text import summary_lines, verdict_sentence
from dtf.report.timeline import draw_timeline
from dtf.report.wording import bytes_text, change_text, seconds_text
from tests.unit.run_events import BEGIN_NS, FAILED, FLAKY, PASSED, SECOND, RunStory

HOSTILE = "</pre></svg><script>alert(1)</script>\x00\x1b[31m\"'&\ud800"


def report_of(story: RunStory, workers: int = 1) -> RunReport:
    """A report of a finished run on workers w1, w2, …"""
    pool = PoolSummary()
    pool.begin(BEGIN_NS, [f"w{k + 1}" for k in range(workers)])
    report = RunReport(story.summary, pool)
    report.workers = [
        fleet_service_pb2.Worker(worker_id=f"w{k + 1}", slots=1, host="box") for k in range(workers)
    ]
    return report


def history(name: str, *, ratio: float, unusual: bool) -> analysis_service_pb2.CaseComparison:
    """A case beside five earlier runs of 1 s."""
    return analysis_service_pb2.CaseComparison(
        case_name=name,
        duration_seconds=ratio,
        ratio=ratio,
        is_unusual=unusual,
        recent_seconds=[1.0, 1.0, ratio],
        history=analysis_service_pb2.CaseStatistics(count=5, median_seconds=1.0, mad_seconds=0.01),
    )


def mixed_story() -> RunStory:
    """One passes, one fails, one is flaky."""
    detail = events_pb2.CaseDetail(message="OSError: [Errno 18]", output_tail="copying\n")
    story = RunStory().begin("ok", "bad", "wobbly")
    story.wait(1).lease("w1", 0, 1).wait(2).result("w1", 0, 1, seconds=2.0)
    story.lease("w1", 1, 2).wait(1).result("w1", 1, 2, FAILED, seconds=1.0, detail=detail)
    story.lease("w1", 2, 3).result("w1", 2, 3, FAILED, seconds=0.1, detail=detail, is_retried=True)
    story.lease("w1", 2, 4, 2).wait(1).result("w1", 2, 4, FLAKY, seconds=0.9)
    return story.wait(1).finish(passed=1, failed=1, flaky=1)


def test_the_lines_at_the_end_say_what_ran_and_where_the_page_is() -> None:
    report = report_of(mixed_story())
    report.comparison = analysis_service_pb2.CompareRunResponse(
        run_count=5,
        cases=[history("ok", ratio=1.23, unusual=True), history("bad", ratio=1.01, unusual=False)],
    )
    report.pool.apply(
        BEGIN_NS + 3 * SECOND, events_pb2.Event(worker_registered=events_pb2.WorkerRegistered(worker_id="w2"))
    )
    assert summary_lines(report, Path(".dtf/reports/r1/index.html")) == [
        "1 passed, 1 failed, 1 flaky in 6.0 s",
        "FAILED       bad  OSError: [Errno 18]",
        "pool         1 → 2 workers, 9 worker-seconds, 43 % busy",
        "slowest      ok 2.0 s, bad 1.0 s, wobbly 0.90 s",
        "flaky        wobbly",
        "performance  1 case unusual against 5 earlier runs: ok +23 %",
        "report       .dtf/reports/r1/index.html",
    ]


def changed(case: str, relative: float, run_id: str, at: int) -> analysis_service_pb2.TrackedFinding:
    """A confirmed regression of a case, whose newest word a run brought."""
    finding = findings_pb2.Finding(
        finding_id=f"id-{case}",
        series=findings_pb2.FindingSeries(suite="s", case_name=case, metric="duration_seconds", pool="p"),
        unit="s",
        kind=findings_pb2.FINDING_KIND_STEP,
        state=findings_pb2.FINDING_STATE_CONFIRMED,
        impact=findings_pb2.FINDING_IMPACT_REGRESSION,
        time_unix_nanos=at,
        before_unix_nanos=at - 1,
        last_unix_nanos=at,
        revision_before=f"r{at - 1}",
        revision=f"r{at}",
        revision_last=f"r{at}",
        relative=relative,
        relative_low=relative,
        relative_high=relative,
        absolute=relative,
        level_before=1.0,
        level_after=1.0 + relative,
        caused_by_run_id=run_id,
    )
    return analysis_service_pb2.TrackedFinding(finding=finding, is_raised=True)


def test_changes_of_the_history_are_told_those_of_this_run_first_and_what_is_shared_once() -> None:
    report = report_of(mixed_story())
    report.comparison = analysis_service_pb2.CompareRunResponse(run_count=5)
    run_id = report.run.run_id
    report.findings = [
        changed("old", 0.5, "another", 30),
        changed("a", 0.2, run_id, 20),
        changed("b", 0.3, "another", 20),
        changed("<c>", 0.4, "another", 10),
    ]
    (line,) = [each for each in summary_lines(report) if each.startswith("changes ")]
    assert line.startswith(
        "changes      new: confirmed regression of 2 series, median +25 %, since r19..r20;"
    )
    assert line.endswith("; 2 known from before (`dtf trends`)")
    told = report_document(report)["history"]["changes"]
    assert [(each["is_new"], each["finding_ids"]) for each in told] == [
        (True, ["id-b", "id-a"]),
        (False, ["id-old"]),
        (False, ["id-<c>"]),
    ]
    page = render_page(report)
    assert "<b>new</b> confirmed regression of 2 series" in page
    assert page.index("<b>new</b>") < page.index("<code>id-old</code>") < page.index("id-&lt;c&gt;")
    assert "had not reached this run" not in page
    report.is_search_behind = True
    assert "had not reached this run" in render_page(report)


def test_a_report_without_history_says_why() -> None:
    report = report_of(mixed_story())
    report.comparison_note = "the trend analyzer did not answer: refused"
    assert "performance  the trend analyzer did not answer: refused" in summary_lines(report)


@pytest.mark.parametrize(
    ("story", "sentence"),
    [
        (RunStory().begin("a").lease("w", 0, 1).result("w", 0, 1).finish(passed=1), "All 1 case passed."),
        (RunStory().finish(), "Nothing ran."),
        (mixed_story(), "1 of 3 cases failed."),
        (
            RunStory().begin("a").finish(common_pb2.RUN_STATE_CANCELLED, unjudged=1),
            "Cancelled: 1 not run (cancelled).",
        ),
    ],
    ids=["all passed", "nothing", "a failure", "cancelled"],
)
def test_the_verdict_is_one_sentence(story: RunStory, sentence: str) -> None:
    assert verdict_sentence(report_of(story)) == sentence


class PageReader(HTMLParser):
    """Tags, text and every attribute that could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag opens."""
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        """Text."""
        self.text.append(data)


def read_page(report: RunReport) -> PageReader:
    """The page as a browser would take it apart."""
    reader = PageReader()
    reader.feed(render_page(report))
    reader.close()
    return reader


def test_nothing_hostile_in_a_run_becomes_markup() -> None:
    worker = HOSTILE.replace("\ud800", "")  # what protobuf lets through: text, but any text
    detail = events_pb2.CaseDetail(message=worker, output_tail=worker)
    story = RunStory().begin(worker, worker, suite=worker)
    story.wait(1).lease(worker, 0, 1).wait(1).result(worker, 0, 1, FAILED, detail=detail)
    story.lease(worker, 1, 2).end_attempt(
        worker, 1, 2, common_pb2.OUTCOME_LOST, worker, running=1, is_requeued=True
    )
    story.lease(worker, 1, 3, 2).wait(1).result(worker, 1, 3, FAILED, detail=detail)
    story.summary.labels[worker] = worker
    story.finish(failed=2)
    report = report_of(story)
    report.pool.marks.append(ScaleMark(BEGIN_NS + SECOND, "scale out", 1, 2, worker, worker))
    report.workers = [fleet_service_pb2.Worker(worker_id=worker, host=worker, labels={worker: worker})]
    report.comparison = analysis_service_pb2.CompareRunResponse(
        run_count=5, cases=[history(worker, ratio=3.0, unusual=True)]
    )
    for case in story.summary.failures:
        report.outputs[case.task, case.case] = output_parts(
            detail, json.dumps([{"sections": [[HOSTILE, HOSTILE]]}]).encode()
        )
    page = render_page(report)
    reader = read_page(report)
    assert "script" not in reader.tags
    assert reader.handlers == []
    assert "\x00" not in page and "\x1b" not in page
    assert page.encode("utf-8")
    assert sum("alert(1)" in text for text in reader.text) >= 8


def test_the_page_is_whole_in_itself() -> None:
    page = render_page(report_of(mixed_story()))
    reader = read_page(report_of(mixed_story()))
    assert reader.links == []
    assert not re.search(r"url\((?!#)|@import|https?://", page)
    assert {"svg", "style", "title"} <= set(reader.tags)


def test_the_page_says_the_verdict_first_and_failures_before_the_timeline() -> None:
    page = render_page(report_of(mixed_story()))
    order = [
        "1 of 3 cases failed.",
        "<h2>Failures",
        "<h2>Flaky",
        "<h2>Timeline",
        "<h2>Slowest",
        "<h2>What changed",
    ]
    places = [page.index(text) for text in order]
    assert places == sorted(places)


def test_a_failure_is_marked_by_shape_as_well_as_by_colour() -> None:
    page = render_page(report_of(mixed_story()))
    failing = len(re.findall(r'<rect class="bar failed"', page))
    assert len(re.findall(r'class="cross"', page)) == failing > 1


def test_ten_thousand_quick_cases_are_a_handful_of_bars() -> None:
    bars = [
        Bar("w1", BEGIN_NS + k * 100_000, BEGIN_NS + (k + 1) * 100_000, f"c{k}", PASSED)
        for k in range(10_000)
    ]
    (lane,) = lay_out(bars, pixel_ns=5_000_000)
    (row,) = lane.rows
    assert len(row) < 60
    assert sum(bar.count for bar in row) == 10_000


def test_a_failure_is_never_drawn_together_with_its_neighbours() -> None:
    bars = [Bar("w1", k * 1000, (k + 1) * 1000, f"c{k}", FAILED if k == 5 else PASSED) for k in range(10)]
    (lane,) = lay_out(bars, pixel_ns=1_000_000)
    assert [(bar.name, bar.count) for row in lane.rows for bar in row if bar.verdict == FAILED] == [("c5", 1)]


def test_cases_that_ran_at_once_on_one_worker_lie_in_rows() -> None:
    bars = [Bar("w1", 0, 2 * SECOND, "a", PASSED), Bar("w1", SECOND, 3 * SECOND, "b", PASSED)]
    (lane,) = lay_out(bars, pixel_ns=1000)
    assert [[bar.name for bar in row] for row in lane.rows] == [["a"], ["b"]]


def test_of_too_many_workers_the_busiest_are_drawn() -> None:
    bars = [Bar(f"w{k}", 0, (k + 1) * SECOND, "c", PASSED) for k in range(LANES_LIMIT + 3)]
    drawn, omitted = shown(lay_out(bars, pixel_ns=1000))
    assert omitted == 3
    assert not {"w0", "w1", "w2"} & {lane.worker_id for lane in drawn}


def test_the_document_has_every_case_with_its_tries_and_is_json() -> None:
    document = json.loads(json.dumps(report_document(report_of(mixed_story()))))
    assert document["counts"] == {"passed": 1, "failed": 1, "error": 0, "flaky": 1, "skipped": 0}
    assert [case["verdict"] for case in document["cases"]] == ["passed", "failed", "flaky"]
    assert document["cases"][1]["fault"] == "the test"
    assert [one["attempt"] for one in document["cases"][2]["tries"]] == [1, 2]


def test_pytests_reports_become_why_it_failed_and_what_it_printed() -> None:
    traceback = {
        "reprentries": [
            {"type": "ReprEntry", "data": {"lines": [">   assert 1 == 2", "E   assert 1 == 2"]}},
            {
                "data": {
                    "lines": [],
                    "reprfileloc": {"path": "t.py", "lineno": 3, "message": "AssertionError"},
                }
            },
        ]
    }
    reports = [
        {"when": "setup", "sections": [["Captured stdout setup", "ready"]]},
        {
            "when": "call",
            "outcome": "failed",
            "longrepr": {"reprcrash": {}, "reprtraceback": traceback},
            "sections": [["Captured stdout setup", "ready"], ["Captured stdout call", "\x1b[1mhello\x1b[0m"]],
        },
    ]
    parts = output_parts(events_pb2.CaseDetail(), json.dumps(reports).encode())
    assert [(part.title, part.text) for part in parts] == [
        ("Why it failed", ">   assert 1 == 2\nE   assert 1 == 2\n\nt.py:3: AssertionError"),
        ("Captured stdout setup", "ready"),
        ("Captured stdout call", "hello"),
    ]


@pytest.mark.parametrize(
    "reports",
    [b"", b"{", b"{}", b"[1, null]", b'[{"outcome": "failed", "longrepr": 5, "sections": 3}]', b"\xff"],
)
def test_reports_of_any_shape_are_read_without_a_fault(reports: bytes) -> None:
    assert output_parts(events_pb2.CaseDetail(), reports) == []


def test_a_chain_of_exceptions_is_told_link_by_link() -> None:
    first = {"reprentries": [{"data": {"lines": ["E   KeyError"]}}]}
    second = {"reprentries": [{"data": {"lines": ["E   ValueError"]}}]}
    chain = [[first, None, "The above exception was the direct cause:"], [second, None, None]]
    text = longrepr_text({"chain": chain})
    assert text == "E   KeyError\n\nThe above exception was the direct cause:\n\nE   ValueError"


def test_long_output_keeps_its_beginning_and_its_end() -> None:
    text = plain("a" * PART_CHARACTERS_LIMIT + "b" * 10)
    assert text.startswith("aaa") and text.endswith("b" * 10) and "10 characters left out" in text


def test_figures_have_units_and_no_more_digits_than_help() -> None:
    seconds = [seconds_text(value) for value in (0, 0.0004, 0.0123, 0.354, 19.84, 200, 9000)]
    assert seconds == ["0.0 ms", "0.4 ms", "12 ms", "0.35 s", "19.8 s", "3.3 min", "2.5 h"]
    assert [bytes_text(value) for value in (512, 2048, 3 * 2**30)] == ["512 B", "2.0 KiB", "3.0 GiB"]
    assert [change_text(value) for value in (1.23, 0.6, 3.14)] == ["+23 %", "−40 %", "3.1 times"]


def test_axes_have_round_steps() -> None:
    assert round_step(0.7) == 1
    assert round_step(3) == 5
    assert ticks(7.0, 10) == [float(k) for k in range(8)]
    assert [tick_text(value, 0.2) for value in (0.0, 0.2)] == ["0", "0.2 s"]


def decided(pool: str, at_ns: int, desired: int, backlog: float) -> scaling_pb2.ScalingDecision:
    demand = scaling_pb2.Demand(backlog_seconds=backlog)
    return scaling_pb2.ScalingDecision(pool=pool, now_unix_nanos=at_ns, desired=desired, demand=demand)


def test_the_timeline_shows_what_was_wanted_beside_what_was_there_and_the_backlog() -> None:
    report = report_of(mixed_story())
    pool, run = report.pool, report.run
    for each in (
        decided("a", run.created_ns - 2 * SECOND, 9, 90.0),
        decided("a", run.created_ns - SECOND, 1, 8.0),
        decided("b", run.created_ns + SECOND, 3, 2.0),
        decided("a", run.finished_ns + SECOND, 7, 70.0),
    ):
        pool.decide(each)
    pool.keep_between(run.created_ns, run.finished_ns)
    assert [(each.at_ns, each.desired, each.backlog_seconds) for each in pool.readings] == [
        (run.created_ns, 1, 8.0),
        (run.created_ns + SECOND, 4, 10.0),
    ], "of what was before the last still held; pools are added"
    panels = {panel.title: panel for panel in draw_timeline(report).panels}
    assert panels["workers"].most == "4", "the wish is on the scale of what was there"
    assert [line.kind for line in panels["workers"].lines] == ["desired", "requested"]
    assert panels["backlog"].most == "10.0 s"
    assert 'class="wish desired"' in render_page(report)
    assert report_document(report)["pool"]["readings"][1]["desired"] == 4


def test_a_timeline_without_decisions_has_no_lines_of_them() -> None:
    panels = {panel.title: panel for panel in draw_timeline(report_of(mixed_story())).panels}
    assert "backlog" not in panels
    assert not panels["workers"].lines
