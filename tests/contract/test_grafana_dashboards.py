"""Every query of every dashboard, as Grafana fills it in, on a real influxd.

Each answers in the shape its panel needs, with what was written.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from dtf.adapters.influx_rollups import HOURLY_POOLS, long_term_bucket, rollup_flux
from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import BENCHMARKS, CASES, FINDINGS
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points, Value
from dtf.core.trend.record_folds import TelemetryFold
from dtf.grafana.files import grafana_files
from dtf.ports.metric_store import Checkpoint
from tests.contract.test_documented_queries import CASES as STORY_CASES
from tests.contract.test_documented_queries import POINTS
from tests.grafana_frames import Frame, Question, ask, filled, questions, text_of, variable_values
from tests.influxd import Influxd
from tests.trend_events import SECOND_NS, START_NS, commit, granted, registered, run_created, shard_submitted

pytestmark = [pytest.mark.trend_analyzer, pytest.mark.influxdb]

DEPLOYED = Path(__file__).parents[2] / "deploy" / "grafana"
BUCKET = "dashboards"
BIG = STORY_CASES[0]
ODD = 'tests/odd.py::test[a/b "c" ${d} $e \\x41 {f}|g* (h)?]'
NOW_NS = max(max(each.times_ns) for each in POINTS)
EVERYTHING = {"suite": ".*", "pool": ".*", "case": ".*"}


def one_point_each() -> list[Points]:
    """A benchmark, a case with a difficult name, and a finding of each sort; ten seconds before now."""
    benchmarks, cases, findings = Points(BENCHMARKS), Points(CASES), Points(FINDINGS)
    origin: dict[str, Value] = {
        "suite": "suite",
        "case": BIG,
        "pool": "local",
        "run": "r1",
        "revision": "rev1",
    }
    benchmarks.add(NOW_NS - 10 * SECOND_NS, {**origin, "metric": "mean", "value": 1.5, "unit": "s"})
    cases.add(
        NOW_NS - 10 * SECOND_NS,
        {
            **origin,
            "case": ODD,
            "verdict": "passed",
            "duration_seconds": 4.5,
            "cpu_seconds": 2.5,
            "attempt": 1,
        }
        | {"peak_memory_bytes": 1_000},
    )
    sorts = [
        ("step", "regression", "confirmed", True),
        ("drift", "improvement", "provisional", True),
        ("variance", "change", "confirmed", True),
        ("point", "change", "confirmed", True),
        ("step", "regression", "went_away", False),
        ("step", "regression", "moved", False),
        ("step", "regression", "confirmed", False),
        ("step", "regression", "confirmed", True),
    ]
    for index, (kind, impact, state, is_raised) in enumerate(sorts):
        levels: dict[str, Value] = {
            "level_before": 1.0,
            "level_after": 1.25,
            "relative": 0.25,
            "unit": "s",
            "confidence": 0.99,
        }
        if kind == "point":
            levels = {"level_after": 3.0}
        said: dict[str, Value] = {
            "finding": f"f{index}",
            "kind": kind,
            "impact": impact,
            "state": state,
            "is_raised": is_raised,
        }
        name = "cpu_seconds" if index == 7 else "duration_seconds"
        metric: dict[str, Value] = {"metric": name, "revision": "rev7", "triage": "", "revision_last": "rev8"}
        if index == 7:
            levels |= {"relative": 0.5}
        if is_raised and kind != "point":
            metric |= grouped(index)
        findings.add(NOW_NS - (20 - index) * SECOND_NS, {**origin, **metric, **levels, **said})
    return [benchmarks, cases, findings]


def grouped(index: int) -> dict[str, Value]:
    """Two steps that one revision explains, the second one first; a drift of which cost moved; a spread alone."""
    shared: dict[str, Value] = {
        "group_kind": "shared",
        "group_count": 2,
        "group_relative": 0.4,
        "group_text": "two regressions",
    }
    moved: dict[str, Value] = {
        "group_kind": "moved",
        "group_count": 3,
        "group_moved": 1.5,
        "group_text": "1.5 s moved",
    }
    said: dict[int, dict[str, Value]] = {
        0: {"finding_group": "f7", **shared},
        7: {"finding_group": "f7", **shared},
        1: {"finding_group": "f1", **moved},
        2: {"finding_group": "", "group_kind": "", "group_count": 0, "group_text": ""},
    }
    return {"group_state": "confirmed", "group_relative": 0.0, "group_moved": 0.0, **said[index]}


def lost_attempt() -> list[Points]:
    """A case that its worker took with it."""
    lost = events_pb2.AttemptsEnded(
        run_id="x",
        worker_id="w1",
        tasks=[0],
        fences=[1],
        outcomes=[common_pb2.OUTCOME_CRASHED],
        requeued=[True],
        running_cases=[1],
        reasons=["signal 9"],
    )
    fold = LogFold(NameBook())
    at = (NOW_NS - START_NS) / SECOND_NS - 30
    for sequence, each in enumerate(
        [
            commit(at, registered(), run_created("x"), shard_submitted(BIG, run_id="x")),
            commit(at + 1, granted(0, run_id="x")),
            commit(at + 2, lost),
        ],
        start=1,
    ):
        fold.apply(each, sequence)
    return [points for points in fold.take() if points.measurement.name == "attempts"]


def telemetry() -> list[Points]:
    """Two workers, twice."""
    fold = TelemetryFold()
    for sequence in range(4):
        heard = NOW_NS - (10 - sequence) * SECOND_NS
        sample = worker_service_pb2.TelemetrySample(
            worker_id=f"w{sequence % 2}", pool="local", heard_unix_nanos=heard
        )
        sample.telemetry.cpu_ratio = 0.5
        fold.apply(sample, sequence + 1)
    return fold.take()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled_influxd(influxd: Influxd) -> AsyncIterator[Influxd]:
    """An influxd with the story of docs/queries.md, and a little of everything else."""
    store = await influxd.open_store(BUCKET)
    await (await influxd.open_store(long_term_bucket(BUCKET))).close()
    points = [*POINTS, *one_point_each(), *lost_attempt(), *telemetry()]
    await store.write(points, Checkpoint("log", 77, "{}"))
    await store.query('import "date"\n' + rollup_flux(HOURLY_POOLS, BUCKET, since="-2d"))
    yield influxd
    await store.close()


Check = Callable[[Sequence[Frame]], bool]


def values(frames: Sequence[Frame]) -> list[float]:
    """Of all series."""
    return sorted(value for frame in frames for value in frame.values)


def labels(frames: Sequence[Frame], name: str) -> set[str]:
    """Values of a label."""
    return {frame.labels[name] for frame in frames}


def column(frames: Sequence[Frame], name: str) -> list[str]:
    """Of rows."""
    assert len(frames) == 1, "rows are one table"
    return text_of(frames[0])[name]


SHOWN: dict[str, Check] = {
    "fleet: $pool": lambda frames: variable_values(frames) == ["big", "local"],
    "fleet: Scaling": lambda frames: column(frames, "tags") == ["scale_out", "scale_in"],
    "fleet: Workers": lambda frames: values(frames) == [3],
    "fleet: Queued tasks": lambda frames: values(frames) == [0],
    "fleet: Running tasks": lambda frames: values(frames) == [0],
    "fleet: Open runs": lambda frames: values(frames) == [0],
    "fleet: Queue": lambda frames: len(values(frames)) >= 24 and max(values(frames)) == 1,
    "fleet: Workers by pool": lambda frames: labels(frames, "pool") == {"big", "local"},
    "fleet: What scaling wanted and had": lambda frames: len(frames) == 4 and max(values(frames)) == 4,
    "fleet: Backlog": lambda frames: len(values(frames)) == 3,
    "fleet: Utilization": lambda frames: len(values(frames)) == 3,
    "fleet: Arrivals": lambda frames: len(values(frames)) == 3,
    "fleet: Decisions that changed something": lambda frames: (
        column(frames, "reason") == ['backlog "3", s', 'backlog "1", s']
    ),
    "fleet: Worker-seconds by pool": lambda frames: column(frames, "pool") == ["local", "big"],
    "suites: $suite": lambda frames: variable_values(frames) == ["suite"],
    "suites: Shared changes": lambda frames: (
        column(frames, "title") == ["2 series share a regression"]
        and column(frames, "text") == ["suite, two regressions"]
    ),
    "suites: Moved cost": lambda frames: (
        column(frames, "title") == ["cost moved between 3 series"]
        and column(frames, "text") == ["suite, 1.5 s moved"]
    ),
    "suites: Runs that ended": lambda frames: column(frames, "runs") == ["12"],
    "suites: Cases failed in the newest run": lambda frames: values(frames) == [0],
    "suites: Flaky cases in the newest run": lambda frames: values(frames) == [0],
    "suites: Time of the newest run": lambda frames: values(frames) == [2],
    "suites: Time of runs": lambda frames: len(frames) == 2 and len(values(frames)) == 24,
    "suites: Verdicts": lambda frames: len(frames) == 5 and sum(values(frames)) == 36,
    "suites: Slowest cases": lambda frames: column(frames, "case")[:2] == [ODD, STORY_CASES[1]],
    "suites: Became slower": lambda frames: (
        column(frames, "case")[0] == BIG and float(column(frames, "ratio")[0]) > 4
    ),
    "suites: Changes that several series share": lambda frames: (
        [column(frames, name) for name in ("impact", "group_count", "revision_last", "group_text")]
        == [["regression"], ["2"], ["rev8"], ["two regressions"]]
        and float(column(frames, "group_relative")[0]) == 0.4
    ),
    "suites: Cost that moved between cases": lambda frames: (
        [column(frames, name) for name in ("metric", "group_count", "group_text")]
        == [["duration_seconds"], ["3"], ["1.5 s moved"]]
        and float(column(frames, "group_moved")[0]) == 1.5
    ),
    "suites: Flaky cases": lambda frames: (
        column(frames, "case") == [STORY_CASES[1]] and column(frames, "flaky") == ["2"]
    ),
    "suites: Failing cases": lambda frames: (
        column(frames, "case") == [STORY_CASES[2]] and column(frames, "failed") == ["3"]
    ),
    "suites: Runs": lambda frames: column(frames, "run") == [f"r{number}" for number in range(11, -1, -1)],
    "suites: Attempts that ended otherwise": lambda frames: (
        column(frames, "reason") == ["signal 9"] and column(frames, "running_case") == [BIG]
    ),
    "case: $suite": lambda frames: variable_values(frames) == ["suite"],
    "case: $case": lambda frames: variable_values(frames) == sorted([*STORY_CASES, ODD]),
    "case: Regressions": lambda frames: (
        sorted(column(frames, "title"))
        == ["cpu_seconds: step, confirmed", "duration_seconds: step, confirmed"]
        and "1 to 1.25 s (25 %), revision rev7; told with others: two regressions" in column(frames, "text")
    ),
    "case: Improvements": lambda frames: column(frames, "title") == ["duration_seconds: drift, provisional"],
    "case: Other changes": lambda frames: column(frames, "tags") == ["variance"],
    "case: Anomalies": lambda frames: (
        column(frames, "tags") == ["point"] and column(frames, "text") == ["? to 3, revision rev7"]
    ),
    "case: Duration": lambda frames: len(values(frames)) == 37 and max(values(frames)) == 4.5,
    "case: Processor time": lambda frames: values(frames) == [2.5],
    "case: Peak memory": lambda frames: values(frames) == [1_000],
    "case: What the case measured": lambda frames: (
        values(frames) == [1.5] and labels(frames, "metric") == {"mean"}
    ),
    "case: Findings": lambda frames: (
        column(frames, "state").count("went_away") == 1 and len(column(frames, "kind")) == 7
    ),
    "case: Results": lambda frames: len(column(frames, "verdict")) == 37,
    "system: $pool": lambda frames: variable_values(frames) == ["local"],
    "system: Processors busy": lambda frames: (
        set(values(frames)) == {0.5} and labels(frames, "slot") == {"0", "1"}
    ),
    "system: Memory in use": lambda frames: set(values(frames)) == {0},
    "system: Load": lambda frames: set(values(frames)) == {0},
    "system: Disk free": lambda frames: set(values(frames)) == {0},
    "system: Memory of workers": lambda frames: set(values(frames)) == {0},
    "system: Attempts running": lambda frames: set(values(frames)) == {0},
    "system: Points by measurement": lambda frames: sum(values(frames)) >= 36 + 12 + 3 + 4 + 7,
    "system: Series in the store": lambda frames: int(column(frames, "series")[0]) >= 15,
    "system: How far each stream has come": lambda frames: column(frames, "sequence") == ["77"],
    "system: Workers, by the hour, kept long": lambda frames: (
        labels(frames, "pool") == {"big", "local"} and max(values(frames)) == 2
    ),
}
"""What each query must show, with everything chosen; a query that is not here fails."""


def test_each_query_has_its_expectation() -> None:
    assert [question.name for question in questions()] == list(SHOWN)


@pytest.mark.parametrize("question", [pytest.param(each, id=each.name) for each in questions()])
async def test_a_panel_shows_what_was_written(filled_influxd: Influxd, question: Question) -> None:
    frames = ask(filled_influxd, filled(question.flux, BUCKET, EVERYTHING))
    assert frames, question.flux
    assert SHOWN[question.name](frames), frames
    if question.kind in ("timeseries", "stat"):
        assert all(frame.is_series for frame in frames) or question.kind == "stat"
    elif question.kind in ("table", "annotation"):
        assert len(frames) == 1
        assert not frames[0].is_series


async def test_a_case_of_any_name_is_chosen_alone(filled_influxd: Influxd) -> None:
    (duration,) = [each for each in questions() if each.name == "case: Duration"]
    for name, count in ((ODD, 1), (BIG, 12)):
        chosen = {"suite": "suite", "case": name}
        frames = ask(filled_influxd, filled(duration.flux, BUCKET, chosen))
        assert len(values(frames)) == count, name


async def test_a_span_without_points_shows_nothing(filled_influxd: Influxd) -> None:
    """But for what does not depend on the span: streams and the number of series."""
    span = ("2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z")
    shown = [
        question.name
        for question in questions()
        if ask(filled_influxd, filled(question.flux, BUCKET, EVERYTHING, span=span))
    ]
    assert shown == ["system: Series in the store", "system: How far each stream has come"]


def test_the_files_under_deploy_are_what_the_code_makes() -> None:
    for name, text in grafana_files().items():
        path = DEPLOYED / name
        assert path.exists(), f"{name} is missing; run `dtf grafana export deploy/grafana`"
        assert path.read_text(encoding="utf-8") == text, (
            f"{name} differs; run `dtf grafana export deploy/grafana`"
        )


def test_panels_have_titles_of_their_own_and_lie_beside_each_other() -> None:
    for board in ("fleet", "suites", "case", "system"):
        titles = [each.title for each in questions() if each.board == board]
        assert len(set(titles)) == len(titles)
    assert all(re.search(r"v\.defaultBucket", each.flux) for each in questions())
