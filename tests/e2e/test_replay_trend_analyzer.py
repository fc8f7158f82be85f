"""Streams recorded from a real pool, fed to a fresh trend analyzer: the same points come out, in both stores.

What came out when the streams were recorded is kept beside them; `python -m
tests.e2e.test_replay_trend_analyzer` writes it anew after streams were recorded anew, or when the
mapping changed on purpose.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.names import NameBook
from dtf.core.trend.record_folds import ScalingFold
from dtf.ports.event_log import StoredCommit
from dtf.ports.metric_store import MetricStore
from tests.analyzer_bench import CALL_SECONDS, Streams, analyzing
from tests.influxd import Influxd
from tests.streams.record import LOG_FILE, SCALING_FILE
from tests.trend_stores import Content, PointTable, WatchedStore, duckdb_content, influx_content

pytestmark = pytest.mark.trend_analyzer

KEPT = LOG_FILE.with_name("unequal_commands.analysis.json")


def read(path: Path) -> list[StoredCommit]:
    """The messages of a stream file."""
    with StreamFile(path) as stream:
        return list(stream)


def replayed_content() -> Content:
    """The points of the recorded streams, folded once from end to end."""
    log, scaling, table = LogFold(NameBook()), ScalingFold(), PointTable()
    for stored in read(LOG_FILE):
        log.apply(events_pb2.Commit.FromString(stored.payload), stored.sequence)
    for stored in read(SCALING_FILE):
        scaling.apply(scaling_pb2.ScalingDecision.FromString(stored.payload), stored.sequence)
    table.write([*log.take(), *scaling.take()])
    return table.content()


def described(content: Content) -> dict[str, Any]:
    """How many points each measurement has, and a digest of all of their values."""
    return {
        name: {"points": len(rows), "sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
        for name, rows in content.items()
    }


async def analyze(store: MetricStore) -> None:
    """Let a fresh analyzer read the recorded streams into a store."""
    streams = Streams()
    for stored in read(LOG_FILE):
        streams.log.inject(stored.payload, stored.message_id)
    decisions = read(SCALING_FILE)
    for stored in decisions:
        await streams.scaling.publish("scaling", stored.payload)
    watched = WatchedStore(store, until={"log": len(streams.log.commits), "scaling": len(decisions)})
    async with analyzing(streams, watched):
        await watched.wait(CALL_SECONDS)


def test_the_points_are_those_of_the_day_of_the_recording() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert described(replayed_content()) == kept, (
        "on purpose? `python -m tests.e2e.test_replay_trend_analyzer`"
    )


async def test_duckdb_holds_exactly_these_points(tmp_path: Path) -> None:
    store = await DuckDbStore.open(tmp_path / "metrics.duckdb")
    await analyze(store)
    assert await duckdb_content(store) == replayed_content()
    await store.close()


@pytest.mark.influxdb
async def test_influxdb_holds_exactly_these_points(influxd: Influxd) -> None:
    bucket = "replayed"
    store = await influxd.open_store(bucket)
    await analyze(store)
    assert await influx_content(store, bucket) == replayed_content()
    await store.close()


def test_every_accepted_case_is_in_a_series_or_in_a_group() -> None:
    accepted: Counter[str] = Counter()
    for stored in read(LOG_FILE):
        for event in events_pb2.Commit.FromString(stored.payload).events:
            results = event.results_accepted
            accepted[results.run_id] += len(results.tasks) - len(results.retried)
    content = replayed_content()
    recorded: Counter[object] = Counter()
    for row in content["cases"]:
        recorded[row[4]] += 1
    for row in content["case_groups"]:
        count = row[5]
        assert isinstance(count, int)
        recorded[row[3]] += count
    assert recorded == {run: count for run, count in accepted.items() if count}


if __name__ == "__main__":
    KEPT.write_text(json.dumps(described(replayed_content()), indent=1) + "\n", encoding="utf-8")
