"""Tells what a text is, and reads it."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dtf.core.trend.imports.asv import BENCHMARKS_FILE, asv, is_asv_result, origin
from dtf.core.trend.imports.benchmarks import (
    google_benchmark,
    hyperfine,
    is_google_benchmark,
    is_hyperfine,
    is_pytest_benchmark,
    pytest_benchmark,
)
from dtf.core.trend.imports.series import ImportedPoint, ImportedSeries, ImportFault, gather
from dtf.core.trend.imports.tables import read_table

Document = Mapping[str, Any]
FORMATS: Sequence[tuple[Callable[[Document], bool], Callable[[Document], Iterator[ImportedPoint]]]] = (
    (is_pytest_benchmark, pytest_benchmark),
    (is_google_benchmark, google_benchmark),
    (is_hyperfine, hyperfine),
)
KNOWN = "JSON of pytest-benchmark, Google Benchmark, hyperfine or asv, or a table as CSV"


@dataclass(frozen=True, slots=True)
class SourceText:
    """A file's content."""

    name: str
    """As the user knows it, for messages; slashes between folders."""
    text: str
    is_asked_for: bool = True
    """Named by the user, rather than found in a folder: what is of no known format is then a fault."""
    time: float | None = None
    """Seconds since 1970 for values whose file says no time."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """What the user says of a table's columns; empty: it is guessed."""

    time: str = ""
    revision: str = ""
    values: tuple[str, ...] = ()


def read_history(
    sources: Sequence[SourceText], columns: TableColumns = TableColumns()
) -> list[ImportedSeries]:
    """The series of all sources together. Raises ImportFault.

    Sources that do not say when they were written are taken in the natural order of their names.
    """
    ordered = sorted(sources, key=lambda source: _natural(source.name))
    tables: list[tuple[SourceText, list[ImportedSeries]]] = []
    documents = [(source, _document(source)) for source in ordered if _is_json(source)]
    folder = _asv(documents)
    points = [point for source, document in documents for point in _points(source, document, folder)]
    for source in ordered:
        if _is_json(source):
            continue
        if source.is_asked_for or source.name.endswith((".csv", ".tsv")):
            series = read_table(
                source.text,
                source.name,
                time_column=columns.time,
                revision_column=columns.revision,
                columns=columns.values,
            )
            tables.append((source, series))
    found = [*gather(points), *_named_apart(tables)]
    if not found:
        names = ", ".join(source.name for source in ordered[:3]) or "no file"
        raise ImportFault(f"nothing to read in {names}: expected {KNOWN}")
    return found


def _is_json(source: SourceText) -> bool:
    return source.name.endswith(".json") or source.text.lstrip()[:1] in ("{", "[")


def _natural(name: str) -> list[tuple[int, str]]:
    """0002 before 10, as people count."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


@dataclass(frozen=True, slots=True)
class _AsvFolder:
    """What the files of asv say together."""

    benchmarks: Document
    has_many_origins: bool


Documents = Sequence[tuple[SourceText, Document | None]]


def _asv(documents: Documents) -> _AsvFolder:
    named = [each for source, each in documents if source.name.rpartition("/")[2] == BENCHMARKS_FILE and each]
    origins = {origin(each) for _, each in documents if each is not None and is_asv_result(each)}
    return _AsvFolder(named[0] if named else {}, len(origins) > 1)


def _document(source: SourceText) -> Document | None:
    try:
        found = json.loads(source.text)
    except ValueError as error:
        raise ImportFault(f"{source.name} is no JSON: {error}") from None
    except RecursionError:
        raise ImportFault(f"{source.name} is nested too deeply to be of a known format") from None
    return found if isinstance(found, dict) else None


def _points(source: SourceText, document: Document | None, folder: _AsvFolder) -> list[ImportedPoint]:
    try:
        if document is not None and is_asv_result(document):
            suffix = f"({origin(document)})" if folder.has_many_origins else ""
            return list(asv(document, folder.benchmarks, suffix))
        for is_one, read in FORMATS:
            if document is not None and is_one(document):
                return [
                    each if each.time is not None else replace(each, time=source.time)
                    for each in read(document)
                ]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ImportFault(f"{source.name} has not the shape of its format: {error!r}") from error
    if source.is_asked_for:
        raise ImportFault(f"{source.name} is of no known format: expected {KNOWN}")
    return []


def _named_apart(tables: Sequence[tuple[SourceText, list[ImportedSeries]]]) -> list[ImportedSeries]:
    """Series of several tables, called after their files too."""
    if len(tables) == 1:
        return tables[0][1]
    return [
        replace(each, case=" ".join(filter(None, (_stem(source.name), each.case))))
        for source, series in tables
        for each in series
    ]


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0] or name
