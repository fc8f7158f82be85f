"""`dtf check` on a live stack: what clients, workers and the resource manager noted agrees with the log."""

import asyncio
from pathlib import Path

import psutil
import pytest

from tests.e2e.project import Project, finish

pytestmark = pytest.mark.coordinator


async def test_a_worker_killed_under_load_leaves_a_log_that_agrees_with_every_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal"
    monkeypatch.setenv("DTF_JOURNAL", str(journal))
    project_dir = tmp_path / "project"
    project_dir.mkdir()
    project = Project(project_dir)
    try:
        project.dtf("up")
        project.write("commands.txt", "".join(f"sleep 0.0{n % 5}  # {n}\n" for n in range(120)))
        run = project.start("run", "--each", "commands.txt", "--json")
        result = await project.wait_for(lambda event: event.HasField("results_accepted"), count=20)
        named = result.results_accepted.worker_id
        registered = await project.wait_for(lambda event: event.worker_registered.worker_id == named)
        psutil.Process(registered.worker_registered.process_id).kill()
        await asyncio.to_thread(finish, run)
        report = project.json("check", "--journal", str(journal), "--scaling", "--json")
        project.dtf("down")
        while_down = project.json("check", "--scaling", "--json")
    finally:
        project.close()
    assert report["clean"]
    checked = {each["property"]: each["checked"] for each in report["properties"]}
    assert checked["acknowledged-submissions"] >= 3
    assert checked["commit-before-grant"] >= 120
    assert checked["acknowledged-results"] >= 60, "of the worker that was killed what it had noted"
    assert checked["scaling-decisions"] >= 1
    decisions = {each["property"]: each["checked"] for each in while_down["properties"]}["scaling-decisions"]
    assert while_down["clean"]
    assert decisions >= checked["scaling-decisions"], (
        "the broker is started for the log and for the decisions"
    )
