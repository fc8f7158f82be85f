"""The pytest session of a warm process, over its channel alone."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dtf.runner.channel import Drop, Dropped, Flush, Results, Run
from dtf.runner.pytest_loop import LINGER_SECONDS
from dtf.runner.pytest_options import ENVIRONMENT_FILE, PytestOptions, outputs_left
from tests.integration.runner_process import RunnerProcess, attempt, elements, started

pytestmark = pytest.mark.worker

PASSED, FAILED, ERROR, SKIPPED = 1, 2, 3, 4


@pytest.fixture
def runner() -> Iterator[RunnerProcess]:
    """A warm process."""
    with started() as process:
        yield process


def write(directory: Path, text: str, name: str = "test_a.py") -> None:
    (directory / name).write_text(text)


def test_cases_run_in_the_order_they_come_and_report_as_pytest_does(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
import pytest
def test_pass(): print("seen")
def test_fail(): assert 1 == 2
@pytest.fixture
def broken(): raise ValueError("no")
def test_error(broken): pass
@pytest.mark.skip(reason="because")
def test_skip(): pass
@pytest.mark.xfail(reason="known")
def test_xfail(): assert 0
@pytest.mark.xfail(strict=True)
def test_xpass(): pass
@pytest.fixture
def late():
    yield
    raise ValueError("late")
def test_teardown(late): pass
""",
    )
    assert runner.prepared(tmp_path) == 7
    names = ["error", "pass", "fail", "skip", "xfail", "xpass", "teardown"]
    results = runner.run([f"test_a.py::test_{name}" for name in names])
    assert [result.verdict for result in results] == [ERROR, PASSED, FAILED, SKIPPED, SKIPPED, FAILED, ERROR]
    assert [result.case for result in results] == list(range(7))
    assert [result.is_last_of_attempt for result in results] == [False] * 6 + [True]
    error, passed, failed, skipped, *_ = results
    assert [element["when"] for element in elements(passed)] == ["setup", "call", "teardown"]
    assert elements(passed)[2]["sections"] == [["Captured stdout call", "seen\n"]]
    assert elements(failed)[1]["outcome"] == "failed"
    assert failed.detail is not None and failed.detail.message == "assert 1 == 2"
    assert error.detail is not None and "ValueError: no" in error.detail.message
    assert skipped.detail is not None and skipped.detail.message == "because"
    assert runner.finish() == 0


def test_results_of_short_cases_share_messages(runner: RunnerProcess, tmp_path: Path) -> None:
    write(tmp_path, "import pytest\n@pytest.mark.parametrize('n', range(300))\ndef test_n(n): pass\n")
    runner.prepared(tmp_path)
    began = time.monotonic()
    runner.send(Run(attempt(1, [f"test_a.py::test_n[{n}]" for n in range(300)])))
    runner.send(Flush())
    sizes: list[int] = []
    while sum(sizes) < 300:
        sizes.append(len(runner.expect(Results).items))
    assert len(sizes) <= (time.monotonic() - began) / LINGER_SECONDS + 3
    assert runner.finish() == 0


