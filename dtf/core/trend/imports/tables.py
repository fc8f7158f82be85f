"""History in a table: CSV, or text with tabs or semicolons; one value a line will do.

A column is the time if it is named so or its texts are dates, the revision if it is named so, and
otherwise values if all it has are numbers (or nothing: a missing value). Columns of other texts name
series: a table that has some is long, one line for each value of each series, and its series are
called as those texts. One without them is wide, and its series are called as their columns.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from dtf.core.trend.imports.series import ImportedPoint, ImportedSeries, ImportFault, gather

TIME_NAMES = frozenset(
    [
        "time",
        "timestamp",
        "date",
        "datetime",
        "_time",
        "commit_date",
        "commit_time",
        "commit_timestamp",
        "created_at",
        "started_at",
        "ts",
        "at",
    ]
)
REVISION_NAMES = frozenset(
    [
        "revision",
        "commit",
        "commit_id",
        "commit_hash",
        "sha",
        "git_sha",
        "hash",
        "rev",
        "version",
        "build",
        "git_commit",
        "git_hash",
        "changeset",
    ]
)
MISSING = frozenset(("", "nan", "na", "n/a", "null", "none", "-"))
LOOKED_AT = 200
"""Lines from which it is told what a column is."""
NUMBERS_ARE_DATES_FROM = 1e8
"""A time column of numbers from here on is seconds since 1970 (1973 and later); below, it merely orders."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What each column is, by position."""

    time: int | None
    revision: int | None
    names: tuple[int, ...]
    values: tuple[int, ...]


def read_table(
    text: str, source: str, *, time_column: str = "", revision_column: str = "", columns: Sequence[str] = ()
) -> list[ImportedSeries]:
    """The series of a table. Raises ImportFault.

    `columns` limits the values to columns of these names. Columns given by name must exist.
    """
    header, rows = _rows(text, source)
    layout = _layout(header, rows, source, time_column, revision_column, columns)
    if not layout.values:
        raise ImportFault(f"{source} has no column of numbers: its columns are {', '.join(header) or 'none'}")
    moments = _Moments(source)
    points = list(_points(header, rows, layout, source, moments))
    return gather(points, has_dates=moments.has_dates)


def _rows(text: str, source: str) -> tuple[list[str], list[list[str]]]:
    text = text.removeprefix("\ufeff")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise ImportFault(f"{source} is empty: expected a table with a line for each value")
    delimiter = max(",;\t", key=lines[0].count)
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise ImportFault(f"{source} is no table: {error}") from None
    if all(_is_number(cell) for cell in rows[0]):
        return [f"column {number + 1}" for number in range(len(rows[0]))], _even(rows, len(rows[0]), source)
    return rows[0], _even(rows[1:], len(rows[0]), source)


def _even(rows: list[list[str]], width: int, source: str) -> list[list[str]]:
    for number, row in enumerate(rows):
        if len(row) > width and any(row[width:]):
            raise ImportFault(
                f"{source}: line {number + 2} of the table has {len(row)} cells, its header {width}"
            )
        row.extend([""] * (width - len(row)))
    return rows


def _layout(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    source: str,
    time_column: str,
    revision_column: str,
    columns: Sequence[str],
) -> Layout:
    sample = rows[:LOOKED_AT]
    time = _named(header, time_column, source) if time_column else _guess_time(header, sample)
    revision = _named(header, revision_column, source) if revision_column else _guess(header, REVISION_NAMES)
    if revision == time:
        revision = None
    others = [number for number in range(len(header)) if number not in (time, revision)]
    numbers = [each for each in others if _is_numeric(sample, each)]
    names = tuple(each for each in others if each not in numbers and any(row[each] for row in sample))
    if columns:
        wanted = [_named(header, each, source) for each in columns if each in header]
        numbers = wanted or numbers
        names = tuple(each for each in names if each not in wanted)
    return Layout(time, revision, names, tuple(numbers))


def _named(header: Sequence[str], name: str, source: str) -> int:
    if name not in header:
        raise ImportFault(f"{source} has no column {name!r}: its columns are {', '.join(header)}")
    return header.index(name)


def _guess(header: Sequence[str], names: frozenset[str]) -> int | None:
    wanted = (number for number, each in enumerate(header) if each.lower().replace(" ", "_") in names)
    return next(wanted, None)


def _guess_time(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int | None:
    found = _guess(header, TIME_NAMES)
    if found is not None and any(_moment(row[found]) is not None for row in rows):
        return found
    dates = (
        number
        for number in range(len(header))
        if rows and all(not _is_number(row[number]) and _moment(row[number]) is not None for row in rows)
    )
    return next(dates, None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    cells = [row[column] for row in rows if row[column].lower() not in MISSING]
    return bool(cells) and all(_is_number(cell) for cell in cells)


def _moment(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


class _Moments:
    """Times of lines; whether they are dates."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.has_dates = False

    def read(self, text: str, line: int) -> float:
        """The time in a cell. Raises ImportFault."""
        moment = _moment(text)
        if moment is None or not math.isfinite(moment):
            raise ImportFault(
                f"{self._source}: line {line} of the table has the time {text!r}; expected a date as "
                "2026-05-01T12:00 or seconds since 1970"
            )
        self.has_dates |= not _is_number(text) or moment >= NUMBERS_ARE_DATES_FROM
        return moment


def _points(
    header: Sequence[str], rows: Sequence[Sequence[str]], layout: Layout, source: str, moments: _Moments
) -> Iterator[ImportedPoint]:
    for line, row in enumerate(rows, start=2):
        case = " ".join(row[each] for each in layout.names if row[each])
        time = None if layout.time is None else moments.read(row[layout.time], line)
        revision = "" if layout.revision is None else row[layout.revision]
        for column in layout.values:
            value = _value(row[column], line, header[column], source)
            yield ImportedPoint(case, header[column], value, time=time, revision=revision)


def _value(text: str, line: int, column: str, source: str) -> float:
    if text.lower() in MISSING:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ImportFault(
            f"{source}: line {line}, column {column!r} is {text!r}, which is no number"
        ) from None
