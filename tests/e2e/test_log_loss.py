"""The broker's store is put back to what it was: the next start says what is lost, and the spool restores it."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.project import COMMAND_SECONDS, Project

WAIT_SECONDS = 240.0
pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(600)]


def run_commands(project: Project, name: str, count: int) -> None:
    """Run commands that pass, as a suite of this name."""
    project.write(f"{name}.txt", "true\n" * count)
    project.dtf("run", "--each", f"{name}.txt", "--suite", name)


def rolled_back(project: Project, to: Path) -> None:
    """The broker's store as it was when it was copied."""
    store = project.directory / ".dtf" / "nats"
    shutil.rmtree(store)
    shutil.copytree(to, store)


def copied(project: Project, to: Path) -> Path:
    """A copy of the broker's store; no stack runs."""
    shutil.copytree(project.directory / ".dtf" / "nats", to)
    return to


def status(project: Project, expect: int) -> dict[str, object]:
    """`dtf log status --json`, whose exit code says whether anything is missing."""
    said = project.dtf("log", "status", "--json", expect=(expect,)).splitlines()
    document: dict[str, object] = json.loads(said[0])
    return document


def test_a_tail_cut_behind_the_coordinators_back_is_detected_explained_and_repaired(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_commands(project, "before", 3)
    before = copied(project, tmp_path_factory.mktemp("store") / "nats")
    whole_before = status(project, 0)
    run_commands(project, "lost", 5)
    whole = status(project, 0)
    rolled_back(project, before)

    refused = project.start("run", "--each", "lost.txt")
    _, said = refused.communicate(timeout=COMMAND_SECONDS)
    project.write("test_one.py", "def test_one():\n    pass\n")
    refused_to_pytest = project.start("run", ".")
    assert refused.returncode == 6
    first, last = int(str(whole_before["last_sequence"])) + 1, whole["last_sequence"]
    assert f"the event log lost messages {first} to {last}" in said
    assert "5 tasks submitted and 5 verdicts in 1 runs" in said
    assert "`dtf log repair` puts them back from the spool" in said
    _, said_by_pytest = refused_to_pytest.communicate(timeout=COMMAND_SECONDS)
    assert refused_to_pytest.returncode == 6
    assert said[said.index("error: ") :] in said_by_pytest
    assert status(project, 9)["is_whole"] is False

    repaired = project.dtf("log", "repair")
    assert f"messages {first} to {last}" in repaired and "nothing is missing" in repaired
    again = status(project, 0)
    assert (again["last_sequence"], again["last_hash"]) == (whole["last_sequence"], whole["last_hash"])
    assert "nothing is missing" in project.dtf("log", "repair")
    with up(project):
        run_commands(project, "after", 2)
        account = asyncio.run(project.account())
    assert [run.faults() for run in account.runs.values()] == [[], [], []]


def test_a_loss_that_is_accepted_is_in_the_log_and_what_is_known_of_it_is_set_aside(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_commands(project, "before", 2)
    before = copied(project, tmp_path_factory.mktemp("store") / "nats")
    end = status(project, 0)["last_sequence"]
    run_commands(project, "lost", 2)
    rolled_back(project, before)

    project.dtf("log", "repair", "--accept-loss", "1", expect=(4,))
    assert status(project, 9)["last_sequence"] == end
    accepted = project.dtf("log", "repair", "--accept-loss", str(end))
    assert "which says what is lost" in accepted
    whole = status(project, 0)
    aside = project.directory / ".dtf" / "set-aside" / "default"
    assert whole["set_aside"] == [str(path) for path in aside.iterdir()]
    assert list(aside.glob("*/*.spool")) and list(aside.glob("*/loss.json"))
    with up(project):
        run_commands(project, "after", 2)
        elected = asyncio.run(project.wait_for(lambda event: event.leader_elected.HasField("accepted_loss")))
        account = asyncio.run(project.account())
    assert elected.leader_elected.accepted_loss.after_sequence == end
    assert [run.faults() for run in account.runs.values()] == [[], []]


def test_a_stack_whose_broker_loses_its_tail_while_it_serves_ends_and_says_why(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_commands(project, "before", 2)
    before = copied(project, tmp_path_factory.mktemp("store") / "nats")
    with up(project):
        project.write("long.txt", "sleep 600\n")
        running = project.start("run", "--each", "long.txt", "--suite", "long")
        created = asyncio.run(project.wait_for(lambda event: event.run_created.suite == "long"))
        run_id = created.run_created.run_id
        asyncio.run(project.wait_for(lambda event: event.leases_granted.run_id == run_id))
        supervisor = psutil.Process(project.stack.supervisor_pid)
        supervisor.suspend()  # it would start the broker again before its store is changed
        broker = project.part("nats-server")
        broker.kill()
        psutil.wait_procs([broker], timeout=WAIT_SECONDS)
        rolled_back(project, before)
        supervisor.resume()
        _, said = running.communicate(timeout=WAIT_SECONDS)
    assert running.returncode == 6
    assert "the event log lost messages" in said and "`dtf log repair`" in said
    assert "nothing is missing" in project.dtf("log", "repair")


@contextmanager
def up(project: Project) -> Iterator[None]:
    """The stack, kept up."""
    project.dtf("up")
    yield
    project.start("down").communicate(timeout=WAIT_SECONDS)
