"""The embedded stack as its users live with it: shared, kept, stopped, killed, and never left behind."""

import asyncio
import json
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import psutil

from dtf.api.v1 import events_pb2
from dtf.cli.exit_codes import ExitCode
from dtf.client.stack import read_stack
from tests.e2e.project import COMMAND_SECONDS, Project, finish
from tests.processes import command_line, processes_of, wait_until_gone

SLOW = "sleep 1000\n" * 4


def is_result(event: events_pb2.Event) -> bool:
    """Whether some case's result was accepted."""
    return event.HasField("results_accepted")


def is_lease(event: events_pb2.Event) -> bool:
    """Whether a worker got work."""
    return event.HasField("leases_granted")


async def started(project: Project, *arguments: str) -> "subprocess.Popen[str]":
    """`dtf ARGUMENTS`, once its stack serves and its work is leased."""
    project.dtf("up")
    process = project.start(*arguments)
    await project.wait_for(is_lease)
    let_go(project)
    return process


def let_go(project: Project) -> None:
    """Undo `dtf up`: the stack lives as long as its users."""
    assert json.loads(project.dtf("down", "--json"))["members"] == 1


def test_a_first_run_starts_everything_and_leaves_nothing_but_its_directory(project: Project) -> None:
    project.write("commands.txt", "true\nfalse\n")
    before = set(project.directory.iterdir())
    result = project.json("run", "--each", "commands.txt", "--json", expect=(ExitCode.FAILED,))
    assert result["counts"]["passed"] == 1
    assert result["counts"]["failed"] == 1
    assert [failure["name"] for failure in result["failures"]] == ["false"]
    assert Path(result["report"]).is_file()
    assert read_stack(project.directory) is None
    assert wait_until_gone(project.directory) == []
    assert set(project.directory.iterdir()) - before == {project.directory / ".dtf"}
    assert stat.S_IMODE((project.directory / ".dtf").stat().st_mode) == 0o700


async def test_two_runs_share_one_stack_and_the_last_one_out_stops_it(project: Project) -> None:
    gate = project.directory / "gate"
    project.write("first.txt", f"until [ -e {gate} ]; do sleep 0.05; done\n")
    project.write("second.txt", "true\n")
    first = await started(project, "run", "--each", "first.txt", "--json")
    supervisor = project.stack.supervisor_pid
    second = json.loads(project.dtf("run", "--each", "second.txt", "--json"))
    assert second["counts"]["passed"] == 1
    assert project.stack.supervisor_pid == supervisor
    account = await project.account()
    assert sorted(len(run.cases) for run in account.runs.values()) == [1, 1]
    gate.touch()
    await asyncio.to_thread(finish, first)
    assert read_stack(project.directory) is None


def test_a_stack_that_is_up_is_joined_and_stays(project: Project) -> None:
    project.write("commands.txt", "true\n")
    up = project.json("up", "--json")
    assert up["is_new"]
    project.dtf("run", "--each", "commands.txt")
    status = project.json("status", "--json")
    assert status["stack"]["addresses"]["supervisor_pid"] == up["supervisor_pid"]
    assert status["stack"]["is_kept_up"]
    assert [part["restarts"] for part in status["stack"]["parts"]] == [0, 0, 0, 0]
    assert len(project.dtf("runs", "--json").splitlines()) == 1
    assert json.loads(project.dtf("down", "--json"))["stopped"]
    assert project.json("status", "--json", expect=(ExitCode.UNAVAILABLE,)) == {"running": False}


def test_what_a_stack_did_can_be_asked_after_it_is_gone(project: Project) -> None:
    project.write("commands.txt", "echo from the first\nfalse\n")
    run_id = project.json("run", "--each", "commands.txt", "--json", expect=(1,))["run_id"]
    (line,) = project.dtf("runs").splitlines()
    assert line.startswith(run_id) and "1 passed, 1 failed" in line
    project.dtf("up")  # so that not each question starts it anew
    assert project.dtf("logs", run_id, "--task", "0") == "from the first\n"
    assert project.dtf("runs", "show", run_id).splitlines()[1:] == ["FAILED    task 1  false"]


