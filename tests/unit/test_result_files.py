"""Result files of suites: what they say, and that hostile ones are refused in one line."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtf.api.v1 import common_pb2
from dtf.worker import result_files
from dtf.worker.result_files import ResultFileError, read_benchmarks, read_junit, verdict_of

PASSED, FAILED = common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FAILED
ERROR, SKIPPED = common_pb2.VERDICT_ERROR, common_pb2.VERDICT_SKIPPED


def write(directory: Path, content: str | bytes) -> Path:
    path = directory / "results"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("body", "verdict", "message"),
    [
        ("", PASSED, ""),
        ("<failure message=' a\n b '/>", FAILED, "a b"),
        ("<failure>only text</failure>", FAILED, "only text"),
        ("<error type='E'>boom</error>", ERROR, "boom"),
        ("<skipped message='later'/>", SKIPPED, "later"),
        ("<system-out>x</system-out>", PASSED, ""),
        ("<skipped/><failure message='f'/>", FAILED, "f"),
        ("<failure message='first'/><error message='second'/>", FAILED, "first"),
    ],
)
def test_a_case_is_judged_by_the_elements_in_it(
    tmp_path: Path, body: str, verdict: int, message: str
) -> None:
    cases = read_junit(
        write(tmp_path, f"<testsuite><testcase name='n' time='1,000.5'>{body}</testcase></testsuite>")
    )
    (case,) = cases.listed
    assert (case.verdict, case.message, case.duration_seconds) == (verdict, message, 1000.5)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["", ""], PASSED),
        (["", "<skipped/>"], PASSED),
        (["<skipped/>", "<skipped/>"], SKIPPED),
        (["", "<error/>"], ERROR),
        (["<error/>", "<failure/>"], FAILED),
    ],
)
def test_the_verdict_of_many_is_that_of_the_worst(tmp_path: Path, verdicts: list[str], expected: int) -> None:
    body = "".join(f"<testcase name='{n}'>{inner}</testcase>" for n, inner in enumerate(verdicts))
    assert verdict_of(read_junit(write(tmp_path, f"<testsuites>{body}</testsuites>"))) == expected


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><t>&b;</t>"""
EXTERNAL = """<?xml version="1.0"?><!DOCTYPE t [<!ENTITY e SYSTEM "file:///etc/passwd">]><t>&e;</t>"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "declares a document type"),
        (EXTERNAL, "declares a document type"),
        ("<testsuite><testcase", "is not well-formed XML"),
        ("", "is not well-formed XML"),
        (b"\x00\xff\xfe", "is not well-formed XML"),
        ('<?xml version="1.0" encoding="no-such-code"?><t/>', "no-such-code|unknown encoding"),
        ("<a>" * 100 + "</a>" * 100, "nests elements more than 64 deep"),
    ],
)
def test_hostile_and_broken_xml_is_refused_in_one_line(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    with pytest.raises(ResultFileError, match=said) as refused:
        read_junit(write(tmp_path, content))
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ResultFileError, match=r"is no file|Is a directory"):
            read_junit(path)


def test_a_missing_and_an_oversized_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResultFileError, match="No such file"):
        read_junit(tmp_path / "missing")
    monkeypatch.setattr(result_files, "MAX_FILE_BYTES", 10)
    with pytest.raises(ResultFileError, match="is larger than"):
        read_junit(write(tmp_path, "<t>" + " " * 10 + "</t>"))


def test_of_very_many_cases_the_failures_are_listed_first_and_the_rest_counted(tmp_path: Path) -> None:
    body = (
        "".join(f"<testcase name='{'x' * 400}{n}'/>" for n in range(1000))
        + "<testcase name='bad'><failure/></testcase>"
    )
    cases = read_junit(write(tmp_path, f"<t>{body}</t>"))
    assert cases.count == 1001
    assert cases.listed[0].name == "bad"
    assert sum(case.ByteSize() for case in cases.listed) <= result_files.MAX_LISTED_BYTES
    assert f"{len(cases.listed)} of 1001 cases are listed" in cases.message


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory), content)
        for read in (
            lambda: read_junit(path),
            lambda: read_benchmarks(path, common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK),
        ):
            with contextlib.suppress(ResultFileError):
                read()


STATS = {"min": 1.0, "max": 3.0, "mean": 2.0, "stddev": 0.5, "median": 2.0, "rounds": 5, "iqr": 0.1}
BENCHMARKS = [
    (
        common_pb2.BENCHMARK_FORMAT_PYTEST_BENCHMARK,
        {"machine_info": {}, "benchmarks": [{"fullname": "t.py::b", "name": "b", "stats": STATS}]},
        ("t.py::b", "mean", 2.0, "s", True),
    ),
    (
        common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK,
        {
            "context": {},
            "benchmarks": [
                {
                    "name": "BM/8",
                    "run_type": "iteration",
                    "real_time": 2500.0,
                    "cpu_time": 2e3,
                    "time_unit": "us",
                    "items_per_second": 7.0,
                },
                {"name": "BM/9", "error_occurred": True, "error_message": "no"},
            ],
        },
        ("BM/8", "real_time", 0.0025, "s", True),
    ),
    (
        common_pb2.BENCHMARK_FORMAT_GOOGLE_BENCHMARK,
        {"benchmarks": [{"name": "BM", "items_per_second": 7.0}]},
        ("BM", "items_per_second", 7.0, "1/s", False),
    ),
    (
        common_pb2.BENCHMARK_FORMAT_HYPERFINE,
        {
            "results": [
                {
                    "command": "ls",
                    "mean": 1.0,
                    "median": 1.5,
                    "min": 0.5,
                    "max": 2.0,
                    "stddev": None,
                    "times": [],
                }
            ]
        },
        ("ls", "median", 1.5, "s", True),
    ),
]


@pytest.mark.parametrize(("format", "content", "expected"), BENCHMARKS)
def test_benchmark_files_become_measurements_in_base_units(
    tmp_path: Path,
    format: "common_pb2.BenchmarkFormat.ValueType",
    content: object,
    expected: tuple[str, str, float, str, bool],
) -> None:
    found = read_benchmarks(write(tmp_path, json.dumps(content)), format)
    assert expected in [(m.case_name, m.metric, m.value, m.unit, m.is_lower_better) for m in found]


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"results": [{"command": 1}]}', "{", '{"results": [1e999]}']
)
def test_json_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ResultFileError, match="is not a BENCHMARK_FORMAT_HYPERFINE file"):
        read_benchmarks(write(tmp_path, content), common_pb2.BENCHMARK_FORMAT_HYPERFINE)
