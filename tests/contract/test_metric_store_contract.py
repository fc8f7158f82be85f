"""What every MetricStore does, asked of DuckDB and of a real InfluxDB 2."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.api.v1 import events_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import BENCHMARKS, CASES, FLEET, RUNS
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points
from dtf.core.trend.statistics import summarize
from dtf.ports.metric_store import Checkpoint, MetricStore, SeriesName
from tests.influxd import Influxd
from tests.trend_events import (
    FAILED,
    PASSED,
    START_NS,
    accepted,
    commit,
    granted,
    run_created,
    shard_submitted,
    story,
)

pytestmark = pytest.mark.trend_analyzer

KINDS = ["duckdb", pytest.param("influxdb", marks=pytest.mark.influxdb)]


@pytest_asyncio.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MetricStore]:
    """An empty store of each kind."""
    if request.param == "duckdb":
        made: MetricStore = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    else:
        influxd: Influxd = request.getfixturevalue("influxd")
        made = await influxd.open_store()
    yield made
    await made.close()


def near(value: float) -> Any:
    """About `value`: durations are single precision in the log."""
    return pytest.approx(value, rel=1e-6)


def at(sequence: int, state: str = "{}", stream: str = "log") -> Checkpoint:
    """A checkpoint."""
    return Checkpoint(stream, sequence, state)


def folded(commits: Sequence[events_pb2.Commit]) -> list[Points]:
    """The points of a log."""
    fold = LogFold(NameBook())
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
    return fold.take()


async def write_runs(store: MetricStore, *durations: Sequence[float]) -> None:
    """Runs r0, r1 … of one suite, ten seconds apart."""
    commits = [each for run, seconds in enumerate(durations) for each in story(f"r{run}", run * 10, seconds)]
    await store.write(folded(commits), at(len(commits)))


async def test_an_empty_store_has_no_checkpoint_and_answers_with_nothing(store: MetricStore) -> None:
    assert await store.checkpoint("log") is None
    assert list(await store.series_cases()) == []
    assert list(await store.case_histories("suite", after="", limit=10, window=30)) == []
    assert list(await store.series_names("", after=None, limit=10)) == []
    assert list(await store.fleet(since_ns=0, until_ns=2**62)) == []
    assert await store.run_span("r0") is None
    assert await store.count_runs("suite", until_ns=None, excluded_run_id="") == 0


async def test_checkpoints_are_kept_by_stream_and_the_newest_counts(store: MetricStore) -> None:
    await store.write([], at(7, '{"a": "\\"x\\\\ y"}'))
    await store.write([], at(9, '{"b": 2}'))
    await store.write([], at(3, "{}", stream="telemetry"))
    assert await store.checkpoint("log") == at(9, '{"b": 2}')
    assert await store.checkpoint("telemetry") == at(3, "{}", stream="telemetry")


async def test_a_checkpoint_may_go_back_when_a_log_begins_anew(store: MetricStore) -> None:
    await store.write([], at(9))
    await store.write([], at(2))
    assert await store.checkpoint("log") == at(2)


async def test_writing_twice_is_writing_once(store: MetricStore) -> None:
    await write_runs(store, [0.1, 0.2], [0.3, 0.4])
    before = await store.case_points("suite", window=100)
    fleet_before = await store.fleet(since_ns=0, until_ns=2**62)
    await write_runs(store, [0.1, 0.2], [0.3, 0.4])
    assert await store.case_points("suite", window=100) == before
    assert await store.fleet(since_ns=0, until_ns=2**62) == fleet_before
    assert [(point.case_name, point.run_id, point.duration_seconds) for point in before] == [
        ("a", "r0", near(0.1)),
        ("a", "r1", near(0.3)),
        ("b", "r0", near(0.2)),
        ("b", "r1", near(0.4)),
    ]


async def test_a_point_written_again_with_other_values_is_replaced(store: MetricStore) -> None:
    for workers in (3, 5):
        points = Points(FLEET)
        points.add(START_NS, {"workers": workers, "slots": 1, "queued": 0, "leased": 0, "open_runs": 0})
        await store.write([points], at(1))
    assert [sample.workers for sample in await store.fleet(since_ns=0, until_ns=2**62)] == [5]


async def test_points_of_the_same_time_and_other_tags_are_different_points(store: MetricStore) -> None:
    points = Points(BENCHMARKS)
    for metric, value in (("mean", 1.5), ("max", 2.5)):
        points.add(
            START_NS,
            {
                "suite": "s",
                "case": "c",
                "pool": "p",
                "metric": metric,
                "run": "r",
                "value": value,
                "unit": "s",
            },
        )
    await store.write([points], at(1))
    values = [
        (await store.series_values(SeriesName("s", "c", metric), pool="", since_ns=0, limit=9))[0].value
        for metric in ("mean", "max")
    ]
    assert values == [1.5, 2.5]


NAMES = [
    "tests/test_a.py::test_x[a=1, b=2]",
    'quote " backslash \\ end]',
    "comma,space equal=",
    "${interpolation} #{too}",
    "umlaut ä, emoji 🐍, quote '",
    "back\\, slash comma",
    "slash // comment -- dashes ;",
    "100% {}",
]


async def test_names_come_back_as_they_went(store: MetricStore) -> None:
    commits = [
        commit(0, run_created("r0", suite='su"ite, =\\x'), shard_submitted(*NAMES, run_id="r0")),
        commit(1, accepted(*[(0, case, PASSED, 0.5) for case in range(len(NAMES))], run_id="r0")),
    ]
    await store.write(folded(commits), at(2))
    assert set(await store.series_cases()) == {('su"ite, =\\x', name) for name in NAMES}
    histories = await store.case_histories('su"ite, =\\x', after="", limit=100, window=30)
    assert [history.case_name for history in histories] == sorted(NAMES, key=str.encode)
    for name in NAMES:
        key = SeriesName('su"ite, =\\x', name, "duration_seconds")
        assert len(await store.series_values(key, pool="", since_ns=0, limit=9)) == 1, name


async def test_histories_are_what_summarize_says_of_the_newest_points(store: MetricStore) -> None:
    await write_runs(store, [9.0, 0.5], [0.1, 0.5], [0.2, 0.6], [0.4, 0.7], [0.9, 0.1])
    histories = await store.case_histories("suite", after="", limit=10, window=3, excluded_run_id="r4")
    points = await store.case_points("suite", window=3, excluded_run_id="r4")
    expected = [
        summarize(name, [point for point in points if point.case_name == name]) for name in ("a", "b")
    ]
    assert list(histories) == expected
    assert histories[0].median_seconds == near(0.2)
    assert histories[0].mad_seconds == near(0.1)
    assert (histories[0].count, histories[0].last_seconds) == (3, near(0.4))


async def test_histories_count_failures_and_cases_without_a_duration(store: MetricStore) -> None:
    points = Points(CASES)
    rows = [("failed", 1.0), ("error", None), ("flaky", 2.0), ("passed", 3.0)]
    for index, (verdict, seconds) in enumerate(rows):
        points.add(
            START_NS + index,
            {
                "suite": "suite",
                "case": "c",
                "pool": "p",
                "run": f"r{index}",
                "verdict": verdict,
                "duration_seconds": seconds,
            },
        )
    await store.write([points], at(1))
    (history,) = await store.case_histories("suite", after="", limit=10, window=30)
    assert (history.count, history.failed_count, history.flaky_count) == (4, 2, 1)
    assert (history.median_seconds, history.last_seconds) == (2.0, 3.0)
    assert [point.duration_seconds for point in await store.case_points("suite", window=30)] == [
        1.0,
        None,
        2.0,
        3.0,
    ]


async def test_histories_come_in_pages_ordered_by_name(store: MetricStore) -> None:
    await write_runs(store, [0.1, 0.2, 0.3, 0.4])
    first = await store.case_histories("suite", after="", limit=3, window=30)
    rest = await store.case_histories("suite", after="c", limit=3, window=30)
    assert [history.case_name for history in first] == ["a", "b", "c"]
    assert [history.case_name for history in rest] == ["d"]


async def test_history_before_a_moment_leaves_out_what_came_later(store: MetricStore) -> None:
    await write_runs(store, [0.1], [0.2], [0.3])
    span = await store.run_span("r1")
    assert span is not None
    assert (span.run_id, span.suite, span.revision) == ("r1", "suite", "4f2a91c")
    earlier = await store.case_points("suite", window=30, until_ns=span.ended_ns, excluded_run_id="r1")
    assert [point.run_id for point in earlier] == ["r0"]
    assert await store.count_runs("suite", until_ns=span.ended_ns, excluded_run_id="r1") == 1
    assert await store.count_runs("suite", until_ns=None, excluded_run_id="") == 3
    assert [point.run_id for point in await store.run_points("suite", "r1")] == ["r1"]


async def test_series_are_listed_in_order_and_go_on_behind_the_last(store: MetricStore) -> None:
    await write_runs(store, [0.1, 0.2])
    points = Points(BENCHMARKS)
    points.add(
        START_NS, {"suite": "suite", "case": "b", "metric": "mean", "run": "r", "value": 1.0, "unit": "s"}
    )
    points.add(
        START_NS, {"suite": "other", "case": "x", "metric": "mean", "run": "r", "value": 1.0, "unit": "s"}
    )
    await store.write([points], at(99))
    names = list(await store.series_names("suite", after=None, limit=100))
    assert names == [
        SeriesName("suite", "", "busy_seconds"),
        SeriesName("suite", "", "cpu_seconds"),
        SeriesName("suite", "", "duration_seconds"),
        SeriesName("suite", "a", "duration_seconds"),
        SeriesName("suite", "b", "duration_seconds"),
        SeriesName("suite", "b", "mean"),
    ]
    assert list(await store.series_names("suite", after=names[1], limit=2)) == names[2:4]
    assert list(await store.series_names("", after=None, limit=1)) == [SeriesName("other", "x", "mean")]


async def test_the_values_of_a_series_are_the_newest_oldest_first(store: MetricStore) -> None:
    await write_runs(store, [0.1], [0.2], [0.3])
    key = SeriesName("suite", "a", "duration_seconds")
    values = await store.series_values(key, pool="", since_ns=0, limit=2)
    assert [(value.run_id, value.value, value.verdict) for value in values] == [
        ("r1", near(0.2), "passed"),
        ("r2", near(0.3), "passed"),
    ]
    since = await store.series_values(key, pool="", since_ns=values[1].time_ns, limit=9)
    assert [value.run_id for value in since] == ["r2"]
    assert list(await store.series_values(key, pool="elsewhere", since_ns=0, limit=9)) == []
    of_suite = await store.series_values(
        SeriesName("suite", "", "duration_seconds"), pool="", since_ns=0, limit=9
    )
    assert [(value.run_id, value.value) for value in of_suite] == [(f"r{n}", near(1.5)) for n in range(3)]
    assert (
        list(await store.series_values(SeriesName("suite", "", "no such"), pool="", since_ns=0, limit=9))
        == []
    )


async def test_the_fleet_is_asked_for_by_a_half_open_span(store: MetricStore) -> None:
    points = Points(FLEET)
    for second in range(4):
        points.add(
            START_NS + second * 10**9,
            {"workers": second, "slots": 0, "queued": 1, "leased": 2, "open_runs": 0},
        )
    await store.write([points], at(1))
    samples = await store.fleet(since_ns=START_NS + 10**9, until_ns=START_NS + 3 * 10**9)
    assert [(sample.workers, sample.queued, sample.leased) for sample in samples] == [(1, 1, 2), (2, 1, 2)]


async def test_a_number_that_is_none_or_too_large_does_no_harm(store: MetricStore) -> None:
    points = Points(RUNS)
    points.add(
        START_NS,
        {
            "suite": "suite",
            "run": "r0",
            "revision": "",
            "duration_seconds": float("nan"),
            "task_count": 2**64 - 1,
        },
    )
    points.add(START_NS + 1, {"suite": "suite", "run": "r1", "revision": "", "duration_seconds": 1.0})
    await store.write([points], at(1))
    key = SeriesName("suite", "", "duration_seconds")
    assert [v.run_id for v in await store.series_values(key, pool="", since_ns=0, limit=9)] == ["r1"]


async def test_a_case_that_failed_first_is_one_point_and_its_retry_another(store: MetricStore) -> None:
    commits = [
        commit(0, run_created("r0"), shard_submitted("a", run_id="r0"), granted(0, run_id="r0")),
        commit(1, accepted((0, 0, FAILED, 0.5), run_id="r0", retried=[0], completed=[1], requeued=[0])),
        commit(2, granted(0, run_id="r0", attempts=[2])),
        commit(3, accepted((0, 0, PASSED, 0.7), run_id="r0", completed=[1])),
    ]
    await store.write(folded(commits), at(4))
    (point,) = await store.case_points("suite", window=30)
    assert (point.verdict, point.duration_seconds) == ("flaky", near(0.7))
