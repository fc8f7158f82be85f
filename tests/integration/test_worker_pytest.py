"""A real worker runs pytest cases, many to an attempt, for a real coordinator."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from dtf.api.v1 import common_pb2, fleet_service_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from dtf.worker.slots import IDLE_SECONDS
from tests.integration.worker_rig import eventually, finish, is_running, running

pytestmark = pytest.mark.worker

SUITE = """
import os, signal, time, pathlib, pytest
HERE = pathlib.Path(__file__).parent

@pytest.fixture(scope="session", autouse=True)
def session_note():
    with open(HERE / "sessions", "a") as file: file.write("up ")
    (HERE / "pid").write_text(str(os.getpid()))
    yield
    with open(HERE / "sessions", "a") as file: file.write("down ")

@pytest.fixture(autouse=True)
def note(request):
    with open(HERE / "ran", "a") as file: file.write(request.node.name + " ")

def test_a(): pass
def test_b(): assert 1 == 2
@pytest.mark.skip
def test_c(): pass
def test_exit(): os._exit(5)
def test_segv(): os.kill(os.getpid(), signal.SIGSEGV)
def test_hang():
    while True: time.sleep(0.01)
def test_wait():
    while not (HERE / "gate").exists(): time.sleep(0.005)
def test_z(): pass
def test_large():
    print("x" * 50_000)
    assert 0
def test_stop(): pytest.exit("enough")
"""
PASSED, FAILED, ERROR = common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR
ALL = [
    "test_a",
    "test_b",
    "test_c",
    "test_exit",
    "test_segv",
    "test_hang",
    "test_wait",
    "test_z",
    "test_large",
    "test_stop",
]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    directory = tmp_path / "suite"
    directory.mkdir()
    (directory / "test_suite.py").write_text(SUITE)
    (directory / "pytest.ini").write_text(
        "[pytest]\naddopts = -p no:dtf -p no:cacheprovider -p no:randomly\n"
    )
    return directory


async def submit(
    client: Client,
    suite: Path,
    shards: Sequence[Sequence[str]],
    *,
    timeout_seconds: float = 60.0,
    retries: int = 0,
) -> RunHandle:
    """A run of shards of the suite's cases."""
    template = common_pb2.TaskTemplate(
        pytest=common_pb2.PytestSpec(
            root_dir=str(suite), working_dir=str(suite), arguments=[str(suite)], collected_count=len(ALL)
        ),
        retry=common_pb2.RetryPolicy(infrastructure_retries=retries),
        timeout_seconds=timeout_seconds,
    )
    run = await client.create_run(run_service_pb2.CreateRunRequest(suite="pytest", templates=[template]))
    await run.submit_many(
        [
            common_pb2.TaskSpec(
                name=f"shard {n}",
                cases=[f"test_suite.py::{name}" for name in shard],
                positions=[ALL.index(name) for name in shard],
            )
            for n, shard in enumerate(shards)
        ]
    )
    await run.seal()
    return run


def ran(suite: Path) -> list[str]:
    return sorted((suite / "ran").read_text().split())


async def verdicts(client: Client, run: RunHandle) -> dict[str, int]:
    """Final verdicts by name."""
    return {
        case.name.partition("::")[2]: int(case.verdict)
        async for task in client.list_tasks(run.run_id)
        for case in task.cases
    }


