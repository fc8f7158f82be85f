"""History in a table: CSV, or text with tabs or semicolons; one value a line will do.

A column is the time if it is named so or its texts are dates, the revision if it is named so, and
otherwise values if most of what it has are numbers (or nothing: a missing value). Columns of other texts
name series: a table that has some is long, one line for each value of each series, and its series are
called as those texts. One without them is wide, and its series are called as their columns.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, pairwise

from dtf.core.trend.imports.cells import has_decimal_comma, is_missing, moment, number
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
LOOKED_AT = 200
"""Cells that say something, from which it is told what a column is."""
MOST_NAMED = 12
"""Columns that a message lists."""
NUMBERS_ARE_DATES_FROM = 1e8
"""A time column of numbers from here on is seconds since 1970 (1973 and later); below, it merely orders."""
WANTED_TIME = "expected a date as 2026-05-01T12:00 or seconds since 1970"


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells, with what is needed to say where they are."""

    source: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    """Where each row begins in the file, counted from 1."""
    has_decimal_commas: frozenset[int] = frozenset()
    """Columns of such numbers."""

    def sample(self, column: int) -> list[str]:
        """The column's first cells that are not missing."""
        return list(islice((row[column] for row in self.rows if not is_missing(row[column])), LOOKED_AT))

    def number(self, text: str, column: int) -> float | None:
        """The number in a cell of a column; None: it is none."""
        return number(text, is_comma_decimal=column in self.has_decimal_commas)

    def fault(self, row: int, column: int, what: str) -> ImportFault:
        """What is wrong with a cell."""
        text = self.rows[row][column]
        return ImportFault(
            f"{self.source}: line {self.lines[row]}, column {self.header[column]}: {text!r} {what}"
        )


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
    table = _table(text, source)
    if not table.rows:
        raise ImportFault(f"{source} has a header and no line below it: expected a line for each value")
    layout = _layout(table, time_column, revision_column, columns)
    if not layout.values:
        raise ImportFault(f"{source} has no column of numbers: its columns are {_listed(table.header)}")
    moments = _Moments(table, layout.time)
    points = list(_points(table, layout, moments))
    return gather(points, has_dates=moments.has_dates)


def _table(text: str, source: str) -> _Table:
    numbered: Iterator[tuple[int, str]] = (
        (at, line)
        for at, line in enumerate(io.StringIO(text.removeprefix("\ufeff"), newline=None), start=1)
        if line.strip() and not line.startswith("#")
    )
    first = next(numbered, None)
    if first is None:
        raise ImportFault(f"{source} is empty: expected a table with a line for each value")
    if first[1].startswith("sep="):  # Excel's word for what stands between cells
        delimiter = first[1][4:5]
    else:
        delimiter = _delimiter(first[1])
        numbered = chain([first], numbered)
    rows, lines = _cells(numbered, delimiter, source)
    width = len(rows[0])
    if any(map(_is_figure, rows[0])) and all(_is_figure(cell) or _is_blank(cell) for cell in rows[0]):
        header = [f"column {at + 1}" for at in range(width)]
    else:
        header = _told_apart(rows.pop(0))
        lines.pop(0)
    for row, line in zip(rows, lines, strict=True):
        if len(row) > width and any(row[width:]):
            is_cut = delimiter == "," and all(cell.isdigit() for cell in row[width:])
            hint = "; decimal commas need semicolons between the cells" if is_cut else ""
            raise ImportFault(f"{source}: line {line} has {len(row)} cells, the first line {width}{hint}")
        row.extend([""] * (width - len(row)))
    table = _Table(source, header, rows, lines)
    if delimiter == ",":
        return table
    commas = frozenset(at for at in range(width) if _is_comma_decimal(table.sample(at)))
    return _Table(source, header, rows, lines, commas)


def _delimiter(line: str) -> str:
    """What there is most of; a comma as well may be a decimal one."""
    return max(",;\t", key=lambda mark: (line.count(mark), mark != "," and mark in line))


def _is_figure(cell: str) -> bool:
    return number(cell) is not None or has_decimal_comma(cell)


def _is_blank(cell: str) -> bool:
    return is_missing(cell) or moment(cell) is not None


def _cells(
    numbered: Iterator[tuple[int, str]], delimiter: str, source: str
) -> tuple[list[list[str]], list[int]]:
    """The rows, and the line at which each begins (a quoted cell may have several)."""
    starts: list[int] = []

    def told() -> Iterator[str]:
        for at, line in numbered:
            starts.append(at)
            yield line

    rows, lines, read = [], [], 0
    reader = csv.reader(told(), delimiter=delimiter)
    try:
        for row in reader:
            rows.append([cell.strip() for cell in row])
            lines.append(starts[read])
            read = reader.line_num
    except csv.Error as error:
        raise ImportFault(f"{source} is no table: line {starts[-1]}: {error}") from None
    return rows, lines


