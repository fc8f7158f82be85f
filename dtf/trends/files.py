"""Series from files and folders that other tools wrote."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from dtf.core.trend.imports.reading import SourceText, TableColumns, read_history
from dtf.core.trend.imports.series import ImportedSeries

LARGEST_BYTES = 256 * 2**20
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
SUFFIXES = (".json", ".csv", ".tsv")
"""Of the files that are read in a folder."""


def load(
    *paths: "str | PathLike[str]",
    columns: Sequence[str] = (),
    time_column: str = "",
    revision_column: str = "",
    use_file_times: bool = False,
) -> list[ImportedSeries]:
    """The series in files and folders: CSV, pytest-benchmark, Google Benchmark, hyperfine, asv.

    `columns`, `time_column` and `revision_column` name columns of a table; they are guessed otherwise.
    With `use_file_times` values that have no time (hyperfine's) have that of their file's last change.
    Raises ValueError with one line that says what is wrong, and OSError for what cannot be read.
    """
    sources = [source for path in paths for source in _sources(Path(fspath(path)), use_file_times)]
    if not sources:
        folders = ", ".join(fspath(path) for path in paths[:3]) or "no file"
        raise ValueError(f"nothing to read in {folders}: expected files that end in {', '.join(SUFFIXES)}")
    return read_history(sources, TableColumns(time_column, revision_column, tuple(columns)))


def load_one(path: "str | PathLike[str]", column: str | None = None) -> ImportedSeries:
    """The series called `column`, or the only one. Raises ValueError that lists them otherwise."""
    return choose(load(path), column, str(path))


def choose(series: Sequence[ImportedSeries], name: str | None, source: str) -> ImportedSeries:
    """The series of that name, metric or case, or the only one. Raises ValueError that lists them otherwise."""
    found = [each for each in series if name is None or name in (each.name, each.metric, each.case)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(each.name) for each in (found or series)[:8])
    more = "" if len(found or series) <= 8 else f" and {len(found or series) - 8} more"
    if not found:
        raise ValueError(f"{source} has no series {name!r}; it has {names}{more}")
    raise ValueError(f"{source} holds {len(found)} series: name one of {names}{more} as `column`")


def _sources(path: Path, use_file_times: bool) -> list[SourceText]:
    if not path.is_dir():
        return [_source(path, use_file_times, is_asked_for=True)]
    files = [each for each in sorted(path.rglob("*")) if each.suffix in SUFFIXES and each.is_file()]
    return [_source(each, use_file_times, is_asked_for=False) for each in files]


def _source(path: Path, use_file_times: bool, *, is_asked_for: bool) -> SourceText:
    status = path.stat()
    if status.st_size > LARGEST_BYTES:
        raise ValueError(f"{path} has more than {LARGEST_BYTES >> 20} MiB")
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:  # what has no size: a device, a pipe
        raise ValueError(f"{path} gives more than {LARGEST_BYTES >> 20} MiB")
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is no text in UTF-8 (line {line}): save it as CSV or JSON in UTF-8"
        ) from None
    return SourceText(path.as_posix(), text, is_asked_for, status.st_mtime if use_file_times else None)
