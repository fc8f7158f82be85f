"""What a store holds, and what it should hold, in one shape that tests compare."""

from collections.abc import Sequence

from dtf.adapters.duckdb_store import DuckDbStore
from dtf.api.v1 import events_pb2
from dtf.core.trend.log_fold import LogFold
from dtf.core.trend.measurements import MEASUREMENTS
from dtf.core.trend.names import NameBook
from dtf.core.trend.points import Points, Value

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
