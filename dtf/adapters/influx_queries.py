"""Flux, one function a question. Every query ends in one table, so that its CSV has one header."""

from collections.abc import Sequence

from dtf.ports.metric_store import SeriesName

END = "2200-01-01T00:00:00Z"
"""Behind every point: without a stop, Flux leaves out what lies ahead of the server's clock."""
CASE_METRICS = ("duration_seconds", "cpu_seconds", "peak_memory_bytes")
RUN_METRICS = ("duration_seconds", "busy_seconds", "cpu_seconds")
_POINT_FIELDS = ("run", "revision", "worker", "verdict", "duration_seconds")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "$": "\\x24"})


def quoted(text: str) -> str:
    """`text` as a Flux string: `${` would interpolate, so the dollar is written by its number."""
    return f'"{text.translate(_ESCAPES)}"'


def _from(bucket: str, measurement: str, *, since_ns: int | None = None, until_ns: int | None = None) -> str:
    start = "0" if since_ns is None else f"time(v: {since_ns})"
    stop = END if until_ns is None else f"time(v: {until_ns})"
    return (
        f"from(bucket: {quoted(bucket)}) |> range(start: {start}, stop: {stop}) "
        f"|> filter(fn: (r) => r._measurement == {quoted(measurement)})"
    )


def _where(condition: str) -> str:
    return f" |> filter(fn: (r) => {condition})"


def _any_field(names: Sequence[str]) -> str:
    return " or ".join(f"r._field == {quoted(name)}" for name in names)


def _keep(*names: str) -> str:
    return f" |> keep(columns: [{', '.join(map(quoted, names))}])"


_PIVOT = ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
_ONE_TABLE = " |> group()"


def checkpoint(bucket: str, stream: str) -> str:
    """The newest checkpoint of a stream."""
    return (
        _from(bucket, "checkpoints")
        + _where(f"r.stream == {quoted(stream)}")
        + _PIVOT
        + _ONE_TABLE
        + ' |> sort(columns: ["_time"], desc: true) |> limit(n: 1)'
    )


def series_cases(bucket: str) -> str:
    """Suite and case of every series of a case."""
    source = f"from(bucket: {quoted(bucket)}) |> range(start: 0, stop: {END})"
    measurements = " or ".join(f"r._measurement == {quoted(n)}" for n in ("cases", "retries", "benchmarks"))
    condition = f'({measurements}) and r._field == "run"'
    return source + _where(condition) + " |> last()" + _keep("suite", "case") + _ONE_TABLE


def case_names(bucket: str, suite: str) -> str:
    """Names of a suite's cases, unordered and perhaps more than once."""
    condition = f'r.suite == {quoted(suite)} and r._field == "verdict"'
    return _from(bucket, "cases") + _where(condition) + " |> last()" + _keep("case") + _ONE_TABLE


def case_points(
    bucket: str,
    suite: str,
    *,
    window: int,
    until_ns: int | None,
    excluded_run_id: str,
    first_case: str = "",
    last_case: str = "",
) -> str:
    """The newest points of each case, of those from the first case to the last where they are named."""
    condition = f"r.suite == {quoted(suite)} and ({_any_field(_POINT_FIELDS)})"
    if first_case:
        condition += f" and r.case >= {quoted(first_case)}"
    if last_case:
        condition += f" and r.case <= {quoted(last_case)}"
    return (
        _from(bucket, "cases", until_ns=None if until_ns is None else until_ns + 1)
        + _where(condition)
        + _PIVOT
        + _where(f"r.run != {quoted(excluded_run_id)}")
        + ' |> group(columns: ["case"]) |> sort(columns: ["_time"], desc: true)'
        + f" |> limit(n: {window})"
        + _keep("_time", "case", *_POINT_FIELDS)
        + _ONE_TABLE
        + ' |> sort(columns: ["case", "_time"])'
    )