async def test_cases_of_a_shard_are_judged_one_by_one_in_one_session(tmp_path: Path, suite: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_a", "test_b"], ["test_c", "test_z"]])
        ended = await finish(run)
        assert (ended.counts.passed, ended.counts.failed, ended.counts.skipped) == (2, 1, 1)
        assert ran(suite) == ["test_a", "test_b", "test_z"]
        assert (suite / "sessions").read_text() == "up down "
        assert b"assert 1 == 2" in rig.details(0)[1].reports_json


@pytest.mark.parametrize(
    ("case", "reason"),
    [("test_exit", "exited with code 5 (os._exit(5))"), ("test_segv", "killed by signal 11")],
)
async def test_a_crash_costs_its_case_alone_in_its_shard_and_beside_it(
    tmp_path: Path, suite: Path, case: str, reason: str
) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_a", case, "test_c"], ["test_z", "test_b"]])
        await finish(run)
        assert await verdicts(client, run) == {
            "test_a": PASSED,
            case: ERROR,
            "test_c": common_pb2.VERDICT_SKIPPED,
            "test_z": PASSED,
            "test_b": FAILED,
        }
        assert ran(suite) == sorted(["test_a", case, "test_z", "test_b"])
        assert rig.ended() == [(0, common_pb2.OUTCOME_CRASHED, 2, reason)]


async def test_a_hanging_case_costs_itself_alone_and_tells_where_it_hung(tmp_path: Path, suite: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_a", "test_hang", "test_z"]], timeout_seconds=3.0)
        await finish(run)
        found = await verdicts(client, run)
        assert (found["test_a"], found["test_z"]) == (PASSED, PASSED)
        assert found["test_hang"] in (FAILED, ERROR)
        assert ran(suite) == ["test_a", "test_hang", "test_z"]
        assert rig.ended() == [(0, common_pb2.OUTCOME_TIMED_OUT, 2, "stopped after its timeout of 3 s")]


async def test_a_large_report_goes_to_the_blob_store(tmp_path: Path, suite: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_large"]])
        assert (await finish(run)).counts.failed == 1
        (detail,) = rig.details(0)
        assert detail.reports_json == b""
        assert (
            len(await client.fetch_blob(detail.reports_blob.digest)) == detail.reports_blob.size_bytes > 16384
        )


async def test_a_restarted_coordinator_gets_each_case_once(tmp_path: Path, suite: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_a", "test_wait", "test_b"], ["test_z", "test_c"]])
        await eventually(lambda: (suite / "ran").exists() and "test_wait" in ran(suite), "the case ran")
        await rig.stop_coordinator()
        (suite / "gate").touch()
        await rig.start_coordinator()
        ended = await finish(run)
        assert (ended.counts.passed, ended.counts.failed, ended.counts.skipped) == (3, 1, 1)
        assert ran(suite) == ["test_a", "test_b", "test_wait", "test_z"]
        assert all(len(found) == 1 for found in rig.accepted().values())


async def test_a_killed_worker_costs_only_what_it_had_not_reported(tmp_path: Path, suite: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        run = await submit(client, suite, [["test_a", "test_wait", "test_z"]], retries=9)
        await eventually(lambda: (0, 0) in rig.accepted(), "the first case was accepted")
        await eventually(lambda: "test_wait" in ran(suite), "the second case ran")
        tree = worker.tree()
        worker.process.kill()
        await eventually(lambda: not any(map(is_running, tree)), "the whole tree ended")
        lost = fleet_service_pb2.ReportWorkerLostRequest(
            worker_id=worker.worker_id, incarnation=1, reason="it was killed"
        )
        await client.fleet.ReportWorkerLost(lost, metadata=client.metadata)
        (suite / "gate").touch()
        await rig.worker()
        assert (await finish(run)).counts.passed == 3
        assert ran(suite) == ["test_a", "test_wait", "test_wait", "test_z"]
        assert all(len(found) == 1 for found in rig.accepted().values())


async def test_a_suite_that_cannot_be_collected_says_so_for_each_case(tmp_path: Path, suite: Path) -> None:
    (suite / "conftest.py").write_text("import no_such_module\n")
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await submit(client, suite, [["test_a", "test_b"]])
        assert (await finish(run)).counts.error == 2
        assert "no_such_module" in rig.details(0)[0].message + rig.details(0)[0].output_tail


async def test_a_session_that_stopped_holds_nothing_back_once_its_run_is_cancelled(
    tmp_path: Path, suite: Path
) -> None:
    """Neither the rest of the attempt that stopped it, nor the successor it had announced."""
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker("--slots", "1")
        run = await submit(client, suite, [["test_stop", "test_a"], ["test_z"]])
        await eventually(lambda: (0, 0) in rig.accepted(), "the stopping case was reported")
        await run.cancel("test")
        await finish(run)
        assert ran(suite) == ["test_stop"]
        after = await submit(client, suite, [["test_a"]])
        assert (await finish(after)).counts.passed == 1


async def test_processes_end_with_their_run_though_the_coordinator_changed_meanwhile(
    tmp_path: Path, suite: Path
) -> None:
    """Whoever leads now never granted them anything, and has to tell them all the same."""
    async with running(tmp_path) as rig:
        await rig.worker("--slots", "1")
        async with rig.client() as client:
            run = await submit(client, suite, [["test_wait"]])
            await eventually(lambda: (suite / "ran").exists(), "the case began")
            process = psutil.Process(int((suite / "pid").read_text()))
        await rig.stop_coordinator()
        await rig.start_coordinator()
        (suite / "gate").touch()
        async with rig.client() as client:
            assert (await finish(await client.attach(run.run_id))).counts.passed == 1
        async with asyncio.timeout(0.8 * IDLE_SECONDS):
            await eventually(lambda: not is_running(process), "the pytest process ended")
