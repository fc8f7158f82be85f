"""Names and messages come from other people: what a terminal is shown of them does nothing to it."""

import re

import pytest

from dtf.api.v1 import common_pb2, fleet_service_pb2, run_service_pb2
from dtf.cli.progress_display import failure_line
from dtf.cli.run_progress import CaseNote
from dtf.cli.runs_command import case_lines, run_line
from dtf.cli.workers_command import worker_line
from dtf.report.output import plain_line

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\r\nfake line\x9b2J\x00\x7f\tend"
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def hostile_lines() -> list[str]:
    """Every kind of line that holds a name."""
    run = run_service_pb2.Run(run_id="r", suite=HOSTILE, state=common_pb2.RUN_STATE_FINISHED)
    case = run_service_pb2.Case(name=HOSTILE, verdict=common_pb2.VERDICT_FAILED)
    return [
        plain_line(HOSTILE),
        run_line(run),
        *case_lines([run_service_pb2.Task(task=1, cases=[case])], shows_all=False),
        worker_line(fleet_service_pb2.Worker(worker_id=HOSTILE, pool=HOSTILE, host=HOSTILE, reason=HOSTILE)),
        failure_line(CaseNote(HOSTILE, common_pb2.VERDICT_FAILED, HOSTILE, "w", 1)),
    ]


@pytest.mark.parametrize("line", hostile_lines())
def test_a_line_with_a_hostile_name_is_one_line_of_plain_text(line: str) -> None:
    assert not FORBIDDEN.search(line)
    assert "fake line" in line
