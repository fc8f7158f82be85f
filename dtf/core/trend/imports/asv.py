"""The results folder of asv (airspeed velocity): results/benchmarks.json and results/MACHINE/COMMIT-ENVIRONMENT.json."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dtf.core.trend.imports.series import ImportedPoint

BENCHMARKS_FILE = "benchmarks.json"
UNITS = {"seconds": "s", "bytes": "bytes"}


def is_asv_result(document: Mapping[str, Any]) -> bool:
    """Whether it holds the results of one commit."""
    return "commit_hash" in document and isinstance(document.get("results"), dict)


def origin(document: Mapping[str, Any]) -> str:
    """Machine and environment that the results are of: series of different ones are not one."""
    params = document.get("params")
    machine = str(params.get("machine") or "") if isinstance(params, dict) else ""
    return ", ".join(filter(None, (machine, str(document.get("env_name") or ""))))


def asv(
    document: Mapping[str, Any], benchmarks: Mapping[str, Any], suffix: str = ""
) -> Iterator[ImportedPoint]:
    """The result of each benchmark and combination of its parameters. Its time is the commit's.

    `benchmarks` is the content of benchmarks.json, which has units; without it values have none. Failed
    and skipped ones are missing values. `suffix` ends
    the names, where results of several origins are read together.
    """
    columns: Sequence[str] = document.get("result_columns") or ("result", "params")
    date = document.get("date")
    time = date / 1000.0 if isinstance(date, int | float) else None
    for name, entry in document["results"].items():
        row = _row(entry, columns)
        described = benchmarks.get(name)
        unit = str(described.get("unit", "")) if isinstance(described, dict) else ""
        for case, value in _cases(name, row):
            yield ImportedPoint(
                case=" ".join(filter(None, (case, suffix))),
                metric=_metric(name),
                value=value,
                unit=UNITS.get(unit, unit),
                is_lower_better=True,
                time=time,
                revision=str(document["commit_hash"]),
            )


def _row(entry: Any, columns: Sequence[str]) -> dict[str, Any]:
    """One benchmark's columns; old files have the bare result or a mapping."""
    if isinstance(entry, dict):
        return entry
    if isinstance(entry, list):
        return dict(zip(columns, entry, strict=False))
    return {"result": [entry]}


def _cases(name: str, row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    results = row.get("result")
    if not isinstance(results, list):
        results = [results]
    # no more of them than results: a few long lists have more combinations than there is memory
    combinations = list(itertools.islice(itertools.product(*(row.get("params") or [])), len(results)))
    for number, result in enumerate(results):
        inside = ", ".join(map(str, combinations[number])) if number < len(combinations) else ""
        value = float(result) if isinstance(result, int | float) else math.nan
        yield (f"{name}({inside})" if inside else name), value


def _metric(name: str) -> str:
    """What a benchmark measures, by the prefix that asv goes by."""
    last = name.rpartition(".")[2]
    for prefix in ("timeraw", "time", "peakmem", "mem", "track"):
        if last.startswith(f"{prefix}_") or last.lower().startswith(prefix):
            return {"timeraw": "time"}.get(prefix, prefix)
    return "value"