def run_points(bucket: str, suite: str, run_id: str) -> str:
    """The points of one run."""
    condition = f"r.suite == {quoted(suite)} and ({_any_field(_POINT_FIELDS)})"
    return (
        _from(bucket, "cases")
        + _where(condition)
        + _PIVOT
        + _where(f"r.run == {quoted(run_id)}")
        + _keep("_time", "case", *_POINT_FIELDS)
        + _ONE_TABLE
        + ' |> sort(columns: ["case", "_time"])'
    )


def run_span(bucket: str, run_id: str) -> str:
    """A run that ended."""
    return (
        _from(bucket, "runs")
        + _where(_any_field(("run", "revision")))
        + _PIVOT
        + _where(f"r.run == {quoted(run_id)}")
        + _ONE_TABLE
        + ' |> sort(columns: ["_time"], desc: true) |> limit(n: 1)'
    )


def count_runs(bucket: str, suite: str, until_ns: int | None, excluded_run_id: str) -> str:
    """How many runs of a suite ended."""
    condition = f'r.suite == {quoted(suite)} and r._field == "run" and r._value != {quoted(excluded_run_id)}'
    return (
        _from(bucket, "runs", until_ns=None if until_ns is None else until_ns + 1)
        + _where(condition)
        + _ONE_TABLE
        + " |> count()"
    )


def case_series(bucket: str, suite: str) -> str:
    """Suite, case and _field of every series measured of cases."""
    return _from(bucket, "cases") + _series(suite, CASE_METRICS, "suite", "case", "_field")


def run_series(bucket: str, suite: str) -> str:
    """Suite and _field of every series measured of runs."""
    return _from(bucket, "runs") + _series(suite, RUN_METRICS, "suite", "_field")


def benchmark_series(bucket: str, suite: str) -> str:
    """Suite, case and metric of every benchmark."""
    return _from(bucket, "benchmarks") + _series(suite, ("value",), "suite", "case", "metric")


def _series(suite: str, fields: Sequence[str], *columns: str) -> str:
    condition = f"({_any_field(fields)})"
    if suite:
        condition += f" and r.suite == {quoted(suite)}"
    return _where(condition) + " |> last()" + _keep(*columns) + _ONE_TABLE


def series_values(bucket: str, name: SeriesName, *, pool: str, since_ns: int, limit: int) -> str:
    """The newest values of a series, in the column `value_column(name)`; "" where there can be none."""
    value = value_column(name)
    if not name.case_name:
        measurement, condition = "runs", f"r.suite == {quoted(name.suite)}"
        if value not in RUN_METRICS:
            return ""
    else:
        measurement = "cases" if value != "value" else "benchmarks"
        condition = f"r.suite == {quoted(name.suite)} and r.case == {quoted(name.case_name)}"
        if pool:
            condition += f" and r.pool == {quoted(pool)}"
        if measurement == "benchmarks":
            condition += f" and r.metric == {quoted(name.metric)}"
    fields = (value, "run", "revision", "worker", "verdict")
    return (
        _from(bucket, measurement, since_ns=since_ns)
        + _where(f"{condition} and ({_any_field(fields)})")
        + _PIVOT
        + _where(f"exists r.{value}")
        + _ONE_TABLE
        + f' |> sort(columns: ["_time"], desc: true) |> limit(n: {limit}) |> sort(columns: ["_time"])'
        + _keep("_time", *fields)
    )


def value_column(name: SeriesName) -> str:
    """The field that holds a series' values."""
    return name.metric if not name.case_name or name.metric in CASE_METRICS else "value"


def fleet(bucket: str, since_ns: int, until_ns: int) -> str:
    """Samples of the fleet."""
    fields = ("workers", "queued", "leased")
    return (
        _from(bucket, "fleet", since_ns=since_ns, until_ns=until_ns)
        + _where(_any_field(fields))
        + _PIVOT
        + _ONE_TABLE
        + ' |> sort(columns: ["_time"])'
        + _keep("_time", *fields)
    )
