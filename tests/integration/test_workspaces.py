"""Code that travels: suites of a client run by workers that have nothing of it."""

import asyncio
import shutil
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from dtf.api.v1 import common_pb2
from tests.integration.worker_rig import PATIENCE_SECONDS, eventually, running
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


async def test_commands_and_calls_run_in_the_tree_and_three_workers_of_a_machine_set_it_up_once(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as rig:
        with elsewhere(rig) as there:
            client = Client(rig, tmp_path / "project")
            client.write("dtf.toml", f'[run]\nsetup = "echo set up >> {there.home}/setups; pwd > where"\n')
            client.write("calls.py", "import os\ndef where(): return [os.getcwd(), open('data/d').read()]\n")
            client.write("data/d", "content")
            client.write(
                "commands.txt", "".join(f"test -f data/d -a -f where -a {n} -ge 0\n" for n in range(30))
            )
            for _ in range(3):
                await there.worker()
            said = await client.dtf("run", "--each", "commands.txt")
            assert said.returncode == 0, said.stdout + said.stderr
            assert "listed without git" in said.stderr
            assert (there.home / "setups").read_text() == "set up\n"
            (cell,) = there.cells
            assert (cell / "tree/where").read_text() == f"{cell}/tree\n"
            called = await client.dtf("run", "--callable", "calls:where")
            assert called.returncode == 0, called.stdout + called.stderr
            (detail,) = [detail for detail in rig.details(0) if detail.value_json]
            assert "content" in detail.value_json


async def test_code_travels_with_a_run_that_is_started_from_code(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with elsewhere(rig) as there:
            project = Client(rig, tmp_path / "project")
            project.write("dtf.toml", '[run]\nsetup = "echo set up > made"\n')
            project.write("data/d", "content")
            await there.worker()
            async with rig.client() as client:
                workspace = await client.pack_workspace(project.project)
                commands = [["grep", "content", "data/d"], ["grep", "set up", "made"]]
                run = await client.start_run("s", commands=commands, workspace=workspace)
                assert (await run.result()).counts.passed == 2
                below = await client.start_run(
                    "s",
                    commands=[["grep", "content", "d"]],
                    workspace=workspace,
                    working_dir=str(project.project / "data"),
                )
                assert (await below.result()).counts.passed == 1
                assert await client.pack_workspace(project.project) == workspace


async def test_a_set_up_that_fails_is_infrastructure_with_its_output(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with elsewhere(rig) as there:
            client = Client(rig, tmp_path / "project")
            client.write("pytest.ini", "[pytest]\naddopts = -p no:cacheprovider\n")
            client.write("dtf.toml", '[run]\nsetup = "echo no compiler here; exit 7"\n')
            client.write("test_a.py", "def test_a(): pass\n")
            await there.worker()
            ended = await client.pytest()
            assert ended.returncode == 1
            assert "the set-up command exited with code 7: echo no compiler here; exit 7" in ended.stdout
            assert "\nno compiler here" in ended.stdout
            assert {outcome for _, outcome, _, _ in rig.ended()} == {common_pb2.OUTCOME_CRASHED}
            assert there.cells == []


async def test_an_image_and_a_shared_file_system_have_the_code_where_they_say(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with elsewhere(rig) as there:
            client = Client(rig, tmp_path / "project")
            suite(client)
            image = there.directory / "srv" / "app"
            shutil.copytree(client.project, image, symlinks=True)
            (image / "data/ignored.txt").unlink()
            (image / "tool.sh").chmod(0o755)
            await there.worker()
            settings = {"DTF_RUN_WORKSPACE": "image", "DTF_WORKSPACE_PATH": str(image)}
            ended = await client.pytest("-p", "no:cacheprovider", **settings)
            assert "1 failed, 4 passed" in ended.stdout, ended.stdout + ended.stderr
            assert f"WHERE {client.project} UID" in ended.stdout
            assert there.cells == [] and "uploaded" not in ended.stdout
            settings["DTF_RUN_WORKSPACE"] = "shared"
            ended = await client.pytest(**settings)
            assert "1 failed, 4 passed" in ended.stdout
            settings["DTF_WORKSPACE_PATH"] = "/nowhere/app"
            ended = await client.pytest(**settings)
            assert "there is no directory /nowhere/app on this worker's machine" in ended.stdout


@pytest.mark.parametrize(
    "arguments", [("-m", "pytest", "--dtf"), ("-m", "dtf.cli.main", "run", "--exec", "true")]
)
async def test_ctrl_c_ends_packing_and_leaves_nothing_behind(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    async with running(tmp_path) as rig:
        client = Client(rig, tmp_path / "project")
        client.write("test_a.py", "def test_a(): pass\n")
        client.write("dtf.toml", "[workspace]\nmax_file_bytes = 1073741824\nmax_bytes = 17179869184\n")
        for number in range(15):
            with client.write(f"large-{number}", "").open("wb") as file:
                file.truncate(2**30)
        process = client.start(*arguments)
        packing = psutil.Process(process.pid)
        await eventually(
            lambda: any("large-" in file.path for file in packing.open_files()), "the client reads the tree"
        )
        process.send_signal(signal.SIGINT)
        out, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        assert process.returncode == 2, out + errors
        assert "Traceback" not in errors and "INTERNALERROR" not in out
        assert not list(rig.events("run_created"))
        assert not list(rig.directory.glob("blobs/blobs/*/*"))


async def test_what_must_not_travel_is_refused_before_anything_runs(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = Client(rig, tmp_path / "project")
        client.write("test_a.py", "def test_a(): pass\n")
        client.write("dtf.toml", "")
        client.write(".env", "PASSWORD=secret")
        ended = await client.pytest()
        assert ended.returncode == 4
        assert ".env: environment files hold passwords" in ended.stderr
        assert 'allow = ".env"' in ended.stderr
        client.write("commands.txt", "true\n")
        ended = await client.dtf("run", "--each", "commands.txt")
        assert ended.returncode not in (0, 70) and "environment files hold passwords" in ended.stderr
        assert not list(rig.events("run_created"))
