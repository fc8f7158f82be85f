"""What was asked of a pool: when each task came, how long it ran, how many CPUs it needed.

A trace as a file is CSV, `submit_seconds,duration_seconds[,cpus]`, with or without that header.
Instants are seconds from any origin; the first submission is the trace's zero.
"""

import csv
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

COLUMNS = ("submit_seconds", "duration_seconds", "cpus")
MOST_TASKS = 20_000_000
"""A trace with more is refused before the memory is full: a task takes some 40 bytes."""
LONGEST_SECONDS = 1e8
"""Three years, of a task or from the first submission to the last: what is longer is a mistake of units."""
LATEST_SECONDS = 1e13
"""Of a submission: an instant since 1970 may be given in seconds, even in milliseconds."""


MOST_CPUS = 1e5


class TraceFault(ValueError):
    """A trace cannot be read; the message says which line, what was seen and what is expected."""


@dataclass(slots=True)
class Trace:
    """Tasks in the order of their submission. Columns are as long as `submits`, or empty for their default."""

    name: str
    submits: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds since the first submission, never falling."""
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    """Seconds that a worker is busy with the task."""
    cpus: "array[float]" = field(default_factory=lambda: array("d"))
    """CPUs that the task needs; empty: 1 each."""
    is_sorted: bool = True
    """Whether the source had the tasks in this order."""
    expected: "array[float]" = field(default_factory=lambda: array("d"))
    """What was expected of its duration when it came; 0: nothing. Empty: nothing is known of any."""

    def __len__(self) -> int:
        return len(self.submits)


def parse_trace(name: str, lines: Iterable[str]) -> Trace:
    """The trace that `lines` hold, sorted by submission. Raises TraceFault."""
    rows: list[tuple[float, float, float]] = []
    try:
        reader = csv.reader(lines, strict=True)
        for cells in reader:
            number = reader.line_num
            if not cells or not any(cell.strip() for cell in cells) or cells[0].lstrip().startswith("#"):
                continue
            if not rows and _is_header(name, number, cells):
                continue
            rows.append(_row(name, number, cells))
            if len(rows) > MOST_TASKS:
                raise TraceFault(f"{name} has more than {MOST_TASKS:,} tasks: cut it into parts")
    except csv.Error as error:
        raise TraceFault(f"{name} is no CSV: {error}") from error
    if not rows:
        raise TraceFault(f"{name} holds no task: expected lines of {','.join(COLUMNS[:2])}[,{COLUMNS[2]}]")
    return make_trace(name, rows)


def make_trace(name: str, rows: list[tuple[float, float, float]]) -> Trace:
    """A trace of (submit seconds, duration seconds, CPUs), in any order. Raises TraceFault if it is too long."""
    is_sorted = all(before[0] <= after[0] for before, after in pairwise(rows))
    if not is_sorted:
        rows.sort(key=lambda row: row[0])
    first = rows[0][0] if rows else 0.0
    if rows and rows[-1][0] - first > LONGEST_SECONDS:
        raise TraceFault(
            f"{name}: from the first submission to the last are {rows[-1][0] - first:g} s, expected up to 1e8; "
            "submit_seconds are seconds"
        )
    trace = Trace(name, is_sorted=is_sorted)
    trace.submits.extend(row[0] - first for row in rows)
    trace.durations.extend(row[1] for row in rows)
    if any(row[2] != 1.0 for row in rows):
        trace.cpus.extend(row[2] for row in rows)
    return trace


def _is_header(name: str, number: int, cells: list[str]) -> bool:
    names = [cell.strip().lstrip("\ufeff").lower() for cell in cells]
    if names[:2] == list(COLUMNS[:2]):
        return True
    if number == 1 and all(text and not _is_number(text) for text in names[:2]):
        seen = ",".join(names)[:80]
        raise TraceFault(f"{name} line 1 names the columns {seen!r}, expected {','.join(COLUMNS[:2])}[,cpus]")
    return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _row(name: str, number: int, cells: list[str]) -> tuple[float, float, float]:
    while len(cells) > 2 and not cells[-1].strip():
        cells.pop()
    if not 2 <= len(cells) <= len(COLUMNS):
        raise TraceFault(f"{name} line {number} has {len(cells)} columns, expected {','.join(COLUMNS)}")
    submit, duration, cpus = (
        *(_figure(name, number, *pair) for pair in zip(COLUMNS, cells, strict=False)),
        1.0,
    )[:3]
    for column, value, most in zip(
        COLUMNS, (submit, duration), (LATEST_SECONDS, LONGEST_SECONDS), strict=False
    ):
        if not 0 <= value <= most:
            raise TraceFault(f"{name} line {number}: {column} is {value:g}, expected 0 to {most:g}")
    if not 0 < cpus <= MOST_CPUS:
        raise TraceFault(
            f"{name} line {number}: cpus is {cpus:g}, expected more than 0 and up to {MOST_CPUS:g}"
        )
    return submit, duration, cpus


def _figure(name: str, number: int, column: str, text: str) -> float:
    try:
        value = float(text.strip().lstrip("\ufeff"))
    except ValueError:
        raise TraceFault(f"{name} line {number}: {column} is {text[:40]!r}, expected a number") from None
    if not math.isfinite(value):
        raise TraceFault(f"{name} line {number}: {column} is {text.strip()[:40]}, expected a finite number")
    return value
