"""Work that cannot end before a test has done to the system what it came to do: its last cases wait for a gate."""

from collections.abc import Mapping, Sequence

from dtf.api.v1 import events_pb2
from tests.e2e.project import Project

CASES = 60
GATED = 4
"""As many as run at once on the workers of a test, and more: while these wait, something runs."""
RUNS: Mapping[str, Sequence[str]] = {
    "commands": ("run", "--each", "commands.txt", "--json"),
    "pytest": ("run", "test_suite.py", "-q"),
}
_SUITE = """
import os, time
import pytest

@pytest.mark.parametrize("number", range({cases}))
def test_case(number):
    time.sleep(0.1)
    while number >= {first_gated} and not os.path.exists({gate!r}):
        time.sleep(0.02)
"""


class GatedWork:
    """The files of a run of either kind, in a project."""

    def __init__(self, project: Project) -> None:
        self._gate = project.directory / "gate"
        wait = f"until [ -e {self._gate} ]; do sleep 0.02; done"
        project.write("commands.txt", "sleep 0.1\n" * (CASES - GATED) + f"{wait}\n" * GATED)
        suite = _SUITE.format(cases=CASES, first_gated=CASES - GATED, gate=str(self._gate))
        project.write("test_suite.py", suite)

    def open(self) -> None:
        """Let the last cases end."""
        self._gate.touch()


def is_result(event: events_pb2.Event) -> bool:
    """Whether some case's result was accepted."""
    return event.HasField("results_accepted")
