"""Reads what suites write about themselves: JUnit XML and the JSON of three benchmark programs.

These files are written by code under test and are not trusted: their size is bounded, XML that
declares a document type (and with it entities that expand without end) is refused, JSON is read
against the shape that is needed, and every number must be finite.
"""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import msgspec

from dtf.api.v1 import common_pb2, events_pb2

MAX_FILE_BYTES = 64 * 2**20
MAX_LISTED_BYTES = 96 * 1024
"""Of the cases that are listed one by one; an event holds at most 256 KiB."""
MAX_DEPTH = 64
MAX_NAME = 500
MAX_MESSAGE = 500
_VERDICT_ELEMENTS = {
    "failure": common_pb2.VERDICT_FAILED,
    "error": common_pb2.VERDICT_ERROR,
    "skipped": common_pb2.VERDICT_SKIPPED,
}


class ResultFileError(ValueError):
    """A result file is missing, malformed or hostile; the message says which and how."""


@dataclass(slots=True)
class JUnitCases:
    """What a JUnit file said."""

    listed: list[events_pb2.FoundCase] = field(default_factory=list)
    """Cases, those that did not pass first, as many as there is room for."""
    count: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    message: str = ""
    """In one line: how many failed, and whether some are not listed."""


def verdict_of(cases: JUnitCases) -> "common_pb2.Verdict.ValueType":
    """The verdict of all cases together."""
    if cases.failed:
        return common_pb2.VERDICT_FAILED
    if cases.errors:
        return common_pb2.VERDICT_ERROR
    if cases.skipped == cases.count:
        return common_pb2.VERDICT_SKIPPED
    return common_pb2.VERDICT_PASSED


def read_junit(path: Path) -> JUnitCases:
    """The cases of a JUnit XML file. Raises ResultFileError."""
    found = _JUnitParser(path).parse(_read(path))
    cases = JUnitCases(count=len(found))
    for case in found:
        cases.failed += case.verdict == common_pb2.VERDICT_FAILED
        cases.errors += case.verdict == common_pb2.VERDICT_ERROR
        cases.skipped += case.verdict == common_pb2.VERDICT_SKIPPED
    found.sort(key=lambda case: case.verdict == common_pb2.VERDICT_PASSED)
    size = 0
    for case in found:
        size += case.ByteSize() + 3
        if size > MAX_LISTED_BYTES:
            break
        cases.listed.append(case)
    cases.message = _summary(cases)
    return cases


def _summary(cases: JUnitCases) -> str:
    parts = []
    if cases.failed or cases.errors:
        parts.append(f"{cases.failed} failed and {cases.errors} in error of {cases.count} cases")
    if len(cases.listed) < cases.count:
        parts.append(f"{len(cases.listed)} of {cases.count} cases are listed")
    return "; ".join(parts)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read(path: Path) -> bytes:
    try:
        # A pipe that nobody writes to would be opened for ever.
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ResultFileError(f"{path} is no file; expected one that the command wrote")
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ResultFileError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ResultFileError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


class _JUnitParser:
    """Reads <testcase> elements, wherever they are, with expat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cases: list[events_pb2.FoundCase] = []
        self._case: events_pb2.FoundCase | None = None
        self._depth = 0
        self._text: list[str] | None = None

    def parse(self, data: bytes) -> list[events_pb2.FoundCase]:
        """The cases. Raises ResultFileError."""
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.EntityDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise ResultFileError(f"{self._path} is not well-formed XML: {error}") from None
        except (ValueError, LookupError) as error:
            raise (
                error
                if isinstance(error, ResultFileError)
                else ResultFileError(f"{self._path} cannot be read: {error}")
            ) from None
        return self._cases

    def _refuse_doctype(self, *_: object) -> None:
        raise ResultFileError(f"{self._path} declares a document type or an entity; JUnit files need neither")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ResultFileError(f"{self._path} nests elements more than {MAX_DEPTH} deep")
        local = name.rpartition(":")[2]
        if local == "testcase":
            self._case = _found_case(attributes)
        elif self._case is not None and local in _VERDICT_ELEMENTS:
            self._judge(_VERDICT_ELEMENTS[local], attributes)

    def _judge(self, verdict: "common_pb2.Verdict.ValueType", attributes: dict[str, str]) -> None:
        assert self._case is not None
        if self._case.verdict in (common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED):
            self._case.verdict = verdict
            self._case.message = _line(attributes.get("message", ""), MAX_MESSAGE)
            self._text = [] if not self._case.message else None

    def _characters(self, text: str) -> None:
        if self._text is not None and len(self._text) < 64:
            self._text.append(text)

    def _end(self, name: str) -> None:
        self._depth -= 1
        local = name.rpartition(":")[2]
        if local in _VERDICT_ELEMENTS and self._text is not None and self._case is not None:
            self._case.message = _line("".join(self._text), MAX_MESSAGE)
            self._text = None
        elif local == "testcase" and self._case is not None:
            self._cases.append(self._case)
            self._case = self._text = None


def _found_case(attributes: dict[str, str]) -> events_pb2.FoundCase:
    class_name, name = attributes.get("classname", ""), attributes.get("name", "")
    full = "::".join(filter(None, (class_name, name))) or "(unnamed)"
    is_skipped = attributes.get("status", "") in ("notrun", "disabled", "skipped")
    return events_pb2.FoundCase(
        name=_line(full, MAX_NAME),
        verdict=common_pb2.VERDICT_SKIPPED if is_skipped else common_pb2.VERDICT_PASSED,
        duration_seconds=_seconds(attributes.get("time", "")),
    )


def _seconds(text: str) -> float:
    """A duration as JUnit writers spell it, also "1,234.5"; 0 if it is none."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0