def _told_apart(header: Sequence[str]) -> list[str]:
    """The names of the columns; those without one, or with one that was there before, by a number."""
    taken = set(header)
    seen: set[str] = set()
    last: dict[str, int] = {}
    names = []
    for at, name in enumerate(header):
        name = name or f"column {at + 1}"
        if name in seen:
            again = next(each for each in count(last.get(name, 1) + 1) if f"{name} ({each})" not in taken)
            last[name] = again
            name = f"{name} ({again})"
        seen.add(name)
        names.append(name)
    return names


def _listed(header: Sequence[str]) -> str:
    """The first names of columns, for messages."""
    more = len(header) - MOST_NAMED
    return ", ".join(header[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _is_comma_decimal(cells: Sequence[str]) -> bool:
    commas = sum(map(has_decimal_comma, cells))
    return 2 * commas > sum(has_decimal_comma(cell) or "." in cell for cell in cells)


def _layout(table: _Table, time_column: str, revision_column: str, columns: Sequence[str]) -> Layout:
    header = table.header
    time = _named(table, time_column) if time_column else _guess_time(table)
    revision = _named(table, revision_column) if revision_column else _guess(header, REVISION_NAMES)
    if revision == time:
        revision = None
    others = [at for at in range(len(header)) if at not in (time, revision)]
    samples = {at: table.sample(at) for at in others}
    numbers = [at for at in others if _is_numeric(table, at, samples[at])]
    numeric = frozenset(numbers)
    names = tuple(at for at in others if at not in numeric and samples[at])
    numbers = [at for at in numbers if not _is_counter(table, at)] or numbers
    if not numbers and not names:
        numbers = others  # columns of missing values alone
    if columns:
        wanted = [_named(table, each) for each in columns if each in header]
        numbers = wanted or numbers
        names = tuple(each for each in names if each not in wanted)
    return Layout(time, revision, names, tuple(numbers))


def _named(table: _Table, name: str) -> int:
    if name not in table.header:
        raise ImportFault(f"{table.source} has no column {name!r}: its columns are {_listed(table.header)}")
    return table.header.index(name)


def _guess(header: Sequence[str], names: frozenset[str]) -> int | None:
    wanted = (at for at, each in enumerate(header) if each.lower().replace(" ", "_") in names)
    return next(wanted, None)


def _guess_time(table: _Table) -> int | None:
    found = _guess(table.header, TIME_NAMES)
    if found is not None:
        sample = table.sample(found)
        if sample and all(moment(cell) is None for cell in sample):
            row = next(at for at, each in enumerate(table.rows) if not is_missing(each[found]))
            raise table.fault(
                row, found, f"is no time: {WANTED_TIME}, or name another column with --time-column"
            )
        if sample:
            return found
    columns = ((at, table.sample(at)) for at in range(len(table.header)))
    dates = (
        at
        for at, cells in columns
        if cells and all(number(cell) is None and moment(cell) is not None for cell in cells)
    )
    return next(dates, None)


def _is_numeric(table: _Table, column: int, cells: Sequence[str]) -> bool:
    """Whether most cells are numbers: the others are faults, and told."""
    return 2 * sum(table.number(cell, column) is not None for cell in cells) > len(cells)


def _is_counter(table: _Table, column: int) -> bool:
    """Whether it is the unnamed first column of a data frame: 0, 1, 2, …"""
    if column or table.header[0] != "column 1" or len(table.header) < 2:
        return False
    numbers = [table.number(cell, column) for cell in table.sample(column)]
    return all(a is not None and b == a + 1 for a, b in pairwise(numbers))


class _Moments:
    """Times of rows; whether they are dates."""

    def __init__(self, table: _Table, column: int | None) -> None:
        self._table = table
        self._column = column
        self.has_dates = False

    def read(self, row: int) -> float | None:
        """The time of a row; None: the table has none. Raises ImportFault."""
        if self._column is None:
            return None
        text = self._table.rows[row][self._column]
        found = moment(text)
        if found is None:
            raise self._table.fault(row, self._column, f"is no time: {WANTED_TIME}")
        self.has_dates |= found >= NUMBERS_ARE_DATES_FROM or number(text) is None
        return found


def _points(table: _Table, layout: Layout, moments: _Moments) -> Iterator[ImportedPoint]:
    for at, row in enumerate(table.rows):
        case = " ".join(row[each] for each in layout.names if row[each])
        time = moments.read(at)
        revision = "" if layout.revision is None else row[layout.revision]
        for column in layout.values:
            value = _value(table, at, column)
            yield ImportedPoint(case, table.header[column], value, time=time, revision=revision)


def _value(table: _Table, row: int, column: int) -> float:
    text = table.rows[row][column]
    found = table.number(text, column)
    if found is not None:
        return found
    if is_missing(text):
        return float("nan")
    commas = " with a decimal comma, as the others are" if column in table.has_decimal_commas else ""
    raise table.fault(
        row, column, f"is not a number{commas}; mend it, or leave it empty if nothing was measured"
    )
