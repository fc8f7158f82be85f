"""`dtf trends show`: the lines of a series."""

import pytest

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.errors import CommandError
from dtf.cli.trends_show_command import History, choose, document, history_lines, picture
from dtf.trends.plotting import draw_svg


def _history(*findings: pb.TrackedFinding, case_name: str = "c", count: int = 12) -> History:
    key = pb.SeriesKey(suite="s", case_name=case_name, metric="m")
    values = [float(each) for each in range(count)]
    return History(key, values, values, [f"r{each}" for each in range(count)], list(findings))


def test_what_was_set_aside_is_not_called_nothing() -> None:
    rejected = pb.TrackedFinding(finding=findings_pb2.Finding(finding_id="f"))
    assert history_lines(_history(), [])[-1] == "no change was found"
    assert history_lines(_history(count=3), [])[-1] == "fewer than 12 points; nothing could have been found"
    assert history_lines(_history(rejected), [])[-1] == "nothing stands; 1 set aside, which --all shows"


def test_a_name_that_turns_the_line_around_is_shown_as_it_is() -> None:
    assert history_lines(_history(case_name="a\u202eb"), [])[0].startswith("a\\u202eb  m  12 runs")


def test_a_series_without_a_finding_keeps_its_unit_and_direction() -> None:
    history = _history()
    history.runs = [""] * 12
    history.unit, history.is_lower_better = "ms", False
    assert history_lines(history, [])[0] == "c  m  12 values, newest 11 ms, higher is better"
    shown = document(history)
    assert (shown["unit"], shown["is_lower_better"], shown["runs"]) == ("ms", False, [""] * 12)
    drawn = draw_svg(picture(history, []))
    assert ">ms</text>" in drawn and ">c m, higher is better</text>" in drawn


def _key(case_name: str, metric: str = "duration_seconds", suite: str = "s") -> pb.SeriesKey:
    return pb.SeriesKey(suite=suite, case_name=case_name, metric=metric)


@pytest.mark.parametrize(
    ("name", "metric", "expected"),
    [
        ("big", "", "no series 'big' among 5"),
        ("load", "size", "'load' has no metric 'size'"),
        ("test", "", "'test' is in 2 series: s test_a, t test_a"),
        ("load", "", "'load' has 2 metrics: rate, lag"),
        ("test", "cpu_seconds", _key("test_a", "cpu_seconds")),
        ("load", "lag", _key("load", "lag")),
    ],
)
def test_a_series_is_found_or_it_is_said_what_there_is(
    name: str, metric: str, expected: str | pb.SeriesKey
) -> None:
    known = [
        _key("test_a"),
        _key("test_a", "cpu_seconds"),
        _key("test_a", suite="t"),
        _key("load", "rate"),
        _key("load", "lag"),
    ]
    if isinstance(expected, pb.SeriesKey):
        assert choose(known, name, metric) == expected
        return
    with pytest.raises(CommandError) as told:
        choose(known, name, metric)
    assert told.value.what == expected
