"""Every Flux query there is, executed on a real influxd: those of the adapter, of its tasks, of every page and of every dashboard.

What each answers is held elsewhere (the contract of stores, test_documented_queries, test_grafana_dashboards,
test_influx_setup); here no query may hide: a new function, block or panel is executed without being named.
"""

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dtf.adapters import influx_queries
from dtf.adapters.influx_rollups import ROLLUPS, long_term_bucket, rollup_flux, task_flux
from dtf.ports.metric_store import Checkpoint, SeriesName
from tests.contract.test_documented_queries import POINTS
from tests.grafana_frames import ask, filled, questions
from tests.influxd import Influxd

pytestmark = [pytest.mark.trend_analyzer, pytest.mark.influxdb]

ROOT = Path(__file__).parents[2]
BUCKET = "every-query"
BLOCK = re.compile(r"^( *)```flux\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ARGUMENTS: dict[str, Any] = {
    "bucket": BUCKET,
    "stream": "log",
    "suite": 'su"ite ${x}',
    "window": 30,
    "until_ns": 2**60,
    "since_ns": 0,
    "excluded_run_id": "r1",
    "first_case": "a",
    "last_case": "z",
    "run_id": "r1",
    "name": SeriesName("suite", "case", "duration_seconds"),
    "pool": "local",
    "limit": 5,
}
"""A value for every parameter of the functions in influx_queries; a new parameter needs one."""


def adapter_queries() -> Iterator[tuple[str, str]]:
    """One query of each function of influx_queries that takes a bucket."""
    for name, function in inspect.getmembers(influx_queries, inspect.isfunction):
        parameters = inspect.signature(function).parameters
        if name.startswith("_") or "bucket" not in parameters:
            continue
        make: Callable[..., str] = function
        yield name, make(**{parameter: ARGUMENTS[parameter] for parameter in parameters})


def documented_queries() -> Iterator[tuple[str, str]]:
    """Every block of Flux on every page."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), start=1):
            flux = found.group(2).replace('bucket: "dtf"', f'bucket: "{BUCKET}"')
            yield (
                f"{page.name} {number}",
                flux.replace('bucket: "dtf_long"', f'bucket: "{long_term_bucket(BUCKET)}"'),
            )


def task_queries() -> Iterator[tuple[str, str]]:
    """The query of every task, and its whole script, which InfluxDB also takes as a query."""
    for rollup in ROLLUPS:
        yield rollup.name, 'import "date"\n' + rollup_flux(rollup, BUCKET, since="-2d")
        yield f"task {rollup.name}", task_flux(rollup, BUCKET, keep_days=7)


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Every query of every dashboard, with a difficult name chosen."""
    for question in questions():
        chosen = {"suite": "a/b", "case": 'x["y\\z"] ${q}', "pool": ".*"}
        yield question.name, filled(question.flux, BUCKET, chosen)


SOURCES = (adapter_queries, documented_queries, task_queries, dashboard_queries)
LEAST = {"adapter_queries": 11, "documented_queries": 11, "task_queries": 12, "dashboard_queries": 50}
"""How many there are at least, so that a source that finds nothing is not taken for one that is right."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def written_influxd(influxd: Influxd) -> AsyncIterator[Influxd]:
    """An influxd with the story of docs/queries.md."""
    await (await influxd.open_store(long_term_bucket(BUCKET))).close()
    store = await influxd.open_store(BUCKET)
    await store.write(POINTS, Checkpoint("log", 1, "{}"))
    await store.close()
    yield influxd


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
async def test_every_query_is_one_that_influxdb_takes(
    written_influxd: Influxd, source: Callable[[], Iterator[tuple[str, str]]]
) -> None:
    asked = list(source())
    assert len(asked) >= LEAST[source.__name__]
    refused = []
    for name, flux in asked:
        try:
            ask(written_influxd, flux)
        except AssertionError as error:
            refused.append(f"{name}: {error}")
    assert refused == []
