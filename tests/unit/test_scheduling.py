"""Files are handed out to the processes of pytest-xdist so that who waits holds nobody up."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scheduling import _PATIENT, _SLOWEST_FIRST, PatientScheduling

ROOT = Path(__file__).parents[2]
SHORT = [f"tests/unit/test_{number}.py" for number in range(6)]
SLOW = ["tests/e2e/test_a.py", "tests/integration/test_b.py"]
WAITING = ["tests/integration/test_kubernetes_a.py", "tests/integration/test_slurm_b.py"]


class Process:
    """One of pytest-xdist's, which notes what it is given."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.waiting: list[int] = []
        self.files: list[str] = []

    def send_runtest_some(self, indexes: Sequence[int]) -> None:
        """It has these to run."""
        self.waiting += indexes

    def shutdown(self) -> None:
        """Nothing more comes."""
        self.shutting_down = True


def handed_out(process_count: int, files: Sequence[str]) -> list[Process]:
    """Three tests a file, run by all processes in turn until none has any left."""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(loadscopereorder=True, tx=[]),
        getvalue=lambda _: [f"{process_count}*popen"],
        getoption=lambda *_: None,
    )
    scheduling: Any = PatientScheduling(config)
    processes = [Process(number) for number in range(process_count)]
    tests = [f"{file}::test_{number}" for file in files for number in range(3)]
    for process in processes:
        scheduling.add_node(process)
        scheduling.add_node_collection(process, tests)
    scheduling.schedule()
    while any(process.waiting for process in processes):
        for process in processes:
            if process.waiting:
                index = process.waiting.pop(0)
                file = tests[index].partition("::")[0]
                process.files += [file] if file not in process.files else []
                scheduling.mark_test_complete(process, index)
    assert scheduling.tests_finished
    return processes


def test_of_three_processes_one_takes_what_waits_and_nothing_else() -> None:
    *busy, patient = handed_out(3, [*SHORT, *WAITING, *SLOW])
    assert patient.files == WAITING
    assert sorted(file for process in busy for file in process.files) == sorted([*SHORT, *SLOW])
    assert {process.files[0] for process in busy} == {*SLOW}
    assert all(process.shutting_down for process in (*busy, patient))


@pytest.mark.parametrize("process_count", [1, 2])
def test_fewer_processes_take_everything_what_waits_at_last(process_count: int) -> None:
    processes = handed_out(process_count, [*WAITING, *SHORT, *SLOW])
    assert sorted(file for process in processes for file in process.files) == sorted(
        [*SHORT, *SLOW, *WAITING]
    )
    assert {process.files[-1] for process in processes} <= {*WAITING}


def test_where_nothing_waits_the_patient_process_goes_home() -> None:
    *busy, patient = handed_out(3, SHORT)
    assert patient.files == [] and patient.shutting_down
    assert sorted(file for process in busy for file in process.files) == SHORT


@pytest.mark.parametrize("prefix", [*_PATIENT, *_SLOWEST_FIRST])
def test_each_place_it_names_is_there(prefix: str) -> None:
    assert list(ROOT.glob(f"{prefix}*"))
