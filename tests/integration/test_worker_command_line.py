"""`dtf worker` as people and the resource manager start it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.worker_rig import Rig, eventually, finish, running

pytestmark = pytest.mark.worker


def dtf(directory: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "dtf.cli.main", "--project", str(directory), "worker", *options],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 4, "no coordinator is named"),
        (["--server", "nowhere"], 4, "address 'nowhere' is not host:port"),
        (["--server", "127.0.0.1:1", "--token-file", "/no/such/token"], 4, "cannot read the token file"),
        (["--server", "127.0.0.1:1", "--label", "gpu"], 4, "'gpu' is not key=value"),
        (["--server", "127.0.0.1:1", "--slots", "0"], 4, "0 is not in the range"),
    ],
)
def test_a_bad_command_line_is_one_clear_error(
    tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    done = dtf(tmp_path, *options)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def run_to_end(rig: Rig, *options: str) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(dtf, rig.directory, "--server", rig.address, *options)


async def test_a_wrong_token_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not the token")
    async with running(tmp_path) as rig:
        done = await run_to_end(rig, "--token-file", str(tmp_path / "wrong"))
        assert done.returncode == 1
        assert "refused this worker" in done.stderr
        assert "--token-file" in done.stderr


async def test_a_worker_whose_name_another_takes_leaves_it_to_that_one(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        first = await rig.worker("--name", "same")
        second = await rig.worker("--name", "same")
        assert await first.exit_code() == 1
        assert "another worker took this one's place" in first.log
        (tmp_path / "m.py").write_text("def f(): pass\n")
        run = await client.start_run("s", function="m:f", arguments=[[]], working_dir=str(tmp_path))
        assert (await finish(run)).counts.passed == 1
        assert second.process.poll() is None


async def test_labels_resources_and_telemetry_are_told(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker("--label", "gpu=a100", "--pool", "special", "--slots", "3")
        (worker,) = await client.list_workers()
        assert worker.labels["gpu"] == "a100"
        assert {"os", "arch", "python", "host"} <= set(worker.labels)
        assert (worker.pool, worker.slots) == ("special", 3)
        assert worker.resources.cpus > 0
        assert worker.resources.memory_bytes > 2**28
        await eventually(lambda: len(rig.telemetry.records) > 0, "a sample arrived")


async def test_a_drained_worker_leaves_in_good_order(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker("--name", "tired")
        from dtf.api.v1 import fleet_service_pb2

        request = fleet_service_pb2.DrainWorkerRequest(worker_id="tired", requested_by="test", reason="done")
        await client.fleet.DrainWorker(request, metadata=client.metadata)
        assert await worker.exit_code() == 0
        assert [event.worker_left.worker_id for event in rig.events("worker_left")] == ["tired"]


async def test_work_behind_a_long_case_is_done_by_an_idle_worker(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(
        "import os, time\n"
        "def f(n):\n"
        "    with open('ran', 'a') as file: file.write(f'{n} ')\n"
        "    while n == 0 and not os.path.exists('gate'): time.sleep(0.005)\n"
    )
    ran = tmp_path / "ran"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker("--name", "first")
        run = await client.start_run(
            "s", function="m:f", arguments=[[n] for n in range(5)], working_dir=str(tmp_path)
        )
        await eventually(ran.exists, "the first worker began")
        await eventually(lambda: rig.leased() == 5, "it has the others as well")
        await rig.worker("--name", "second")
        await eventually(lambda: len(ran.read_text().split()) == 5, "the second did the rest")
        (tmp_path / "gate").touch()
        assert (await finish(run)).counts.passed == 5
        assert sorted(ran.read_text().split()) == list("01234")
        assert any(rig.events("leases_released"))
