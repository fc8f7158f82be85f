"""What reports ask of the DuckDB store, one function a question. `case` is a word of SQL, so it is quoted."""

from collections.abc import Sequence

import duckdb

from dtf.core.trend.statistics import CaseHistory, CasePoint
from dtf.ports.metric_store import Checkpoint, FleetSample, RunSpan, SeriesName, SeriesValue

Cursor = duckdb.DuckDBPyConnection

_END = 2**63 - 1
_POINT = '"case", time_ns, run, revision, worker, verdict, duration_seconds'
_NEWEST = """
    SELECT * FROM cases
    WHERE suite = $suite AND run <> $excluded AND "case" > $after AND time_ns <= $until
    QUALIFY row_number() OVER (PARTITION BY "case" ORDER BY time_ns DESC) <= $window
"""
_CASE_METRICS = ("duration_seconds", "cpu_seconds", "peak_memory_bytes")
_RUN_METRICS = ("duration_seconds", "busy_seconds", "cpu_seconds")


def checkpoint(cursor: Cursor, stream: str) -> Checkpoint | None:
    """The checkpoint of a stream."""
    row = cursor.execute("SELECT sequence, state FROM checkpoints WHERE stream = ?", [stream]).fetchone()
    return Checkpoint(stream, row[0], row[1]) if row is not None else None


def series_cases(cursor: Cursor) -> list[tuple[str, str]]:
    """(suite, case) of every series of a case."""
    return cursor.execute(
        'SELECT suite, "case" FROM cases UNION SELECT suite, "case" FROM retries UNION SELECT suite, "case" FROM benchmarks'
    ).fetchall()


def case_histories(
    cursor: Cursor, suite: str, after: str, limit: int, window: int, excluded: str
) -> list[CaseHistory]:
    """`summarize` in SQL; the contract suite holds the two together."""
    rows = cursor.execute(
        f"""
        WITH newest AS ({_NEWEST})
        SELECT "case", count(*), coalesce(median(duration_seconds), 0), coalesce(mad(duration_seconds), 0),
            coalesce(arg_max(duration_seconds, time_ns), 0),
            count(*) FILTER (verdict IN ('failed', 'error')), count(*) FILTER (verdict = 'flaky')
        FROM newest GROUP BY "case" ORDER BY "case" LIMIT $limit
        """,
        {
            "suite": suite,
            "excluded": excluded,
            "after": after,
            "until": _END,
            "window": window,
            "limit": limit,
        },
    ).fetchall()
    return [CaseHistory(*row) for row in rows]


def case_points(
    cursor: Cursor, suite: str, window: int, until_ns: int | None, excluded: str
) -> list[CasePoint]:
    """The newest points of each case."""
    rows = cursor.execute(
        f'SELECT {_POINT} FROM ({_NEWEST}) ORDER BY "case", time_ns',
        {
            "suite": suite,
            "excluded": excluded,
            "after": "",
            "until": _END if until_ns is None else until_ns,
            "window": window,
        },
    ).fetchall()
    return [CasePoint(*row) for row in rows]


def run_points(cursor: Cursor, suite: str, run_id: str) -> list[CasePoint]:
    """The points of one run."""
    rows = cursor.execute(
        f'SELECT {_POINT} FROM cases WHERE suite = ? AND run = ? ORDER BY "case"', [suite, run_id]
    ).fetchall()
    return [CasePoint(*row) for row in rows]


def run_span(cursor: Cursor, run_id: str) -> RunSpan | None:
    """A run that ended."""
    row = cursor.execute(
        "SELECT run, suite, revision, time_ns FROM runs WHERE run = ? ORDER BY time_ns DESC", [run_id]
    ).fetchone()
    return RunSpan(*row) if row is not None else None


def count_runs(cursor: Cursor, suite: str, until_ns: int | None, excluded: str) -> int:
    """Runs of a suite."""
    row = cursor.execute(
        "SELECT count(*) FROM runs WHERE suite = ? AND run <> ? AND time_ns <= ?",
        [suite, excluded, _END if until_ns is None else until_ns],
    ).fetchone()
    return int(row[0]) if row is not None else 0


def series_names(cursor: Cursor, suite: str, after: SeriesName | None, limit: int) -> list[SeriesName]:
    """The series there are."""
    parts = [
        f"SELECT DISTINCT suite, \"case\" AS name, '{metric}' AS metric FROM cases WHERE {metric} IS NOT NULL"
        for metric in _CASE_METRICS
    ]
    parts += [
        f"SELECT DISTINCT suite, '' AS name, '{metric}' AS metric FROM runs WHERE {metric} IS NOT NULL"
        for metric in _RUN_METRICS
    ]
    parts.append('SELECT DISTINCT suite, "case" AS name, metric FROM benchmarks WHERE value IS NOT NULL')
    first = after or SeriesName("", "", "")
    rows = cursor.execute(
        f"""
        SELECT DISTINCT suite, name, metric FROM ({" UNION ALL ".join(parts)})
        WHERE ($suite = '' OR suite = $suite) AND (suite, name, metric) > ($after_suite, $after_case, $after_metric)
        ORDER BY ALL LIMIT $limit
        """,
        {
            "suite": suite,
            "after_suite": first.suite,
            "after_case": first.case_name,
            "after_metric": first.metric,
            "limit": limit,
        },
    ).fetchall()
    return [SeriesName(*row) for row in rows]


def series_values(
    cursor: Cursor, name: SeriesName, pool: str, since_ns: int, limit: int
) -> Sequence[SeriesValue]:
    """The newest values of a series, oldest first."""
    source, parameters = _source(name, pool)
    if not source:
        return []
    rows = cursor.execute(
        f"SELECT * FROM ({source}) WHERE value IS NOT NULL AND time_ns >= ? ORDER BY time_ns DESC LIMIT ?",
        [*parameters, since_ns, limit],
    ).fetchall()
    return [SeriesValue(*row) for row in reversed(rows)]


def _source(name: SeriesName, pool: str) -> tuple[str, list[str]]:
    """SQL of every value of a series and its parameters; "" where there can be none."""
    if not name.case_name:
        if name.metric not in _RUN_METRICS:
            return "", []
        return (
            f"SELECT time_ns, {name.metric}::DOUBLE AS value, run, revision, '', '' FROM runs WHERE suite = ?",
            [name.suite],
        )
    parameters = [name.suite, name.case_name, pool, pool]
    where = """WHERE suite = ? AND "case" = ? AND (? = '' OR pool = ?)"""
    if name.metric in _CASE_METRICS:
        return (
            f"SELECT time_ns, {name.metric}::DOUBLE AS value, run, revision, worker, verdict FROM cases {where}",
            parameters,
        )
    return (
        f"SELECT time_ns, value, run, revision, worker, '' FROM benchmarks {where} AND metric = ?",
        [*parameters, name.metric],
    )


def fleet(cursor: Cursor, since_ns: int, until_ns: int) -> list[FleetSample]:
    """Samples of the fleet."""
    rows = cursor.execute(
        "SELECT time_ns, workers, queued, leased FROM fleet WHERE time_ns >= ? AND time_ns < ? ORDER BY time_ns",
        [since_ns, until_ns],
    ).fetchall()
    return [FleetSample(*row) for row in rows]
