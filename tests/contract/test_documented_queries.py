"""Every query of docs/queries.md, run on both stores over the same runs: each answers, and both say the same."""

import re
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points
from dtf.core.trend.record_folds import ScalingFold
from dtf.ports.metric_store import Checkpoint
from tests.influxd import Influxd
from tests.trend_events import (
    FAILED,
    PASSED,
    SECOND_NS,
    START_NS,
    accepted,
    commit,
    finished,
    granted,
    registered,
    run_created,
    shard_submitted,
)

pytestmark = pytest.mark.trend_analyzer

PAGE = Path(__file__).parent.parent.parent / "docs" / "queries.md"
BUCKET = "documented"
QUESTIONS = {
    title: (sql, flux)
    for title, sql, flux in re.findall(
        r"^## (\d+\. .*?)$.*?^```sql\n(.*?)^```$.*?^```flux\n(.*?)^```$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
}
CASES = ("tests/test_parse.py::test_big", "tests/test_io.py::test_rename", "tests/test_io.py::test_copy")
ROWS_EXPECTED = {"1": 3, "2": 1, "3": 1, "4": 3, "5": 12, "6": 12, "7": 2, "8": 2, "9": 1, "10": 2}
"""How many rows each question gets, by its number; at least, where the minute may turn (9)."""


def run_story(number: int, at_seconds: float) -> list[events_pb2.Commit]:
    """A run in which the first case becomes slower after the seventh, the second is flaky twice, the third fails thrice."""
    run_id = f"r{number}"
    created = run_created(run_id, revision=f"rev{number}")
    created.owner = ("ann@host", "bob@host")[number % 2]
    is_flaky, is_failing = int(number in (3, 9)), int(number in (2, 5, 8))
    slow = 0.25 + number / 64 + (1.0 if number >= 7 else 0.0)
    results = [(0, 0, PASSED, slow), (0, 2, FAILED if is_failing else PASSED, 0.125)]
    commits = [commit(at_seconds, created, shard_submitted(*CASES, run_id=run_id), granted(0, run_id=run_id))]
    if is_flaky:
        commits.append(commit(at_seconds + 1, accepted((0, 1, FAILED, 0.5), run_id=run_id, retried=[0])))
    commits.append(
        commit(at_seconds + 2, accepted(*results, (0, 1, PASSED, 0.5), run_id=run_id, completed=[1]))
    )
    return [
        *commits,
        commit(
            at_seconds + 2,
            finished(run_id, passed=3 - is_failing - is_flaky, failed=is_failing, flaky=is_flaky),
        ),
    ]


def recorded_points() -> list[Points]:
    """Twelve runs of the last hour, two pools, and three scaling decisions."""
    start = (SystemClock().now_ns() - START_NS) / SECOND_NS - 3_600
    commits = [commit(start, registered("w1"), registered("w2"), registered("w3", "big"))]
    commits += [each for number in range(12) for each in run_story(number, start + 10 + number * 60)]
    fold, scaling = LogFold(NameBook()), ScalingFold()
    for sequence, each in enumerate(commits, start=1):
        fold.apply(each, sequence)
    actions = (
        scaling_pb2.SCALING_ACTION_SCALE_OUT,
        scaling_pb2.SCALING_ACTION_HOLD,
        scaling_pb2.SCALING_ACTION_SCALE_IN,
    )
    for sequence, action in enumerate(actions, start=1):
        decision = scaling_pb2.ScalingDecision(
            pool="local",
            action=action,
            observed=sequence,
            desired=sequence + 1,
            reason=f'backlog "{sequence}", s',
            now_unix_nanos=START_NS + round((start + sequence * 60) * SECOND_NS),
        )
        scaling.apply(decision, sequence)
    return [*fold.take(), *scaling.take()]


POINTS = recorded_points()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def duckdb_store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DuckDbStore]:
    """The runs in DuckDB."""
    store = await DuckDbStore.open(tmp_path_factory.mktemp("documented") / "metrics.duckdb")
    await store.write(POINTS, Checkpoint("log", 1, "{}"))
    yield store
    await store.close()


def test_the_page_asks_ten_questions_each_in_both_languages() -> None:
    headings = re.findall(r"^## (\d+)\.", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [str(number) for number in range(1, 11)]
    assert [title.split(".")[0] for title in QUESTIONS] == headings


@pytest.mark.parametrize("title", QUESTIONS)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_sql_answers(duckdb_store: DuckDbStore, title: str) -> None:
    rows = await duckdb_store.query(QUESTIONS[title][0])
    expected = ROWS_EXPECTED[title.split(".")[0]]
    assert len(rows) == expected if title[:2] != "9." else len(rows) >= expected


@pytest.mark.influxdb
@pytest.mark.parametrize("title", QUESTIONS)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_flux_says_the_same(duckdb_store: DuckDbStore, influxd: Influxd, title: str) -> None:
    sql, flux = QUESTIONS[title]
    store = await influxd.open_store(BUCKET)
    try:
        await store.write(POINTS, Checkpoint("log", 1, "{}"))
        answers = await store.query(flux.replace('bucket: "dtf"', f'bucket: "{BUCKET}"'))
    finally:
        await store.close()
    names = await duckdb_store.query(f"DESCRIBE {sql}")
    columns = [str(name[0]) for name in names]
    expected = [[_plain(value) for value in row] for row in await duckdb_store.query(sql)]
    said = [
        [_parsed(answer[column], value) for column, value in zip(columns, row, strict=True)]
        for answer, row in zip(answers, expected, strict=True)
    ]
    assert said == [[_about(value) for value in row] for row in expected]


def _about(value: object) -> object:
    return pytest.approx(value, rel=1e-9) if isinstance(value, float) else value


def _plain(value: object) -> object:
    """Instants as microseconds, which is what DuckDB's `time` has."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return value


def _parsed(text: str, like: object) -> object:
    if isinstance(like, float):
        return float(text)
    if isinstance(like, int):
        return int(float(text))
    if isinstance(like, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+", like):
        whole, _, rest = text.removesuffix("Z").partition(".")
        return f"{whole}.{rest[:6].ljust(6, '0')}"
    return text