def test_a_case_waits_for_its_successor_so_that_fixtures_are_torn_down_as_in_plain_pytest(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    module = """
import pytest, pathlib
@pytest.fixture(scope="module", autouse=True)
def module(request):
    log = pathlib.Path(__file__).with_name("log")
    with log.open("a") as file: file.write(f"+{request.module.__name__} ")
    yield
    with log.open("a") as file: file.write(f"-{request.module.__name__} ")
def test_1(): pass
def test_2(): pass
"""
    write(tmp_path, module, "test_a.py")
    write(tmp_path, module, "test_b.py")
    runner.prepared(tmp_path)
    runner.send(Run(attempt(1, ["test_a.py::test_1"])))
    runner.send(Run(attempt(2, ["test_a.py::test_2"])))
    assert [result.fence for result in runner.results(1)] == [1]
    assert (tmp_path / "log").read_text() == "+test_a "
    runner.send(Run(attempt(3, ["test_b.py::test_1"])))
    assert [result.fence for result in runner.results(1)] == [2]
    assert (tmp_path / "log").read_text() == "+test_a -test_a "
    runner.send(Flush())
    assert [result.fence for result in runner.results(1)] == [3]
    assert (tmp_path / "log").read_text() == "+test_a -test_a +test_b -test_b "
    assert [result.fence for result in runner.run(["test_b.py::test_2"])] == [1]
    assert runner.finish() == 0


def test_an_attempt_is_dropped_if_none_of_its_cases_has_begun_or_was_announced(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(tmp_path, "def test_1(): pass\ndef test_2(): pass\ndef test_3(): pass\n")
    runner.prepared(tmp_path)
    for fence in (1, 2, 3):
        runner.send(Run(attempt(fence, [f"test_a.py::test_{fence}"])))
    runner.results(2)
    runner.send(Drop([2, 3]))
    assert runner.expect(Dropped).fences == []
    runner.send(Run(attempt(4, ["test_a.py::test_1"])))
    runner.results(1)
    runner.send(Run(attempt(5, ["test_a.py::test_2"])))
    runner.results(1)
    runner.send(Drop([5, 4]))
    assert runner.expect(Dropped).fences == []
    runner.send(Flush())
    assert [result.fence for result in runner.results(1)] == [5]
    runner.send(Run(attempt(6, ["test_a.py::test_3"])))
    runner.send(Drop([6]))
    assert runner.expect(Dropped).fences == [6]
    assert runner.finish() == 0


def test_ids_that_differ_are_matched_by_position_and_lost_ones_reported(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
import os, pytest
@pytest.mark.parametrize("at", [f"{os.getpid()}-{n}" for n in range(2)])
def test_clock(at): assert at.endswith("-1")
def test_other(): pass
""",
    )
    assert runner.prepared(tmp_path) == 3
    names = ["test_a.py::test_clock[0-0]", "test_a.py::test_clock[0-1]", "test_a.py::test_gone"]
    runner.send(Run(attempt(1, names, [0, 1, 2], collected=3)))
    runner.send(Flush())
    results = runner.results(3)
    assert [result.verdict for result in results] == [FAILED, PASSED, ERROR]
    (lost,) = elements(results[2])
    assert lost["nodeid"] == "test_a.py::test_gone"
    assert "did not collect test_a.py::test_gone" in lost["longrepr"]
    assert "\n" not in lost["longrepr"]
    assert runner.finish() == 0


def test_a_file_that_fails_to_import_here_alone_costs_its_own_cases_and_says_why(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(tmp_path, "def test_1(): pass\n")
    write(tmp_path, "raise ImportError('only here')\n", "test_b.py")
    runner.prepared(tmp_path)
    fine, lost = runner.run(["test_a.py::test_1", "test_b.py::test_1"])
    assert (fine.verdict, lost.verdict) == (PASSED, ERROR)
    assert "ImportError: only here" in elements(lost)[0]["longrepr"]
    assert runner.finish() == 0


def test_warnings_of_a_case_are_relayed(runner: RunnerProcess, tmp_path: Path) -> None:
    write(tmp_path, "import warnings\ndef test_1(): warnings.warn('careful', UserWarning)\n")
    runner.prepared(tmp_path)
    (result,) = runner.run(["test_a.py::test_1"])
    (warning,) = [element for element in elements(result) if element.get("$report_type") == "dtf.warning"]
    assert (warning["text"], warning["category"]) == ("careful", "builtins:UserWarning")
    assert runner.finish() == 0


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("pytest.exit('enough', returncode=7)", "exit"),
        ("raise KeyboardInterrupt", "interrupt"),
        ("request.session.shouldstop = 'enough'", "stop"),
        ("request.session.shouldfail = 'enough'", "fail"),
    ],
)
def test_a_case_that_stops_the_session_is_reported_and_nothing_runs_after_it(
    runner: RunnerProcess, tmp_path: Path, statement: str, kind: str
) -> None:
    write(tmp_path, f"import pytest\ndef test_1(request): {statement}\ndef test_2(): pass\n")
    runner.prepared(tmp_path)
    runner.send(Run(attempt(1, ["test_a.py::test_1", "test_a.py::test_2"])))
    runner.send(Flush())
    (result,) = runner.results(1)
    assert elements(result)[-1]["$report_type"] == "dtf.stop"
    assert elements(result)[-1]["kind"] == kind
    assert runner.finish() == 0


def test_a_session_that_stopped_gives_everything_back_when_asked(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    """Also what was announced as a successor, and the rest of the attempt that stopped it."""
    write(
        tmp_path,
        "import pytest\ndef test_1(): pytest.exit('enough')\ndef test_2(): pass\ndef test_3(): pass\n",
    )
    runner.prepared(tmp_path)
    runner.send(Run(attempt(1, ["test_a.py::test_1", "test_a.py::test_2"])))
    runner.send(Run(attempt(2, ["test_a.py::test_3"])))
    runner.send(Flush())
    assert len(runner.results(1)) == 1
    runner.send(Drop([1, 2]))
    assert runner.expect(Dropped).fences == [1, 2]
    assert runner.finish() == 0


def test_output_that_is_no_text_and_attributes_that_are_no_json_survive(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(
        tmp_path,
        r"""
import sys
def test_1(record_property):
    record_property("path", object)
    sys.stdout.buffer.write(b"\xff\xfe")
    print("\udcff".encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))
    assert "\udcff" == "\udcfe"
def test_2(): assert 0, "\ud800 alone"
""",
    )
    runner.prepared(tmp_path)
    result, alone = runner.run(["test_a.py::test_1", "test_a.py::test_2"])
    assert alone.verdict == FAILED and alone.detail is not None
    assert "\\ud800 alone" in alone.detail.message
    assert result.verdict == FAILED
    assert elements(result)[1]["user_properties"][0][0] == "path"
    assert runner.finish() == 0


def test_a_session_that_cannot_begin_is_refused_with_the_reason(
    runner: RunnerProcess, tmp_path: Path
) -> None:
    write(tmp_path, "import no_such_module\n", "conftest.py")
    failed = runner.refused(tmp_path)
    assert "no_such_module" in failed.message
    assert "Traceback" in failed.output


def test_another_python_is_refused_with_what_to_do(runner: RunnerProcess, tmp_path: Path) -> None:
    options = PytestOptions(python_version="2.7", python_prefix="/old")
    failed = runner.refused(tmp_path, options_json=msgspec.json.encode(options).decode())
    assert "the controller 2.7 (/old): start the workers from the controller's environment" in failed.message


def test_the_session_is_that_of_a_pytest_xdist_worker(runner: RunnerProcess, tmp_path: Path) -> None:
    project, run_dir, base_temp = tmp_path / "project", tmp_path / "run", tmp_path / "base"
    for directory in (project, run_dir, base_temp):
        directory.mkdir()
    (run_dir / ENVIRONMENT_FILE).write_bytes(msgspec.json.encode({"ONLY": "this", "PATH": "/bin"}))
    write(
        project,
        """
def pytest_sessionfinish(session):
    session.config.workeroutput["left"] = {"a": (1, 2)}
""",
        "conftest.py",
    )
    write(
        project,
        """
import os, sys
def test_1(worker_id, testrun_uid, tmp_path, request):
    assert worker_id == "gw0"
    assert testrun_uid == "uid-1"
    assert request.config.workerinput["randomly_seed"] == 5
    assert os.environ["PYTEST_XDIST_WORKER"] == "gw0"
    assert os.environ["PYTEST_XDIST_WORKER_COUNT"] == "3"
    assert os.environ["ONLY"] == "this" and "HOME" not in os.environ
    assert "popen-gw0" in str(tmp_path)
    assert sys.path[0].endswith("project") or sys.path[0] == "/first"
    assert "/first" in sys.path
    assert sys.argv == ["/bin/pytest", "-x"]
    assert request.config.option.maxfail == 0
""",
    )
    options = PytestOptions(
        host=socket.gethostname(),
        argv=["/bin/pytest", "-x"],
        worker_count=3,
        worker_input="{'randomly_seed': 5}",
        run_dir=str(run_dir),
        base_temp=str(base_temp),
    )
    count = runner.prepared(
        project, ["-x"], options_json=msgspec.json.encode(options).decode(), import_path=["/first"]
    )
    assert count == 1
    (result,) = runner.run(["test_a.py::test_1"])
    assert result.verdict == PASSED, result.detail
    assert runner.finish() == 0
    assert [(seat, output["left"]) for seat, output in outputs_left(run_dir)] == [("gw0", {"a": (1, 2)})]
