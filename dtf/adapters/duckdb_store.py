"""The metric store in one DuckDB file: the embedded default. One process writes and reads it.

A measurement is a table: `time_ns`, its tags, its fields, and `time`, computed, for people. Points
and checkpoint go in one transaction, so a crash leaves both or neither. Nothing has an index: times
rise, so the zone maps find the few rows that a batch could replace, and only a batch that reaches
back before what is there looks for any.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt

from dtf.adapters import duckdb_queries as queries
from dtf.core.trend.measurements import LARGEST_WHOLE, MEASUREMENTS, FieldKind, Measurement
from dtf.core.trend.points import Points, Value
from dtf.core.trend.statistics import CaseHistory, CasePoint
from dtf.ports.metric_store import (
    Checkpoint,
    FleetSample,
    RunSpan,
    SeriesName,
    SeriesValue,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreMismatch,
    StoreUnavailable,
)

SCHEMA_VERSION = 1
THREADS = 2
"""More would take processors from the tests that are being measured."""
MEMORY_LIMIT = "1GB"
"""Queries that need more spill to disk beside the file."""

_SQL_TYPES = {
    FieldKind.TEXT: "VARCHAR",
    FieldKind.REAL: "DOUBLE",
    FieldKind.WHOLE: "BIGINT",
    FieldKind.TRUTH: "BOOLEAN",
}

_T = TypeVar("_T")
_Column = npt.NDArray[Any]


class DuckDbStore:
    """The MetricStore port on a DuckDB file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._writing = threading.Lock()
        self._newest_ns = {name: _newest(connection, name) for name in MEASUREMENTS}

    @classmethod
    async def open(cls, path: Path) -> "DuckDbStore":
        """Open the file, made if there is none. Raises StoreLocked, StoreCorrupt or StoreMismatch."""
        return await asyncio.to_thread(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> "DuckDbStore":
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists() or path.stat().st_size == 0:
            _make_file(path)
        connection = _connect(path)
        try:
            _check_version(connection, path)
            _add_tables(connection)
            return cls(connection, path)
        except duckdb.Error as error:
            connection.close()
            raise StoreCorrupt(f"{path} is damaged: {error}; move it away to begin a new one") from error
        except StoreError:
            connection.close()
            raise

    @property
    def kind(self) -> str:
        """See the port."""
        return "duckdb"

    async def write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        """Points and checkpoint in one transaction; see the port."""
        await asyncio.to_thread(self._write, points, checkpoint)

    async def checkpoint(self, stream: str) -> Checkpoint | None:
        """See the port."""
        return await self._read(lambda cursor: queries.checkpoint(cursor, stream))

    async def series_cases(self) -> Sequence[tuple[str, str]]:
        """See the port."""
        return await self._read(queries.series_cases)

    async def case_histories(
        self, suite: str, *, after: str, limit: int, window: int, excluded_run_id: str = ""
    ) -> Sequence[CaseHistory]:
        """See the port; computed in the database."""
        return await self._read(
            lambda cursor: queries.case_histories(cursor, suite, after, limit, window, excluded_run_id)
        )

    async def case_points(
        self, suite: str, *, window: int, until_ns: int | None = None, excluded_run_id: str = ""
    ) -> Sequence[CasePoint]:
        """See the port."""
        return await self._read(
            lambda cursor: queries.case_points(cursor, suite, window, until_ns, excluded_run_id)
        )

    async def run_points(self, suite: str, run_id: str) -> Sequence[CasePoint]:
        """See the port."""
        return await self._read(lambda cursor: queries.run_points(cursor, suite, run_id))

    async def run_span(self, run_id: str) -> RunSpan | None:
        """See the port."""
        return await self._read(lambda cursor: queries.run_span(cursor, run_id))

    async def count_runs(self, suite: str, *, until_ns: int | None, excluded_run_id: str) -> int:
        """See the port."""
        return await self._read(lambda cursor: queries.count_runs(cursor, suite, until_ns, excluded_run_id))

    async def series_names(self, suite: str, *, after: SeriesName | None, limit: int) -> Sequence[SeriesName]:
        """See the port."""
        return await self._read(lambda cursor: queries.series_names(cursor, suite, after, limit))

    async def series_values(
        self, name: SeriesName, *, pool: str, since_ns: int, limit: int
    ) -> Sequence[SeriesValue]:
        """See the port."""
        return await self._read(lambda cursor: queries.series_values(cursor, name, pool, since_ns, limit))

    async def fleet(self, *, since_ns: int, until_ns: int) -> Sequence[FleetSample]:
        """See the port."""
        return await self._read(lambda cursor: queries.fleet(cursor, since_ns, until_ns))

    async def close(self) -> None:
        """Write what is in the write-ahead log into the file and let go of it."""
        await asyncio.to_thread(self._close)

    async def query(self, sql: str) -> list[tuple[object, ...]]:
        """Rows of any query, for people and tests."""
        return await self._read(lambda cursor: cursor.execute(sql).fetchall())

    async def _read(self, question: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        return await asyncio.to_thread(self._ask, question)

    def _ask(self, question: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        try:
            with self._connection.cursor() as cursor:
                return question(cursor)
        except duckdb.Error as error:
            raise self._using_error(error) from error

    def _close(self) -> None:
        with self._writing:
            self._connection.close()

    def _write(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        with self._writing:
            try:
                with self._connection.cursor() as cursor:
                    cursor.begin()
                    for each in filter(len, points):
                        self._insert(cursor, each)
                    cursor.execute(
                        "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)",
                        [checkpoint.stream, checkpoint.sequence, checkpoint.state],
                    )
                    cursor.commit()
            except duckdb.Error as error:
                raise self._using_error(error) from error
            for each in filter(len, points):
                name = each.measurement.name
                self._newest_ns[name] = max(self._newest_ns[name], max(each.times_ns))

    def _insert(self, cursor: duckdb.DuckDBPyConnection, points: Points) -> None:
        batch = _batch(points)
        name = points.measurement.name
        oldest = min(points.times_ns)
        if oldest <= self._newest_ns[name]:
            same = " AND ".join(f'stored."{tag}" = batch."{tag}"' for tag in points.measurement.tags)
            cursor.execute(
                f"DELETE FROM {name} AS stored USING batch WHERE stored.time_ns BETWEEN ? AND ? "
                f"AND stored.time_ns = batch.time_ns {'AND ' + same if same else ''}",
                [oldest, max(points.times_ns)],
            )
        cursor.execute(f"INSERT INTO {name} BY NAME SELECT {_selection(points.measurement)} FROM batch")
        del batch  # found by name by the two statements above

    def _using_error(self, error: duckdb.Error) -> StoreError:
        if isinstance(error, duckdb.FatalException | duckdb.SerializationException):
            return StoreCorrupt(
                f"{self._path} is damaged: {error}; move it away and start the analyzer again: it reads the log anew"
            )
        if isinstance(error, duckdb.DataError | duckdb.ProgrammingError):
            return StoreMismatch(f"{self._path} refuses what dtf writes or asks: {error}")
        return StoreUnavailable(f"{self._path} cannot be used now: {error}")


def _opening_error(path: Path, error: duckdb.Error) -> StoreError:
    text = str(error)
    if "lock" in text:
        return StoreLocked(
            f"{path} is open in another process, and DuckDB lets one in while it writes ({text.splitlines()[0]}); "
            "ask the running trend analyzer (AnalysisService, `dtf report`), or stop it"
        )
    if isinstance(error, duckdb.IOException) and "not a valid" not in text:
        return StoreUnavailable(f"{path} cannot be opened: {text}")
    return StoreCorrupt(
        f"{path} is not a metric store ({text.splitlines()[0]}); move it away to begin a new one"
    )


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(str(path), config={"threads": str(THREADS), "memory_limit": MEMORY_LIMIT})
    except duckdb.Error as error:
        raise _opening_error(path, error) from error


def _make_file(path: Path) -> None:
    """Make an empty store beside `path` and move it there whole: a crash meanwhile leaves no half of one."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    connection = _connect(unfinished)
    unfinished.chmod(0o600)
    connection.execute("CREATE TABLE meta (schema_version BIGINT)")
    connection.execute("INSERT INTO meta VALUES (?)", [SCHEMA_VERSION])
    connection.execute(
        "CREATE TABLE checkpoints (stream VARCHAR PRIMARY KEY, sequence BIGINT, state VARCHAR)"
    )
    _add_tables(connection)
    connection.close()
    unfinished.replace(path)


def _add_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """The tables and columns that are missing: a measurement or a field of it may be newer than the file."""
    for measurement in MEASUREMENTS.values():
        connection.execute(_table(measurement))
        for name, field in measurement.fields.items():
            kind = _SQL_TYPES[field.kind]
            connection.execute(f'ALTER TABLE {measurement.name} ADD COLUMN IF NOT EXISTS "{name}" {kind}')


def _check_version(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    found = connection.execute("SELECT schema_version FROM meta").fetchall()
    if found != [(SCHEMA_VERSION,)]:
        version = found[0][0] if found else "none"
        raise StoreMismatch(
            f"{path} has schema version {version}, this dtf writes {SCHEMA_VERSION}; use the dtf that "
            "made it, or move it away: the analyzer fills a new one from the log"
        )


def _table(measurement: Measurement) -> str:
    columns = ["time_ns BIGINT NOT NULL"]
    columns += [f'"{tag}" VARCHAR NOT NULL' for tag in measurement.tags]
    columns += [f'"{name}" {_SQL_TYPES[field.kind]}' for name, field in measurement.fields.items()]
    columns.append('"time" TIMESTAMP GENERATED ALWAYS AS (make_timestamp(time_ns // 1000)) VIRTUAL')
    return f"CREATE TABLE IF NOT EXISTS {measurement.name} ({', '.join(columns)})"


def _newest(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"SELECT max(time_ns) FROM {table}").fetchone()
    return row[0] if row is not None and row[0] is not None else -(2**62)


def _selection(measurement: Measurement) -> str:
    """What is inserted of a batch: numbers that are none (see `_column`) become NULL."""
    parts = ["time_ns", *(f'"{tag}"' for tag in measurement.tags)]
    for name, field in measurement.fields.items():
        if field.kind in (FieldKind.REAL, FieldKind.WHOLE):
            parts.append(f'CASE WHEN isfinite("{name}"::DOUBLE) THEN "{name}" END AS "{name}"')
        else:
            parts.append(f'"{name}"')
    return ", ".join(parts)


def _batch(points: Points) -> dict[str, _Column]:
    columns = points.columns()
    batch: dict[str, _Column] = {"time_ns": np.array(points.times_ns, dtype=np.int64)}
    for name in points.measurement.tags:
        batch[name] = np.array(columns[name], dtype=np.object_)
    for name, field in points.measurement.fields.items():
        batch[name] = _column(columns[name], field.kind)
    return batch


def _column(values: Sequence[Value], kind: FieldKind) -> _Column:
    """Values as DuckDB scans them fastest; a number that was not measured is NaN."""
    match kind:
        case FieldKind.TEXT | FieldKind.TRUTH:
            return np.array(values, dtype=np.object_)
        case FieldKind.REAL:
            return np.array(values, dtype=np.float64)
        case FieldKind.WHOLE:
            numbers = [_whole(value) for value in values]
            return np.array(numbers, dtype=np.float64 if None in numbers else np.int64)


def _whole(value: Value) -> int | None:
    return min(int(value), LARGEST_WHOLE) if isinstance(value, int) else None
