"""JSON of pytest-benchmark, Google Benchmark and hyperfine: one file is one run, so one point of each series.

Names of metrics and their units are those that `dtf run` gives when it reads such a file.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from dtf.core.trend.imports.series import ImportedPoint

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def is_pytest_benchmark(document: Mapping[str, Any]) -> bool:
    """Whether it is a file of `pytest --benchmark-json` or `--benchmark-save`."""
    return "machine_info" in document and isinstance(document.get("benchmarks"), list)


def pytest_benchmark(document: Mapping[str, Any]) -> Iterator[ImportedPoint]:
    """Median, min and mean of each benchmark, in seconds. Its time is the run's, not the commit's.

    Rounds are no weight: what differs from run to run, they have in common.
    """
    commit = document.get("commit_info") or {}
    time = _time(document.get("datetime")) or _time(commit.get("time"))
    revision = str(commit.get("id") or "")
    for entry in document["benchmarks"]:
        stats = entry["stats"]
        for metric in ("median", "min", "mean"):
            yield ImportedPoint(
                case=str(entry.get("fullname") or entry["name"]),
                metric=metric,
                value=_number(stats[metric]),
                unit="s",
                is_lower_better=True,
                time=time,
                revision=revision,
            )


def is_google_benchmark(document: Mapping[str, Any]) -> bool:
    """Whether it is a file of --benchmark_out_format=json."""
    context = document.get("context")
    return isinstance(context, dict) and isinstance(document.get("benchmarks"), list)


def google_benchmark(document: Mapping[str, Any]) -> Iterator[ImportedPoint]:
    """Times in seconds and rates of each benchmark: the median of its repetitions, which are the weight.

    A file of aggregates alone gives their median, or their mean if there is none. Benchmarks that
    failed or were skipped are left out.
    """
    time = _time(document["context"].get("date"))
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for entry in document["benchmarks"]:
        if not (entry.get("error_occurred") or entry.get("skipped")):
            by_name.setdefault(str(entry.get("run_name") or entry["name"]), []).append(entry)
    for name, entries in by_name.items():
        yield from _google_points(name, entries, time)


def _google_points(
    name: str, entries: Sequence[Mapping[str, Any]], time: float | None
) -> Iterator[ImportedPoint]:
    runs = [each for each in entries if each.get("run_type", "iteration") == "iteration"]
    weight = float(len(runs))
    if not runs:
        aggregates = {str(each.get("aggregate_name")): each for each in entries}
        chosen = aggregates.get("median") or aggregates.get("mean")
        if chosen is None:
            return
        runs, weight = [chosen], max(1.0, _number(chosen.get("repetitions", 1)))
    factor = SECONDS.get(str(runs[0].get("time_unit", "ns")), 1e-9)
    kinds = (
        ("real_time", factor, "s", True),
        ("cpu_time", factor, "s", True),
        ("bytes_per_second", 1.0, "bytes/s", False),
        ("items_per_second", 1.0, "1/s", False),
    )
    for metric, scale, unit, is_lower_better in kinds:
        values = [_number(each[metric]) for each in runs if metric in each]
        if values:
            value = median(values) * scale
            yield ImportedPoint(name, metric, value, unit, is_lower_better, time, weight=weight)


def is_hyperfine(document: Mapping[str, Any]) -> bool:
    """Whether it is a file of `hyperfine --export-json`."""
    results = document.get("results")
    return isinstance(results, list) and bool(results) and "command" in results[0]


def hyperfine(document: Mapping[str, Any]) -> Iterator[ImportedPoint]:
    """Median, mean and min of each command, in seconds; its runs are the weight. The file does not say when it was."""
    for entry in document["results"]:
        weight = float(max(1, len(entry.get("times") or [])))
        for metric in ("median", "mean", "min", "user", "system"):
            if entry.get(metric) is not None:
                value = _number(entry[metric])
                yield ImportedPoint(str(entry["command"]), metric, value, "s", True, weight=weight)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _time(text: Any) -> float | None:
    """Seconds of an ISO text; a file without one, or with one that cannot be read, has no time."""
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
