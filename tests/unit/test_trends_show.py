"""`dtf trends show`: the lines of a series."""

from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import findings_pb2
from dtf.cli.trends_show_command import History, history_lines


def _history(*findings: pb.TrackedFinding, case_name: str = "c") -> History:
    key = pb.SeriesKey(suite="s", case_name=case_name, metric="m")
    return History(key, [1.0, 2.0], [3.0, 4.0], ["a", "b"], list(findings))


def test_what_was_set_aside_is_not_called_nothing() -> None:
    rejected = pb.TrackedFinding(finding=findings_pb2.Finding(finding_id="f"))
    assert history_lines(_history(), [])[-1] == "no change was found"
    assert history_lines(_history(rejected), [])[-1] == "nothing stands; 1 set aside, which --all shows"


def test_a_name_that_turns_the_line_around_is_shown_as_it_is() -> None:
    assert history_lines(_history(case_name="a\u202eb"), [])[0].startswith("a\\u202eb  m  2 runs")
