"""What a store holds, and what it should hold, in one shape that tests compare."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.api.v1 import events_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import MEASUREMENTS, FieldKind, Measurement
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points, Value
from dtf.ports.metric_store import Checkpoint, StoreUnavailable

if TYPE_CHECKING:
    from dtf.adapters.influx_store import InfluxStore

Content = dict[str, list[tuple[Value, ...]]]
"""Rows of each measurement that has any: time, tags, fields; ordered by time and tags."""


class PointTable:
    """Points by measurement, time and tags: a point written again replaces itself, as in a store."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[tuple[Value, ...], tuple[Value, ...]]] = {}

    def write(self, points: Sequence[Points]) -> None:
        """Take up points."""
        for each in points:
            rows = self._rows.setdefault(each.measurement.name, {})
            tag_count = len(each.measurement.tags)
            for time_ns, values in zip(each.times_ns, each.values, strict=True):
                rows[(time_ns, *values[:tag_count])] = (time_ns, *values)

    def content(self) -> Content:
        """What is in it."""
        return {
            name: [rows[key] for key in sorted(rows, key=repr)] for name, rows in sorted(self._rows.items())
        }


def expected_content(commits: Sequence[events_pb2.Commit]) -> Content:
    """What a store holds after one undisturbed reading of the log."""
    fold, table = LogFold(NameBook()), PointTable()
    for sequence, commit in enumerate(commits, start=1):
        fold.apply(commit, sequence)
    table.write(fold.take())
    return table.content()


async def duckdb_content(store: DuckDbStore) -> Content:
    """What a DuckDB store holds."""
    content: Content = {}
    for measurement in MEASUREMENTS.values():
        names = ["time_ns", *measurement.tags, *measurement.fields]
        columns = ", ".join(f'"{name}"' for name in names)
        rows: Sequence[tuple[object, ...]] = await store.query(f"SELECT {columns} FROM {measurement.name}")
        if rows:
            content[measurement.name] = _sorted(rows, len(measurement.tags))
    return dict(sorted(content.items()))


def _sorted(rows: Sequence[tuple[object, ...]], tag_count: int) -> list[tuple[Value, ...]]:
    typed: list[tuple[Value, ...]] = [tuple(_value(value) for value in row) for row in rows]
    return sorted(typed, key=lambda row: repr(row[: tag_count + 1]))


def _value(value: object) -> Value:
    assert value is None or isinstance(value, str | float | int | bool)
    return value


async def influx_content(store: "InfluxStore", bucket: str) -> Content:
    """What a bucket holds."""
    content: Content = {}
    for measurement in MEASUREMENTS.values():
        rows = await store.query(
            f'from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) '
            f'|> filter(fn: (r) => r._measurement == "{measurement.name}") '
            '|> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value") |> group()'
        )
        if rows:
            content[measurement.name] = _sorted(
                [_typed(measurement, row) for row in rows], len(measurement.tags)
            )
    return dict(sorted(content.items()))


def _typed(measurement: Measurement, row: Mapping[str, str]) -> tuple[object, ...]:
    tags = [row.get(tag, "") for tag in measurement.tags]
    fields = [_READERS[field.kind](row.get(name, "")) for name, field in measurement.fields.items()]
    return (_nanoseconds(row["_time"]), *tags, *fields)


def _nanoseconds(text: str) -> int:
    whole, _, rest = text.removesuffix("Z").partition(".")
    return round(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(rest.ljust(9, "0") or 0)


_READERS: Mapping[FieldKind, Callable[[str], Value]] = {
    FieldKind.TEXT: str,
    FieldKind.REAL: lambda text: float(text) if text else None,
    FieldKind.WHOLE: lambda text: int(text) if text else None,
    FieldKind.TRUTH: lambda text: text == "true" if text else None,
}


class WatchedStore:
    """A store under which a test looks at what is written, and lets writes fail."""

    def __init__(self, store: Any, until: dict[str, int] | None = None) -> None:
        self._store = store
        self._until = until or {}
        self._sequences: dict[str, int] = {}
        self.reached = asyncio.Event()
        self.failures: list[StoreUnavailable] = []
        self.failed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def replace(self, store: Any) -> None:
        """From now on another store is under it."""
        self._store = store

    def wait_until(self, until: dict[str, int]) -> None:
        """What `wait` waits for from now on."""
        self._until = until
        self.reached.clear()
        self._look()

    async def wait(self, deadline_seconds: float) -> None:
        """Return when every stream has come as far as it should."""
        await asyncio.wait_for(self.reached.wait(), deadline_seconds)

    async def write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        """Fail as often as told, then write."""
        if self.failures:
            self.failed.set()
            raise self.failures.pop(0)
        await self._store.write(points, checkpoint)
        self._sequences[checkpoint.stream] = checkpoint.sequence
        self._look()

    def _look(self) -> None:
        if all(self._sequences.get(stream, 0) >= sequence for stream, sequence in self._until.items()):
            self.reached.set()
