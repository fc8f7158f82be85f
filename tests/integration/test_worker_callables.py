"""A real worker runs functions for a real coordinator: what ends how, and what it costs the others."""

import os
import signal
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from tests.integration.worker_rig import eventually, finish, is_running, is_told_alive, running
from tests.processes import command_line

pytestmark = pytest.mark.worker

SUITE = """
import os, signal, stat, sys, time, threading, subprocess, pathlib

def noop(*_): pass

def log(path, name, *_):
    with open(path, "a") as file: file.write(f"{name}\\n")
    return name

def act(path, name, what=""):
    log(path, name)
    if what == "exit": print("last words", file=sys.__stderr__, flush=True); os._exit(3)
    if what == "exit_once" and pathlib.Path(path).read_text().split().count(name) == 1: os._exit(3)
    if what == "segv": os.kill(os.getpid(), signal.SIGSEGV)
    if what == "garble":
        for fd in range(3, 64):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, b"\\xff" * 100)
            except OSError: pass
        threading.Event().wait()
    if what == "fail": raise ValueError("it fails")
    if what == "print": print("printed", "x" * 20000)
    if what == "hang": threading.Event().wait()
    if what == "hang_with_child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        pathlib.Path(path + ".pid").write_text(str(child.pid))
        os.rename(path + ".pid", path + ".up")
        threading.Event().wait()
    return name
"""
PASSED, FAILED, ERROR = common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Where the suite notes what ran."""
    (tmp_path / "suite.py").write_text(SUITE)
    path = tmp_path / "ran"
    path.touch()
    return path


async def act(
    client: Client, ran: Path, *cases: str, timeout_seconds: float = 0.0, retries: int = 0
) -> RunHandle:
    """A run of `act`, one task a case."""
    return await client.start_run(
        "suite",
        function="suite:act",
        arguments=[[str(ran), f"case-{n}", what] for n, what in enumerate(cases)],
        working_dir=str(ran.parent),
        import_path=[str(ran.parent)],
        timeout_seconds=timeout_seconds,
        infrastructure_retries=retries,
    )


def counts(ran: Path) -> dict[str, int]:
    words = ran.read_text().split()
    return {word: words.count(word) for word in words}


async def test_every_task_is_run_once_and_accepted_once(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker("--slots", "2")
        run = await act(client, ran, *[""] * 300)
        ended = await finish(run)
        assert ended.counts.passed == 300
        assert counts(ran) == {f"case-{n}": 1 for n in range(300)}
        assert rig.accepted() == {(n, 0): [PASSED] for n in range(300)}
        assert [detail.value_json for detail in rig.details(7)] == ['"case-7"']


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("exit", "exited with code 3 (os._exit(3))"),
        ("segv", "killed by signal 11"),
        ("garble", "it wrote to its channel what is no message"),
    ],
)
async def test_a_case_that_kills_its_process_costs_itself_alone(
    tmp_path: Path, ran: Path, what: str, reason: str
) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await act(client, ran, *[""] * 10, what, *[""] * 30)
        ended = await finish(run)
        assert (ended.counts.passed, ended.counts.error) == (40, 1)
        assert counts(ran) == {f"case-{n}": 1 for n in range(41)}
        ((task, outcome, running_case, words),) = rig.ended()
        assert (task, outcome, running_case) == (10, common_pb2.OUTCOME_CRASHED, 1)
        assert words.startswith(reason)


async def test_a_crash_is_tried_again_where_that_is_allowed(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await act(client, ran, "", "exit_once", "", retries=1)
        ended = await finish(run)
        assert ended.counts.passed == 3
        assert counts(ran) == {"case-0": 1, "case-1": 2, "case-2": 1}


async def test_failures_and_output_reach_the_log_and_the_blob_store(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await act(client, ran, "fail", "print")
        ended = await finish(run)
        assert (ended.counts.failed, ended.counts.passed) == (1, 1)
        assert rig.details(0)[0].message == "ValueError: it fails"
        assert "Traceback" in rig.details(0)[0].output_tail
        output = b"".join([piece async for piece in rig.blobs.read_output(run.run_id, 1, 1)])
        assert output == b"printed " + b"x" * 20000 + b"\n"
        assert rig.details(1)[0].output_tail.endswith("x\n")


async def test_a_hanging_case_is_stopped_with_its_tree_and_its_stack_is_kept(
    tmp_path: Path, ran: Path
) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await act(client, ran, "", "hang_with_child", "", timeout_seconds=3.0)
        ended = await finish(run)
        assert (ended.counts.passed, ended.counts.error + ended.counts.failed) == (2, 1)
        ((task, outcome, running_case, reason),) = rig.ended()
        assert (task, outcome, running_case) == (1, common_pb2.OUTCOME_TIMED_OUT, 1)
        assert reason == "stopped after its timeout of 3 s"
        await eventually(lambda: not is_told_alive(Path(f"{ran}.up")), "its child ended")
        assert counts(ran) == {"case-0": 1, "case-1": 1, "case-2": 1}


async def test_a_cancelled_run_stops_at_once_and_the_next_one_runs(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await act(client, ran, "hang_with_child", *[""] * 20)
        await eventually(Path(f"{ran}.up").exists, "the case ran")
        await run.cancel("enough")
        ended = await finish(run)
        assert ended.state == common_pb2.RUN_STATE_CANCELLED
        assert counts(ran) == {"case-0": 1}
        after = await finish(await act(client, ran, ""))
        assert after.counts.passed == 1


async def test_a_function_that_cannot_be_imported_is_an_error_of_each_task(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await client.start_run(
            "suite",
            function="suite:no_such",
            arguments=[[], []],
            working_dir=str(tmp_path),
            infrastructure_retries=0,
        )
        ended = await finish(run)
        assert ended.counts.error == 2
        assert "no_such" in rig.details(0)[0].message


async def test_a_module_that_kills_its_process_when_imported_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos._exit(9)\n")
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await client.start_run(
            "suite",
            function="deadly:f",
            arguments=[[], []],
            working_dir=str(tmp_path),
            infrastructure_retries=0,
        )
        ended = await finish(run)
        assert ended.counts.error == 2
        assert "exited with code 9" in rig.details(0)[0].message


async def test_two_runs_share_one_slot(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        runs = [await act(client, ran, "", "", ""), await act(client, ran, "", "", "")]
        assert [(await finish(run)).counts.passed for run in runs] == [3, 3]


async def test_sigterm_lets_what_runs_end_and_gives_the_rest_back(tmp_path: Path, ran: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(
        "import os, time\n"
        "def run(gate, up, *_):\n"
        "    open(up, 'w').close()\n"
        "    while not os.path.exists(gate): time.sleep(0.005)\n"
    )
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        run = await client.start_run(
            "suite",
            function="gated:run",
            arguments=[[str(gate), str(tmp_path / f"up-{n}")] for n in range(5)],
            working_dir=str(tmp_path),
            import_path=[str(tmp_path)],
        )
        await eventually((tmp_path / "up-0").exists, "the first task ran")
        await eventually(lambda: rig.leased() == 5, "the others wait behind it")
        os.kill(worker.process.pid, signal.SIGTERM)
        await eventually(lambda: any(rig.events("leases_released")), "leases were given back")
        gate.touch()
        assert await worker.exit_code() == 0
        assert not (tmp_path / "up-1").exists()
        assert [event.worker_left.reason for event in rig.events("worker_left")] == ["drained"]
        await rig.worker()
        assert (await finish(run)).counts.passed == 5
        assert len(rig.accepted()) == 5


async def test_a_second_sigterm_stops_at_once(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        await act(client, ran, "hang_with_child")
        await eventually(Path(f"{ran}.up").exists, "the case ran")
        tree = worker.tree()
        os.kill(worker.process.pid, signal.SIGTERM)
        await eventually(
            lambda: any(rig.events("worker_drain_requested")), "the coordinator knows that it drains"
        )
        os.kill(worker.process.pid, signal.SIGTERM)
        assert await worker.exit_code() == 2
        await eventually(lambda: not any(map(is_running, tree)), "the whole tree ended")


@pytest.mark.parametrize("how", ["killed", "lifeline"])
async def test_nothing_outlives_a_worker_and_its_work_is_done_by_another(
    tmp_path: Path, ran: Path, how: str
) -> None:
    lifeline, keep = os.pipe()
    async with running(tmp_path, lease_seconds=2.0, heartbeat_seconds=0.2) as rig, rig.client() as client:
        worker = await rig.worker("--name", "first", lifeline=lifeline)
        os.close(lifeline)
        run = await act(client, ran, "", "hang_with_child", "", timeout_seconds=60.0, retries=9)
        await eventually(Path(f"{ran}.up").exists, "the case ran")
        tree = worker.tree()
        if how == "killed":
            worker.process.kill()
        os.close(keep)
        await worker.exit_code()
        await eventually(lambda: not any(map(is_running, tree)), "the whole tree ended")
        (tmp_path / "suite.py").write_text(SUITE.replace("threading.Event().wait()", "return"))
        await rig.worker("--name", "second")
        assert (await finish(run)).counts.passed == 3
        assert sorted(rig.accepted()) == [(0, 0), (1, 0), (2, 0)]
        assert all(len(verdicts) == 1 for verdicts in rig.accepted().values())


async def test_a_worker_whose_launcher_is_killed_ends_with_everything(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        await act(client, ran, "hang_with_child")
        await eventually(Path(f"{ran}.up").exists, "the case ran")
        tree = worker.tree()
        (launcher,) = [process for process in tree if "dtf.runner.launcher" in command_line(process)]
        launcher.kill()
        assert await worker.exit_code() == 3
        assert "the launcher died" in worker.log
        await eventually(lambda: not any(map(is_running, tree)), "the whole tree ended")


async def test_a_restarted_coordinator_is_found_again_and_nothing_runs_twice(
    tmp_path: Path, ran: Path
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(
        "import os, time\n"
        "def run(gate, path, name):\n"
        "    with open(path, 'a') as file: file.write(name + '\\n')\n"
        "    if name == 'case-20':\n"
        "        while not os.path.exists(gate): time.sleep(0.005)\n"
        "        open(path + '.ended', 'w').close()\n"
    )
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await client.start_run(
            "suite",
            function="gated:run",
            arguments=[[str(gate), str(ran), f"case-{n}"] for n in range(40)],
            working_dir=str(tmp_path),
            import_path=[str(tmp_path)],
        )
        await eventually(lambda: "case-20" in ran.read_text(), "the gated task ran")
        await rig.stop_coordinator()
        gate.touch()
        await eventually(Path(f"{ran}.ended").exists, "it ended while nobody listened")
        await rig.start_coordinator()
        assert (await finish(run)).counts.passed == 40
        assert counts(ran) == {f"case-{n}": 1 for n in range(40)}
        assert all(len(verdicts) == 1 for verdicts in rig.accepted().values())
        assert not any(rig.events("worker_lost"))


async def test_a_worker_whose_session_expired_opens_a_new_one(tmp_path: Path, ran: Path) -> None:
    async with running(tmp_path, lease_seconds=1.0, heartbeat_seconds=0.2) as rig, rig.client() as client:
        worker = await rig.worker("--name", "sleeper")
        tree = [worker.process.pid]
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        await eventually(lambda: any(rig.events("worker_lost")), "it counted as lost")
        for pid in tree:
            os.kill(pid, signal.SIGCONT)
        await eventually(
            lambda: [e.worker_registered.incarnation for e in rig.events("worker_registered")][:2] == [1, 2],
            "it opened a second session",
        )
        assert (await finish(await act(client, ran, "", "", retries=9))).counts.passed == 2
