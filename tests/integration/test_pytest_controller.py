"""`pytest --dtf` as its users see it, beside plain pytest, with a coordinator that only hands out work."""

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fake_coordinator import FakeCoordinator, serving

pytestmark = pytest.mark.worker

TIMEOUT_SECONDS = 250
ALONE = ("-p", "no:randomly", "-p", "no:asyncio")

SUITE = """
import sys, unittest, warnings
import pytest

@pytest.mark.parametrize("n", range(6))
def test_number(n):
    assert n != 4

def test_output():
    print("to stdout"); print("to stderr", file=sys.stderr)
    assert {"a": 1} == {"a": 2}

@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_error(broken): pass

@pytest.fixture
def late():
    yield
    raise RuntimeError("late")
def test_teardown(late): pass
def test_both(late): assert 0

@pytest.mark.skip(reason="not today")
def test_skip(): pass
def test_skip_inside(): pytest.skip("not now")
@pytest.mark.xfail(reason="known")
def test_xfail(): assert 0
@pytest.mark.xfail
def test_xpass(): pass
@pytest.mark.xfail(strict=True)
def test_xpass_strict(): pass

def test_warns(): warnings.warn("careful", UserWarning)
def test_property(record_property): record_property("answer", 42)
def test_subtests(subtests):
    for n in range(3):
        with subtests.test(n=n): assert n != 1

class TestClass:
    def test_method(self, tmp_path): (tmp_path / "x").touch()

class TestUnit(unittest.TestCase):
    def test_one(self): self.assertEqual(1, 2)
    def test_two(self): self.skipTest("later")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project."""
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (directory / "dtf.toml").write_text('[run]\nworkspace = "tree"\n')
    return directory


@pytest.fixture
def coordinator() -> Iterator[tuple[FakeCoordinator, str]]:
    """A coordinator with two workers."""
    with serving() as served:
        yield served


def write(directory: Path, text: str, name: str = "test_a.py") -> None:
    (directory / name).write_text(text)


def run(project: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", *ALONE, *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, "COLUMNS": "100"},
    )


def junit(path: Path) -> str:
    """A JUnit file without its times and host."""
    root = ElementTree.parse(path).getroot()
    for element in root.iter():
        for name in ("time", "timestamp", "hostname"):
            element.attrib.pop(name, None)
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def without_times(output: str) -> str:
    text = re.sub(r"0x[0-9a-f]+|\d+\.\d+s|(plain|ours)\.xml", "_", output)
    return re.sub(r"[=-]{3,}", "---", text)


def test_every_kind_of_outcome_is_reported_as_by_plain_pytest(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, SUITE)
    write(project, "import pytest\npytest.skip('whole file', allow_module_level=True)\n", "test_b.py")
    write(project, "def test_c(): pass\n", "test_c.py")
    plain = run(project, "-rA", "--junitxml=plain.xml", "-ojunit_logging=all", "-ojunit_family=xunit1")
    ours = run(
        project,
        "-rA",
        "--junitxml=ours.xml",
        "-ojunit_logging=all",
        "-ojunit_family=xunit1",
        "--dtf-server",
        coordinator[1],
    )
    assert (plain.returncode, ours.returncode) == (1, 1), ours.stdout + ours.stderr
    assert junit(project / "ours.xml") == junit(project / "plain.xml")
    at = "--- FAILURES ---"
    errors = "--- ERRORS ---"
    plain_text, our_text = without_times(plain.stdout), without_times(ours.stdout)
    assert our_text[our_text.index(errors) :] == plain_text[plain_text.index(errors) :]
    assert at in our_text
    assert "dtf: run r1, 22 cases in" in our_text
    assert not list((project / ".dtf" / "pytest").iterdir())


