"""A stack whose log was archived and purged: everything that reads the log goes on, and a start rests on it."""

import asyncio
import shutil
from typing import Any

import pytest

from tests.e2e.project import Project

COMMANDS = "true\n" * 20

pytestmark = [pytest.mark.coordinator, pytest.mark.timeout(600)]


def run(project: Project) -> str:
    """Run the commands; the run's id."""
    document: dict[str, Any] = project.json("run", "--each", "commands.txt", "--json")
    return str(document["run_id"])


async def test_what_was_purged_is_read_from_the_archive_by_every_part(project: Project) -> None:
    project.write("commands.txt", COMMANDS)
    await asyncio.to_thread(_archive_a_run_and_start_anew, project)


def _archive_a_run_and_start_anew(project: Project) -> None:
    project.dtf("up")
    first = run(project)
    project.dtf("log", "snapshot")
    second = run(project)
    done = project.json("log", "archive", "--json")
    assert done["purged"] > 0
    assert done["archived_until"] + 1 == done["stream_begins_at"]
    proof = project.json("replay", "--json")
    assert proof["first_sequence"] == 1
    assert proof["is_proved"]
    assert proof["folded_commits"] == {}

    project.dtf("down")
    # They lose what they had: the log and its archive alone say what was.
    shutil.rmtree(project.directory / ".dtf" / "resource_manager")
    (project.directory / ".dtf" / "metrics.duckdb").unlink()
    third = run(project)
    again = project.json("replay", "--json")
    assert again["epoch"] == proof["epoch"] + 1
    assert again["is_proved"]
    report = project.json("report", first, "--json")
    assert len(report["cases"]) == 20
    story = project.json("explain", "run", first, "--json")
    assert story["lines"][0]["sequence"] < done["stream_begins_at"]
    state = project.json("state", "--at", str(done["archived_until"]), "--json")
    assert first in state["runs"]
    assert {first, second, third} <= set(project.json("state", "--json")["runs"])
