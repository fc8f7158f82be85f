"""`pytest --dtf` through the whole system."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtf.settings.loader import without_settings
from tests.e2e.project import Project, shared_project

pytestmark = pytest.mark.worker

TIMEOUT_SECONDS = 250
SUITE = """
import os, time, warnings
import pytest

@pytest.mark.parametrize("n", range(12))
def test_number(n):
    assert n != 4

def test_fixtures(tmp_path, worker_id):
    assert (worker_id in ("gw0", "gw1") and f"popen-{worker_id}" in str(tmp_path)) or worker_id == "master"

@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_error(broken): pass
@pytest.mark.skip(reason="not today")
def test_skip(): pass
@pytest.mark.xfail(reason="known")
def test_xfail(): assert 0
def test_large(): print("x" * 60_000); assert 0
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One project for all of them, with its stack up."""
    yield from shared_project(tmp_path_factory.mktemp("project"))


def run(project: Project, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:asyncio", *arguments],
        cwd=project.directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
        env=without_settings(os.environ) | environment,
    )


def junit(path: Path) -> str:
    root = ElementTree.parse(path).getroot()
    for element in root.iter():
        for name in ("time", "timestamp", "hostname"):
            element.attrib.pop(name, None)
    return re.sub(r"0x[0-9a-f]+", "0x", ElementTree.tostring(root, encoding="unicode"))


async def test_the_whole_system_reports_what_plain_pytest_does_and_each_case_once(project: Project) -> None:
    project.write("test_a.py", SUITE)
    before = set((await project.account()).runs)
    plain = run(project, "--junitxml=plain.xml")
    ours = run(project, "--junitxml=ours.xml", "--dtf")
    assert (plain.returncode, ours.returncode) == (1, 1), ours.stdout + ours.stderr
    assert junit(project.directory / "ours.xml") == junit(project.directory / "plain.xml")
    assert "2 failed, 12 passed, 1 skipped, 1 xfailed, 1 error" in ours.stdout
    account = await project.account()
    (entry,) = [entry for run_id, entry in account.runs.items() if run_id not in before]
    assert entry.faults() == []
    assert len(entry.judged) == 17


def test_a_crash_and_a_hang_cost_their_own_case_and_a_flaky_one_is_named(project: Project) -> None:
    project.write(
        "test_a.py",
        """
import os, pathlib, time
import pytest
@pytest.mark.parametrize("n", range(8))
def test_before(n): pass
def test_crash(): print("last words", flush=True); os.kill(os.getpid(), 11)
def test_hang(): time.sleep(600)
def test_flaky():
    seen = pathlib.Path("seen")
    if not seen.exists():
        seen.touch()
        assert 0
@pytest.mark.parametrize("n", range(8))
def test_after(n): pass
""",
    )
    ours = run(project, "--dtf", DTF_RUN_TEST_RETRIES="1", DTF_RUN_TIMEOUT_SECONDS="3")
    assert ours.returncode == 1, ours.stdout + ours.stderr
    assert "2 failed, 17 passed" in ours.stdout, ours.stdout
    assert re.search(r"crashed while running on worker \S+: killed by signal 11", ours.stdout)
    assert re.search(r"timed out on worker \S+: ", ours.stdout)
    assert "FLAKY test_a.py::test_flaky" in ours.stdout
    assert not list((project.directory / ".dtf" / "pytest").iterdir())


def test_x_cancels_the_run_and_leaves_nothing_running(project: Project) -> None:
    project.write(
        "test_a.py",
        "import pytest, time\ndef test_fail(): assert 0\n"
        "@pytest.mark.parametrize('n', range(30))\ndef test_slow(n): time.sleep(60)\n",
    )
    ours = run(project, "-x", "--dtf", "--dtf-workers", "1")
    assert ours.returncode == 1, ours.stdout + ours.stderr
    assert "stopping after 1 failures" in ours.stdout
    assert "1 failed in" in ours.stdout


def test_coverage_is_combined_through_the_whole_system(project: Project) -> None:
    project.write(
        "lines.py", "def a():\n    return 1\n\n\ndef b():\n    return 2\n\n\ndef c():\n    return 3\n"
    )
    project.write(
        "test_a.py",
        "import pytest, lines\n@pytest.mark.parametrize('n', range(30))\ndef test_a(n): lines.a()\n"
        "def test_b(): lines.b()\n",
    )
    ours = run(project, "--cov=lines", "--cov-report=term-missing", "--dtf")
    assert ours.returncode == 0, ours.stdout + ours.stderr
    assert re.search(r"^lines\.py +6 +1 +83% +10$", ours.stdout, re.MULTILINE), ours.stdout
    assert "failed workers" not in ours.stdout