async def test_ctrl_c_cancels_and_tells_what_finished(project: Project) -> None:
    project.write("commands.txt", "true\n" + SLOW)
    project.dtf("up")
    process = project.start("run", "--each", "commands.txt", "--json")
    await project.wait_for(is_result)
    process.send_signal(signal.SIGINT)
    result = json.loads(await asyncio.to_thread(finish, process, (ExitCode.CANCELLED,)))
    assert result["state"] == "cancelled"
    assert (result["counts"]["passed"], result["unjudged"]) == (1, 4)
    sleepers = [process for process in processes_of(project.directory) if "1000" in command_line(process)]
    assert (await asyncio.to_thread(psutil.wait_procs, sleepers, COMMAND_SECONDS))[1] == []


async def test_killing_dtf_run_cancels_its_run_and_leaves_no_process(project: Project) -> None:
    project.write("commands.txt", SLOW)
    process = await started(project, "run", "--each", "commands.txt")
    process.kill()
    assert wait_until_gone(project.directory) == []
    (run,) = map(json.loads, project.dtf("runs", "--json").splitlines())
    assert run["state"] == "cancelled"


async def test_killing_the_supervisor_leaves_no_process_and_is_told_in_one_line(project: Project) -> None:
    project.write("commands.txt", SLOW)
    process = await started(project, "run", "--each", "commands.txt")
    os.kill(project.stack.supervisor_pid, signal.SIGKILL)
    _, errors = await asyncio.to_thread(process.communicate, timeout=COMMAND_SECONDS)
    assert process.returncode == ExitCode.UNAVAILABLE
    assert "error: the supervisor of this project's stack died" in errors
    assert "Traceback" not in errors
    assert wait_until_gone(project.directory) == []


async def test_a_stack_whose_state_directory_is_deleted_ends(project: Project) -> None:
    project.write("commands.txt", SLOW)
    process = await started(project, "run", "--each", "commands.txt")
    shutil.rmtree(project.directory / ".dtf", ignore_errors=True)
    _, errors = await asyncio.to_thread(process.communicate, timeout=COMMAND_SECONDS)
    assert process.returncode == ExitCode.UNAVAILABLE
    assert "the stack was stopped by the deletion of" in errors
    assert "Traceback" not in errors
    assert wait_until_gone(project.directory) == []


HANGING = "import subprocess\n\ndef test_hang():\n    subprocess.run(['sleep', '1000'])\n"


async def test_killing_pytest_leaves_no_process(project: Project) -> None:
    project.write("test_hang.py", HANGING)
    process = await started(project, "run", "test_hang.py", "-q")
    process.kill()
    assert wait_until_gone(project.directory) == []


async def test_pytest_whose_supervisor_is_killed_ends_and_leaves_no_process(project: Project) -> None:
    project.write("test_hang.py", HANGING)
    process = await started(project, "run", "test_hang.py", "-q")
    os.kill(project.stack.supervisor_pid, signal.SIGKILL)
    await asyncio.to_thread(process.communicate, timeout=COMMAND_SECONDS)
    assert process.returncode != 0
    assert wait_until_gone(project.directory) == []


async def test_ctrl_c_twice_leaves_at_once_and_nothing_stays(project: Project) -> None:
    project.write("commands.txt", "trap '' TERM INT; " + SLOW)
    process = await started(project, "run", "--each", "commands.txt")
    process.send_signal(signal.SIGINT)
    await project.wait_for(lambda event: event.HasField("run_cancel_requested"))
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(process.wait, COMMAND_SECONDS)
    assert process.returncode == ExitCode.CANCELLED
    assert wait_until_gone(project.directory) == []
