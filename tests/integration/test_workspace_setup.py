"""The command that readies a workspace, below a real launcher."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.worker.launcher_client import LauncherClient, Process
from dtf.worker.workspace_setup import Setup, SetupFailed
from tests.integration.test_launcher import launcher
from tests.integration.worker_rig import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.worker


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "cell" / "tree"
    directory.mkdir(parents=True)
    return directory


def log_of(tree: Path) -> Path:
    return tree.parent / "setup.log"


async def test_it_runs_in_the_tree_with_the_workers_python_and_nothing_of_dtfs_own(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTF_JOIN_TOKEN", "secret")
    async with launcher() as client, asyncio.timeout(PATIENCE_SECONDS):
        await Setup(client, SystemClock()).run("pwd; which python; env", tree, log_of(tree), 50.0)
    where, python, *environment = log_of(tree).read_text().splitlines()
    assert where == str(tree)
    assert Path(python).parent == Path(sys.executable).parent
    assert not [line for line in environment if line.startswith("DTF_JOIN")]


async def test_a_failure_says_how_it_ended_and_what_was_printed(tree: Path) -> None:
    async with launcher() as client, asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(SetupFailed, match="exited with code 3: echo why >&2; exit 3") as caught:
            await Setup(client, SystemClock()).run("echo why >&2; exit 3", tree, log_of(tree), 50.0)
        assert caught.value.output == "why\n"
        with pytest.raises(SetupFailed, match="was killed by signal 9"):
            await Setup(client, SystemClock()).run("kill -9 $$", tree, log_of(tree), 50.0)


class AnswersWhenBegun(LauncherClient):
    """A launcher whose answer comes once the process has said something: its time runs from then on."""

    def __init__(self, client: LauncherClient, log: Path) -> None:
        self._client = client
        self._log_of_process = log

    async def launch(self, *arguments: Any, **named: Any) -> Process:
        """Start it, and hear of it."""
        process = await self._client.launch(*arguments, **named)
        await eventually(lambda: bool(self._log_of_process.read_bytes()), "it began")
        return process

    def kill(self, *arguments: Any, **named: Any) -> None:
        """End it."""
        self._client.kill(*arguments, **named)


def below(client: LauncherClient) -> list[psutil.Process]:
    """What runs below the launcher."""
    return list(psutil.Process(client.process_id).children(recursive=True))


async def test_one_that_takes_too_long_is_ended_with_its_whole_tree(tree: Path) -> None:
    async with launcher() as client, asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(SetupFailed, match=r"took longer than 0\.5 s") as caught:
            setup = Setup(AnswersWhenBegun(client, log_of(tree)), SystemClock())
            await setup.run("echo begun; sleep 600 & sleep 600", tree, log_of(tree), 0.5)
        assert caught.value.output == "begun\n"
        await eventually(lambda: below(client) == [], "its whole tree ended")


async def test_one_whose_run_is_over_is_ended_before_anybody_else_gets_the_tree(tree: Path) -> None:
    async with launcher() as client, asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(
            Setup(client, SystemClock()).run("touch begun; sleep 600", tree, log_of(tree), 500.0)
        )
        await eventually((tree / "begun").exists, "it runs")
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await eventually(lambda: below(client) == [], "its whole tree ended")
        assert os.listdir(tree) == ["begun"]  # noqa: PTH208 - names are what is compared
