"""Traces as CSV: what is read, and what is refused in one line."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtf.core.simulation.scaling.trace import TraceFault, make_trace, parse_trace

pytestmark = pytest.mark.resource_manager


def _parse(text: str) -> list[tuple[float, float]]:
    trace = parse_trace("jobs.csv", io.StringIO(text, newline=""))
    return list(zip(trace.submits, trace.durations, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "submit_seconds,duration_seconds\n0,3\n5,1\n",
        "0,3\n5,1\n",
        "\ufeffsubmit_seconds,duration_seconds,cpus\r\n0,3,1\r\n5,1,1\r\n",
        "# who made it\n\n1700000000,3\n 1700000005 , 1 ,\n",
        "Submit_Seconds, Duration_Seconds\n5,1\n0,3\n",
    ],
    ids=["with a header", "without one", "from a spreadsheet", "with a comment and blanks", "unsorted"],
)
def test_a_trace_is_read(text: str) -> None:
    assert _parse(text) == [(0, 3), (5, 1)]


def test_a_trace_out_of_order_says_so() -> None:
    assert parse_trace("jobs.csv", ["0,1", "5,1"]).is_sorted
    assert not parse_trace("jobs.csv", ["5,1", "0,1"]).is_sorted


def test_cpus_are_kept_where_they_are_not_one() -> None:
    assert not parse_trace("jobs.csv", ["0,1,1", "1,1"]).cpus
    assert list(parse_trace("jobs.csv", ["0,1,2", "1,1"]).cpus) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "jobs.csv holds no task"),
        ("submit_seconds,duration_seconds\n", "holds no task"),
        ("0,1\n3,nan\n", "line 2: duration_seconds is nan, expected a finite number"),
        ("0,inf", "line 1: duration_seconds is inf"),
        ("0,-1", "line 1: duration_seconds is -1, expected 0 to 1e"),
        ("-3,1", "line 1: submit_seconds is -3, expected 0 to 1e"),
        ("0,1e300", "duration_seconds is 1e+300, expected 0 to 1e"),
        ("0,1\n9e9,1", "from the first submission to the last are 9e+09 s"),
        ("0,1,0", "cpus is 0, expected more than 0"),
        ("0,1,-2", "cpus is -2"),
        ("0,1,1e9", "cpus is 1e+09"),
        ("0", "line 1 has 1 columns"),
        ("0,1,2,3", "line 1 has 4 columns"),
        ("0,1\nx,2", "line 2: submit_seconds is 'x', expected a number"),
        ("time,length\n0,1", "line 1 names the columns 'time,length', expected submit_seconds"),
        ('"0,1', "is no CSV"),
        ("0,\x00", "duration_seconds is '\\x00'"),
        ("0," + "9" * 200_000, "is no CSV"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(TraceFault) as caught:
        _parse(text)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 200


def test_a_trace_of_too_many_tasks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtf.core.simulation.scaling.trace.MOST_TASKS", 3)
    with pytest.raises(TraceFault, match="more than 3 tasks"):
        _parse("0,1\n" * 4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e7), st.floats(0.1, 64)), min_size=1, max_size=20))
def test_what_is_written_is_read_again(rows: list[tuple[float, float, float]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    text.seek(0)
    assert parse_trace("jobs.csv", text) == make_trace("jobs.csv", list(rows))