def _line(text: str, limit: int) -> str:
    return " ".join(text.split())[:limit]


# Benchmarks.

_NANOSECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


class _Stats(msgspec.Struct):
    min: float
    max: float
    mean: float
    stddev: float
    median: float
    rounds: int


class _PytestBenchmark(msgspec.Struct):
    fullname: str
    stats: _Stats
    extra_info: dict[str, object] = {}


class _PytestBenchmarkFile(msgspec.Struct):
    benchmarks: list[_PytestBenchmark]


class _GoogleBenchmark(msgspec.Struct):
    name: str
    run_type: str = "iteration"
    real_time: float | None = None
    cpu_time: float | None = None
    time_unit: str = "ns"
    bytes_per_second: float | None = None
    items_per_second: float | None = None
    error_occurred: bool = False


class _GoogleBenchmarkFile(msgspec.Struct):
    benchmarks: list[_GoogleBenchmark]


class _HyperfineResult(msgspec.Struct):
    command: str
    mean: float
    median: float
    min: float
    max: float
    stddev: float | None = None
    user: float | None = None
    system: float | None = None


class _HyperfineFile(msgspec.Struct):
    results: list[_HyperfineResult]


def read_benchmarks(
    path: Path, format: "common_pb2.BenchmarkFormat.ValueType"
) -> list[events_pb2.Measurement]:
    """The measurements of a benchmark file. Raises ResultFileError."""
    data = _read(path)
    try:
        found = list(_measurements(data, format))
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        name = common_pb2.BenchmarkFormat.Name(format)
        raise ResultFileError(f"{path} is not a {name} file: {error}") from None
    return [one for one in found if math.isfinite(one.value)]


def _measurements(
    data: bytes, format: "common_pb2.BenchmarkFormat.ValueType"
) -> Iterator[events_pb2.Measurement]:
    match format:
        case common_pb2.BENCHMARK_FORMAT_PYTEST_BENCHMARK:
            return _from_pytest_benchmark(msgspec.json.decode(data, type=_PytestBenchmarkFile))
        case common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK:
            return _from_google_benchmark(msgspec.json.decode(data, type=_GoogleBenchmarkFile))
        case common_pb2.BENCHMARK_FORMAT_HYPERFINE:
            return _from_hyperfine(msgspec.json.decode(data, type=_HyperfineFile))
        case _:
            raise ResultFileError("the command names a benchmark file but no format of it")


def _measurement(case: str, metric: str, value: float, unit: str, *, lower: bool) -> events_pb2.Measurement:
    return events_pb2.Measurement(
        metric=metric, value=value, unit=unit, is_lower_better=lower, case_name=_line(case, MAX_NAME)
    )


def _from_pytest_benchmark(file: _PytestBenchmarkFile) -> Iterator[events_pb2.Measurement]:
    for entry in file.benchmarks:
        for metric in ("min", "max", "mean", "stddev", "median"):
            yield _measurement(entry.fullname, metric, getattr(entry.stats, metric), "s", lower=True)


def _from_google_benchmark(file: _GoogleBenchmarkFile) -> Iterator[events_pb2.Measurement]:
    for entry in file.benchmarks:
        if entry.error_occurred:
            continue
        factor = _NANOSECONDS.get(entry.time_unit, 1e-9)
        for metric, value in (("real_time", entry.real_time), ("cpu_time", entry.cpu_time)):
            if value is not None:
                yield _measurement(entry.name, metric, value * factor, "s", lower=True)
        for metric, value in (
            ("bytes_per_second", entry.bytes_per_second),
            ("items_per_second", entry.items_per_second),
        ):
            if value is not None:
                unit = "bytes/s" if metric == "bytes_per_second" else "1/s"
                yield _measurement(entry.name, metric, value, unit, lower=False)


def _from_hyperfine(file: _HyperfineFile) -> Iterator[events_pb2.Measurement]:
    for entry in file.results:
        for metric in ("mean", "median", "min", "max", "stddev", "user", "system"):
            value = getattr(entry, metric)
            if value is not None:
                yield _measurement(entry.command, metric, value, "s", lower=True)
