"""Reads annotated series in two public formats; the series themselves are not part of dtf.

Turing Change Point Dataset: a JSON file a series, anywhere below the folder, and annotations.json,
which maps a series' name to each annotator's positions, counted from 0. Numenta Anomaly Benchmark:
data/**.csv with the columns timestamp and value, and labels/combined_windows.json, which maps the
path below data/ to pairs of first and last timestamp.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.accuracy_scores import Floats


class FolderError(ValueError):
    """The folder is not in the format."""


@dataclass(frozen=True, slots=True)
class AnnotatedSeries:
    """A series with the change points that people marked."""

    name: str
    values: Floats
    """Shape (n, d); NaN: missing."""
    annotations: dict[str, list[int]]
    """Marks by annotator."""


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """A series with windows in which something unusual is."""

    name: str
    times: Floats
    """Seconds since 1970, shape (n,)."""
    values: Floats
    """Shape (n,)."""
    windows: tuple[tuple[int, int], ...]
    """First and last position, both included."""


def read_annotated(folder: Path) -> list[AnnotatedSeries]:
    """The annotated series of a folder, by name."""
    try:
        path = next(iter(sorted(folder.rglob("annotations.json"))), None)
        if path is None:
            raise FolderError(f"no annotations.json in {folder}: it maps a series to its annotators' marks")
        annotations: dict[str, dict[str, list[int]]] = json.loads(path.read_text())
        found = [
            _annotated(each, annotations) for each in sorted(folder.rglob("*.json")) if each.name != path.name
        ]
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise FolderError(
            f"{folder} is not in the format of the Turing Change Point Dataset: {error!r}"
        ) from error
    series = {each.name: each for each in found if each is not None}
    if not series:
        raise FolderError(
            f"no JSON file in {folder} has a name that {path.name} knows, as {next(iter(annotations))}"
        )
    return [series[name] for name in sorted(series)]


def _annotated(path: Path, annotations: dict[str, dict[str, list[int]]]) -> AnnotatedSeries | None:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or "series" not in content or content.get("name") not in annotations:
        return None
    columns = [np.asarray(each["raw"], dtype=np.float64) for each in content["series"]]
    return AnnotatedSeries(content["name"], np.column_stack(columns), annotations[content["name"]])


def read_labelled(folder: Path) -> list[LabelledSeries]:
    """The labelled series of a folder, by path."""
    path = folder / "labels" / "combined_windows.json"
    if not path.exists():
        raise FolderError(f"no {path}: it maps a path below data/ to the first and last time of each window")
    windows: dict[str, list[list[str]]] = json.loads(path.read_text())
    missing = [name for name in windows if not (folder / "data" / name).exists()]
    if missing:
        raise FolderError(f"{path.name} names {missing[0]}, which is not below {folder / 'data'}")
    try:
        return [_labelled(name, folder / "data" / name, windows[name]) for name in sorted(windows)]
    except (KeyError, TypeError, ValueError) as error:
        raise FolderError(f"{folder} is not in the format of NAB: {error!r}") from error


def _labelled(name: str, path: Path, windows: Sequence[Sequence[str]]) -> LabelledSeries:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    times = [_seconds(row["timestamp"]) for row in rows]
    values = [float(row["value"]) for row in rows]
    edges = tuple((_first(times, _seconds(start)), _first(times, _seconds(end))) for start, end in windows)
    return LabelledSeries(name, np.asarray(times), np.asarray(values), tuple(sorted(edges)))


def _seconds(text: str) -> float:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _first(times: Sequence[float], when: float) -> int:
    """The first position at that very time, as NAB has it (clocks are set back in some files)."""
    try:
        return times.index(when)
    except ValueError:
        raise FolderError(
            f"a window's edge {datetime.fromtimestamp(when, UTC)} is no time of the series"
        ) from None


def as_json_values(values: Floats) -> list[Any]:
    """For a request to a peer: rows of a series of shape (n, d)."""
    rows: list[Any] = values.tolist()
    return rows
