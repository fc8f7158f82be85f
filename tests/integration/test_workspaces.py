"""Code that travels: suites of a client run by workers that have nothing of it."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.integration.worker_rig import running
from tests.integration.workspace_rig import Client, elsewhere

pytestmark = pytest.mark.worker

SUITE = """
import os, pathlib
import pytest
from pkg import double

@pytest.mark.parametrize("n", range(4))
def test_double(n): assert double(n) == 2 * n

def test_where(data):
    print("WHERE", os.getcwd(), "UID", os.getuid(), "HOME", os.environ["HOME"])
    assert (data / "tracked.txt").read_text() == "tracked"
    assert (data / "untracked.txt").exists()
    assert not (data / "ignored.txt").exists()
    assert os.access(data.parent / "tool.sh", os.X_OK)
    assert (data / "link.txt").is_symlink() and (data / "link.txt").read_text() == "tracked"
    assert pathlib.Path.cwd() == data.parent == pathlib.Path(__file__).parent.parent
    assert 0, "to be seen"
"""
CONFTEST = """
import pathlib, pytest
@pytest.fixture
def data(): return pathlib.Path(__file__).parent.parent / "data"
"""


def suite(client: Client) -> None:
    """A project under git: a package under src, a conftest, data, an untracked and an ignored file."""
    client.write("pytest.ini", "[pytest]\npythonpath = src\naddopts = -p no:cacheprovider\n")
    client.write("src/pkg/__init__.py", "def double(x): return 2 * x\n")
    client.write("tests/conftest.py", CONFTEST)
    client.write("tests/test_a.py", SUITE)
    client.write("data/tracked.txt", "tracked")
    client.write("tool.sh", "#!/bin/sh\n").chmod(0o700)
    (client.project / "data/link.txt").symlink_to("tracked.txt")
    client.write(".gitignore", "data/ignored.txt\n__pycache__\n")
    client.git("init", "-q")
    client.git("add", "-A")
    client.git("commit", "-qm", "all")
    client.write("data/untracked.txt", "untracked")
    client.write("data/ignored.txt", "ignored")


async def test_a_suite_runs_on_a_worker_of_another_home_directory_and_user(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with elsewhere(rig) as there:
            client = Client(rig, tmp_path / "project")
            suite(client)
            await there.worker()
            ended = await client.pytest("-v", f"--junitxml={tmp_path}/out.xml")
            out = ended.stdout
            assert "5 passed" not in out and "1 failed, 4 passed" in out, out + ended.stderr
            assert "to be seen" in out
            assert f"WHERE {client.project} UID " in out, "paths come back as the client's"
            assert str(there.directory / "home") in out
            assert str(there.cache) not in out
            assert "rootdir: " + str(client.project) in out
            names = [
                case.get("classname") for case in ElementTree.parse(tmp_path / "out.xml").iter("testcase")
            ]
            assert names == ["tests.test_a"] * 5
            (cell,) = there.cells
            assert (cell / "tree/tests/test_a.py").is_file()
            again = await client.pytest()
            assert "known already" in again.stdout, again.stdout + again.stderr
