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
    """The folder is not in the format; one line that says what was seen where, and what was expected."""


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
    _check_folder(folder)
    path = next(iter(sorted(folder.rglob("annotations.json"))), None)
    if path is None:
        near = folder.parent / "annotations.json"
        hint = f"; there is one in {near.parent}: name that folder" if near.exists() else ""
        raise FolderError(f"no annotations.json in {folder}: it maps a series to its annotators' marks{hint}")
    annotations = _annotations(path)
    files = [each for each in sorted(folder.rglob("*.json")) if each != path]
    series = {each.name: each for file in files if (each := _annotated(file, annotations)) is not None}
    if not series:
        raise FolderError(
            f"none of the {len(files)} other JSON files in {folder} has a name that {path} knows, as "
            f"{next(iter(annotations))!r}"
        )
    return [series[name] for name in sorted(series)]


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FolderError(
            f"{folder} is no folder{' but a file' if folder.exists() else ', there is nothing'}"
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise FolderError(f"{path} is no JSON: {error}") from None
    except UnicodeDecodeError:
        raise FolderError(f"{path} is no text in UTF-8") from None
    except OSError as error:
        raise FolderError(f"{path} cannot be read: {error.strerror}") from None


def _annotations(path: Path) -> dict[str, dict[str, list[int]]]:
    found = _json(path)
    wanted = 'expected {"series": {"annotator": [positions, counted from 0]}}'
    if not isinstance(found, dict) or not found:
        raise FolderError(f"{path} has no annotations: {wanted}")
    for name, marks in found.items():
        if not isinstance(marks, dict) or not marks:
            raise FolderError(f"{path}: {name!r} has no annotators: {wanted}")
        for annotator, positions in marks.items():
            if not isinstance(positions, list) or not all(type(each) is int for each in positions):
                raise FolderError(
                    f"{path}: annotator {annotator!r} of {name!r} has {positions!r:.60}: {wanted}"
                )
    return found


def _annotated(path: Path, annotations: dict[str, dict[str, list[int]]]) -> AnnotatedSeries | None:
    content = _json(path)
    if not isinstance(content, dict) or "series" not in content or content.get("name") not in annotations:
        return None
    name, columns = content["name"], content["series"]
    if not isinstance(columns, list) or not columns:
        raise FolderError(f'{path}: "series" has no dimension: expected [{{"label": …, "raw": [values]}}]')
    values = [_column(path, number, column) for number, column in enumerate(columns)]
    if len({len(each) for each in values}) > 1:
        lengths = ", ".join(str(len(each)) for each in values)
        raise FolderError(f"{path}: its dimensions have {lengths} values, expected as many in each")
    count = len(values[0])
    marked = [each for positions in annotations[name].values() for each in positions]
    if wrong := [each for each in marked if not 0 <= each < count]:
        raise FolderError(f"{path} has {count} values, and a mark is at {wrong[0]}, counted from 0")
    return AnnotatedSeries(name, np.column_stack(values), annotations[name])


def _column(path: Path, number: int, column: Any) -> Floats:
    """The values of one dimension; null is a missing one."""
    raw = column.get("raw") if isinstance(column, dict) else None
    if not isinstance(raw, list) or not raw:
        raise FolderError(f'{path}: dimension {number} has no values: expected {{"raw": [values]}}')
    for at, each in enumerate(raw):
        if each is not None and (isinstance(each, bool) or not isinstance(each, int | float)):
            raise FolderError(
                f"{path}: value {at} of dimension {number} is {each!r}: expected a number, or null"
            )
    return np.asarray(raw, dtype=np.float64)


def read_labelled(folder: Path) -> list[LabelledSeries]:
    """The labelled series of a folder, by path."""
    _check_folder(folder)
    path = folder / "labels" / "combined_windows.json"
    if not path.exists():
        above = folder.parent / "labels" / "combined_windows.json"
        hint = f"; there is one for {folder.parent}: name that folder" if above.exists() else ""
        raise FolderError(
            f"no {path}: it maps a path below data/ to the first and last time of each window{hint}"
        )
    windows = _json(path)
    if not isinstance(windows, dict) or not windows:
        raise FolderError(f'{path} has no windows: expected {{"folder/file.csv": [[first time, last time]]}}')
    missing = [name for name in windows if not (folder / "data" / name).is_file()]
    if missing:
        raise FolderError(f"{path} names {missing[0]}, which is not below {folder / 'data'}")
    return [_labelled(path, name, folder / "data" / name, windows[name]) for name in sorted(windows)]


def _labelled(labels: Path, name: str, path: Path, windows: Any) -> LabelledSeries:
    times: list[float] = []
    values: list[float] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"timestamp", "value"} <= set(reader.fieldnames or ()):
            raise FolderError(f"{path} has the columns {reader.fieldnames}: expected timestamp,value")
        for row in reader:
            try:
                times.append(_seconds(row["timestamp"]))
                values.append(float(row["value"]))
            except (TypeError, ValueError) as error:
                raise FolderError(f"{path}: line {reader.line_num}: {error}") from None
            if not np.isfinite(values[-1]):
                raise FolderError(
                    f"{path}: line {reader.line_num}: no value; a detector of NAB's gets one each time"
                )
    if not values:
        raise FolderError(f"{path} has a header and no values")
    edges = sorted(_window(labels, name, times, each) for each in windows)
    return LabelledSeries(name, np.asarray(times), np.asarray(values), tuple(edges))


def _window(labels: Path, name: str, times: Sequence[float], window: Any) -> tuple[int, int]:
    """First and last position; each edge at that very time, as NAB has it (clocks are set back in some files)."""
    try:
        first, last = (times.index(_seconds(edge)) for edge in window)
    except (TypeError, ValueError):
        raise FolderError(
            f"{labels}: {name} has the window {window}: expected [first, last], times that are in the file"
        ) from None
    return first, last


def _seconds(text: str) -> float:
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def check_folders(annotated: Path | None, labelled: Path | None) -> None:
    """Raises FolderError where one of them cannot be read: before minutes of measuring, not after them."""
    if annotated is not None:
        read_annotated(annotated)
    if labelled is not None:
        read_labelled(labelled)


def as_json_values(values: Floats) -> list[Any]:
    """For a request to a peer: rows of a series of shape (n, d)."""
    rows: list[Any] = values.tolist()
    return rows
