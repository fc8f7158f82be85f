"""Sums by the hour and by the day, which tasks of InfluxDB keep in a second bucket.

The first bucket may then forget: what a task wrote stays. A task goes back over several days each time,
because points lie at the time of their commit and may come late (an outage, an analyzer that reads the log
anew); a window written again replaces itself. It begins at a whole window and never in the one that the
bucket may have forgotten half of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dtf.adapters.influx_queries import quoted

VERSION = 1
"""Of the scripts; a task with another text is replaced in place, this is for people."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One field of a rollup."""

    field: str
    function: str
    """Of Flux: max, last, mean, median, count."""
    name: str
    """Field it becomes."""
    condition: str = ""
    """On the value of the field: which points count."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """Points of one measurement, summed up by the window."""

    measurement: str
    labels: Sequence[str]
    every: str
    look_back_days: int
    sums: Sequence[Sum]

    @property
    def period(self) -> str:
        """Word for its window."""
        return {"1h": "hourly", "1d": "daily"}[self.every]

    @property
    def name(self) -> str:
        """What its task is called, before the bucket."""
        return f"dtf {self.measurement} {self.period}"


def _sums(**functions: str) -> list[Sum]:
    """`field="max last"` becomes the sums field_max and field_last."""
    return [
        Sum(field, function, f"{field}_{function}")
        for field, names in functions.items()
        for function in names.split()
    ]


_CASE = ("suite", "case", "pool")
HOURLY_POOLS = Rollup("pools", ("pool",), "1h", 3, _sums(workers="max last", leased="max"))
ROLLUPS = (
    Rollup("fleet", (), "1h", 3, _sums(workers="max last", queued="max", leased="max")),
    HOURLY_POOLS,
    Rollup(
        "workers", ("pool",), "1h", 3, _sums(cpu_ratio="mean max", load="mean", memory_used_bytes="mean max")
    ),
    Rollup(
        "scaling",
        ("pool",),
        "1h",
        3,
        _sums(desired="max", queue_depth="max", backlog_seconds="max", utilization_ratio="mean"),
    ),
    Rollup(
        "cases",
        _CASE,
        "1d",
        14,
        [
            *_sums(duration_seconds="median max", cpu_seconds="median", peak_memory_bytes="max"),
            Sum("verdict", "count", "results"),
            Sum("verdict", "count", "failed", 'r._value == "failed" or r._value == "error"'),
            Sum("verdict", "count", "flaky", 'r._value == "flaky"'),
        ],
    ),
    Rollup("benchmarks", (*_CASE, "metric"), "1d", 14, _sums(value="median")),
)
"""All of them."""


def long_term_bucket(bucket: str) -> str:
    """Where the sums of a bucket are."""
    return f"{bucket}_long"


def rollup_flux(rollup: Rollup, bucket: str, *, since: str, until: str = "now()") -> str:
    """The query that writes the windows from `since` (Flux) on into the long-term bucket."""
    tables = [_sum_flux(rollup, each) for each in rollup.sums]
    united = tables[0] if len(tables) == 1 else "union(tables: [\n  " + ",\n  ".join(tables) + ",\n])"
    return (
        f"points = (field) => from(bucket: {quoted(bucket)})\n"
        f"  |> range(start: date.truncate(t: {since}, unit: {rollup.every}), stop: {until})\n"
        f"  |> filter(fn: (r) => r._measurement == {quoted(rollup.measurement)} and r._field == field)\n\n"
        f"{united}\n"
        f"  |> to(bucket: {quoted(long_term_bucket(bucket))})\n"
    )


def _sum_flux(rollup: Rollup, each: Sum) -> str:
    labels = ", ".join(map(quoted, ("_measurement", *rollup.labels)))
    keys = ", ".join(map(quoted, ("_measurement", "_field", *rollup.labels)))
    condition = f" |> filter(fn: (r) => {each.condition})" if each.condition else ""
    number = "" if each.function == "count" else " |> toFloat()"
    return (
        f"points(field: {quoted(each.field)}){condition}{number}"
        f' |> group(columns: [{labels}]) |> sort(columns: ["_time"])'
        f' |> aggregateWindow(every: {rollup.every}, fn: {each.function}, createEmpty: false, timeSrc: "_start")'
        f' |> toFloat() |> set(key: "_field", value: {quoted(each.name)}) |> group(columns: [{keys}])'
    )


def task_name(rollup: Rollup, bucket: str) -> str:
    """The name of the task in the organization."""
    return f"{rollup.name} ({bucket})"


def task_flux(rollup: Rollup, bucket: str, *, keep_days: int) -> str:
    """The task's script. `keep_days`: how long the bucket keeps points; 0: for ever."""
    look_back = rollup.look_back_days if not keep_days else max(1, min(rollup.look_back_days, keep_days - 1))
    return (
        f"// dtf rollup, version {VERSION}: `dtf store setup` writes it anew\n"
        'import "date"\n\n'
        f"option task = {{name: {quoted(task_name(rollup, bucket))}, every: {rollup.every}, offset: 5m}}\n\n"
        + rollup_flux(rollup, bucket, since=f"-{look_back}d")
    )
