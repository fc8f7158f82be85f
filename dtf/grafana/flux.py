"""Flux as the dashboards ask it: pieces of queries, with Grafana's variables in them.

A variable goes into a regular expression by its format `regex`, which escapes every character that means
something there: a name may hold quotes, backslashes, `$` and slashes.
"""

from collections.abc import Sequence

SCHEMA = 'import "influxdata/influxdb/schema"\n'


def source(measurement: str, *fields: str, where: str = "", bucket: str = "v.defaultBucket") -> str:
    """Points of some fields (none named: all) in the dashboard's time."""
    condition = f'r._measurement == "{measurement}"'
    if fields:
        condition += " and (" + " or ".join(f'r._field == "{name}"' for name in fields) + ")"
    if where:
        condition += f" and {where}"
    return (
        f"from(bucket: {bucket})\n"
        "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
        f"  |> filter(fn: (r) => {condition})\n"
    )


def chosen(*names: str) -> str:
    """That a point has the values chosen above the panels: of tags with the variables' names."""
    return " and ".join(f"r.{name} =~ /^${{{name}:regex}}$/" for name in names)


def windows(aggregate: str, *labels: str) -> str:
    """One value a window of the panel's resolution, a series for each combination of the labels."""
    return grouped(*labels) + (
        f"  |> aggregateWindow(every: v.windowPeriod, fn: {aggregate}, createEmpty: false)\n" + kept(*labels)
    )


def grouped(*labels: str) -> str:
    """A series for each combination of the labels, in the order of time."""
    return f'  |> group(columns: {names("_measurement", "_field", *labels)})\n  |> sort(columns: ["_time"])\n'


def kept(*labels: str) -> str:
    """What a time series has."""
    return f"  |> keep(columns: {names('_time', '_value', '_measurement', '_field', *labels)})\n"


RAISED = '(r.state == "confirmed" or r.state == "provisional") and r.is_raised'
"""Of findings: those to be spoken of."""
ANOMALY = '(r.kind == "point" or r.kind == "collective" or r.kind == "multivariate")'
PIVOT = '  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")\n'
NEWEST_FIRST = '  |> group()\n  |> sort(columns: ["_time"], desc: true)\n'


def rows(*columns: str, limit: int = 0) -> str:
    """Rows with these columns; `_time` is called time."""
    text = f"  |> limit(n: {limit})\n" if limit else ""
    if "time" in columns:
        text += '  |> rename(columns: {_time: "time"})\n'
    return text + f"  |> keep(columns: {names(*columns)})\n"


def names(*values: str) -> str:
    """An array of strings."""
    return "[" + ", ".join(f'"{value}"' for value in values) + "]"


def tag_values(tag: str, measurements: Sequence[str], where: str = "") -> str:
    """The values of a tag in some measurements, in the dashboard's time."""
    condition = "(" + " or ".join(f'r._measurement == "{name}"' for name in measurements) + ")"
    if where:
        condition += f" and {where}"
    return (
        f'{SCHEMA}schema.tagValues(bucket: v.defaultBucket, tag: "{tag}", '
        f"predicate: (r) => {condition}, start: v.timeRangeStart, stop: v.timeRangeStop)"
    )