def test_a_failed_subtest_of_a_unittest_does_not_fail_the_test_again(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(
        project,
        "import unittest\nclass TestUnit(unittest.TestCase):\n    def test_one(self):\n"
        "        for n in range(3):\n            with self.subTest(n=n): self.assertNotEqual(n, 1)\n",
    )
    plain = run(project, "--junitxml=plain.xml")
    ours = run(project, "--junitxml=ours.xml", "--dtf-server", coordinator[1])
    assert (plain.returncode, ours.returncode) == (1, 1), ours.stdout + ours.stderr
    assert "1 failed, 1 passed" in plain.stdout and "1 failed, 1 passed" in ours.stdout, ours.stdout
    assert junit(project / "ours.xml") == junit(project / "plain.xml")


def test_verbose_output_is_that_of_plain_pytest_but_for_the_order(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, "def test_1(): pass\ndef test_2(): assert 0\n")
    ours = run(project, "-v", "--dtf-server", coordinator[1])
    lines = re.findall(r"^test_a.py::test_. \w+ +\[ *\d+%\]$", ours.stdout, re.MULTILINE)
    assert [line.split()[:2] for line in sorted(lines)] == [
        ["test_a.py::test_1", "PASSED"],
        ["test_a.py::test_2", "FAILED"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [("-k", "one"), ("-m", "slow"), ("--deselect", "test_a.py::test_two"), ("test_a.py::test_one",)],
)
def test_selection_is_pytests_own(
    project: Path, coordinator: tuple[FakeCoordinator, str], arguments: tuple[str, ...]
) -> None:
    write(project, "import pytest\n@pytest.mark.slow\ndef test_one(): pass\ndef test_two(): assert 0\n")
    ours = run(project, *arguments, "--dtf-server", coordinator[1])
    assert ours.returncode == 0, ours.stdout
    assert "1 passed" in ours.stdout
    (fake_run,) = coordinator[0].runs
    assert [name for task in fake_run.tasks for name in task.cases] == ["test_a.py::test_one"]


def test_nothing_collected_leaves_no_run_open(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    ours = run(project, "--dtf-server", coordinator[1])
    assert ours.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    (unused,) = coordinator[0].runs
    assert unused.is_cancelled and unused.tasks == []


def test_a_collection_error_ends_it_as_in_plain_pytest(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, "def test_1(): pass\n")
    write(project, "import no_such_module\n", "test_b.py")
    plain, ours = run(project), run(project, "--dtf-server", coordinator[1])
    assert ours.returncode == plain.returncode == pytest.ExitCode.INTERRUPTED
    assert "Interrupted: 1 error during collection" in ours.stdout
    (unused,) = coordinator[0].runs
    assert unused.is_cancelled and unused.tasks == []
    went_on = run(project, "--continue-on-collection-errors", "--dtf-server", coordinator[1])
    assert "1 passed, 1 error" in went_on.stdout
    assert went_on.returncode == 1


def test_the_first_failure_ends_it_under_x_and_later_results_are_dropped(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, "import pytest\n@pytest.mark.parametrize('n', range(40))\ndef test_n(n): assert n % 2\n")
    ours = run(project, "-x", "--dtf-server", coordinator[1])
    assert ours.returncode == 1
    assert "stopping after 1 failures" in ours.stdout
    assert "1 failed" in ours.stdout
    assert coordinator[0].runs[0].is_cancelled


def test_last_failed_runs_what_failed(project: Path, coordinator: tuple[FakeCoordinator, str]) -> None:
    write(project, "def test_1(): pass\ndef test_2(): assert 0\ndef test_3(): assert 0\n")
    run(project, "--dtf-server", coordinator[1])
    again = run(project, "--lf", "--dtf-server", coordinator[1])
    assert "2 failed" in again.stdout and "passed" not in again.stdout
    assert again.returncode == 1


def test_a_crash_is_a_failure_that_says_where_and_how(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, "import os\ndef test_1(): pass\ndef test_2(): os._exit(3)\ndef test_3(): pass\n")
    ours = run(project, "--junitxml=ours.xml", "--dtf-server", coordinator[1])
    assert ours.returncode == 1
    assert "1 failed, 2 passed" in ours.stdout
    assert re.search(r"crashed while running on worker w-\d: the process ended with 3", ours.stdout)
    assert "test_2" in junit(project / "ours.xml")


def test_a_worker_that_cannot_begin_fails_every_case_with_the_reason(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(
        project,
        "import os\nif 'PYTEST_XDIST_WORKER' in os.environ: raise ValueError('only there')\n",
        "conftest.py",
    )
    write(project, "def test_1(): pass\ndef test_2(): pass\n")
    ours = run(project, "--dtf-server", coordinator[1])
    assert ours.returncode == 1
    assert "2 failed" in ours.stdout
    assert "only there" in ours.stdout


def test_warnings_of_workers_are_in_the_summary(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(project, "import warnings\ndef test_1(): warnings.warn('careful', DeprecationWarning)\n")
    ours = run(project, "--dtf-server", coordinator[1])
    assert "DeprecationWarning: careful" in ours.stdout
    assert "1 passed, 1 warning" in ours.stdout


def test_coverage_of_all_workers_is_combined(project: Path, coordinator: tuple[FakeCoordinator, str]) -> None:
    write(
        project, "def a():\n    return 1\n\n\ndef b():\n    return 2\n\n\ndef c():\n    return 3\n", "code.py"
    )
    write(
        project,
        "import pytest, code_\n".replace("code_", "lines")
        + "@pytest.mark.parametrize('n', range(8))\ndef test_a(n): lines.a()\ndef test_b(): lines.b()\n",
    )
    (project / "code.py").rename(project / "lines.py")
    write(project, "[run]\nparallel = true\n", ".coveragerc")
    arguments = ("--cov=lines", "--cov-report=term-missing")
    plain = run(project, *arguments)
    ours = run(project, *arguments, "--dtf-server", coordinator[1])
    (line,) = re.findall(r"^lines\.py .*$", plain.stdout, re.MULTILINE)
    assert line in ours.stdout, ours.stdout + ours.stderr
    assert "failed workers" not in ours.stdout
    assert ours.returncode == 0


def test_pdb_and_xdist_are_refused_with_a_sentence(project: Path) -> None:
    for option, word in (("--pdb", "--pdb"), ("-n2", "pytest-xdist"), ("--trace", "--pdb")):
        refused = run(project, "--dtf", option)
        assert refused.returncode == pytest.ExitCode.USAGE_ERROR
        assert word in refused.stderr
        assert not (project / ".dtf").exists()


@pytest.mark.parametrize(
    ("statement", "code", "words"),
    [
        ("pytest.exit('enough', returncode=7)", 7, "Exit: enough"),
        ("raise KeyboardInterrupt", 2, "KeyboardInterrupt"),
        ("request.session.shouldstop = 'enough'", 2, "Interrupted: enough"),
        ("request.session.shouldfail = 'enough'", 1, "stopping"),
    ],
)
def test_what_stops_plain_pytest_stops_the_run(
    project: Path, coordinator: tuple[FakeCoordinator, str], statement: str, code: int, words: str
) -> None:
    write(project, f"import pytest\ndef test_1(request): {statement}\n")
    ours = run(project, "--dtf-server", coordinator[1])
    assert ours.returncode == run(project).returncode == code
    assert words in ours.stdout or words == "stopping"
    assert coordinator[0].runs[0].is_cancelled


def test_ctrl_c_cancels_and_says_what_finished(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    os.mkfifo(project / "begun")
    write(
        project,
        "def test_1(): pass\ndef test_2():\n    open('begun', 'w').close()\n    import time; time.sleep(3)\n",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *ALONE, "--dtf-server", coordinator[1]],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
    )
    with (project / "begun").open():
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in output
    assert coordinator[0].runs[0].is_cancelled


def test_randomly_ordered_cases_are_the_same_in_every_process(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(
        project,
        "import random, pytest\n@pytest.mark.parametrize('n', range(9))\n"
        "def test_n(n, request): print('drew', random.random())\n",
    )
    arguments = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:xdist", "-rP"]
    plain, ours = (
        subprocess.run(
            [*arguments, "--randomly-seed=7", *more], cwd=project, capture_output=True, text=True, check=False
        )
        for more in ((), ("--dtf-server", coordinator[1]))
    )
    assert ours.returncode == 0, ours.stdout + ours.stderr
    assert re.findall(r"drew .*", ours.stdout) == re.findall(r"drew .*", plain.stdout) != []


def test_fixtures_of_xdist_are_there_without_it(
    project: Path, coordinator: tuple[FakeCoordinator, str]
) -> None:
    write(
        project,
        "import os\ndef test_1(worker_id, testrun_uid):\n"
        "    assert worker_id == os.environ.get('PYTEST_XDIST_WORKER', 'master') and len(testrun_uid) == 32\n",
    )
    assert run(project, "-p", "no:xdist").returncode == 0
    ours = run(project, "-p", "no:xdist", "--dtf-server", coordinator[1])
    assert ours.returncode == 0, ours.stdout


def test_groups_stay_together(project: Path, coordinator: tuple[FakeCoordinator, str]) -> None:
    write(
        project,
        "import os, pytest\n@pytest.mark.xdist_group('g')\n@pytest.mark.parametrize('n', range(9))\n"
        "def test_g(n): pass\n@pytest.mark.parametrize('n', range(9))\ndef test_free(n): pass\n",
    )
    run(project, "--dtf-server", coordinator[1])
    run(project, "--dtf-server", coordinator[1], "--dtf-dist", "loadfile")
    first, second = coordinator[0].runs
    assert sum(any("test_g" in name for name in task.cases) for task in first.tasks) == 1
    assert len(first.tasks) > 2
    assert len(second.tasks) == 2


def test_plain_pytest_pays_nothing_for_the_plugin(project: Path) -> None:
    write(
        project,
        "import sys\ndef test_1(): assert not {'grpc', 'google.protobuf', 'msgspec'} & set(sys.modules)\n",
    )
    assert run(project, "-p", "no:hypothesispytest").returncode == 0


def test_an_unreachable_server_is_an_error_and_not_a_wait(project: Path) -> None:
    write(project, "def test_1(): pass\n")
    ours = run(project, "--dtf-server", "nonsense")
    assert ours.returncode == pytest.ExitCode.USAGE_ERROR
    assert "'nonsense' is not host:port" in ours.stderr
