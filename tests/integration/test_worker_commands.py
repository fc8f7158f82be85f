"""A real worker runs commands for a real coordinator."""

import json
import signal
import sys
from pathlib import Path

import pytest

from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.client.run import RunHandle
from tests.integration.worker_rig import Rig, eventually, finish, is_told_alive, running

pytestmark = pytest.mark.worker


async def command(
    client: Client, *argv: str, timeout_seconds: float = 0.0, payload: str = "", **spec: object
) -> RunHandle:
    """A run of one command."""
    template = common_pb2.TaskTemplate(
        command=common_pb2.CommandSpec(argv=argv, **spec),  # type: ignore[arg-type]
        retry=common_pb2.RetryPolicy(),
        timeout_seconds=timeout_seconds,
    )
    run = await client.create_run(run_service_pb2.CreateRunRequest(suite="commands", templates=[template]))
    await run.submit_many([common_pb2.TaskSpec(name=" ".join(argv), payload=payload)])
    await run.seal()
    return run


async def output_of(rig: Rig, run: RunHandle) -> bytes:
    return b"".join([piece async for piece in rig.blobs.read_output(run.run_id, 0, 1)])


async def test_a_command_is_given_its_arguments_directory_environment_and_input(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['COLOUR'], sys.stdin.read(), sys.argv[1:], sorted(k for k in os.environ if k.startswith('DTF_')))"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(
            client,
            sys.executable,
            "-c",
            code,
            "one",
            payload='["two"]',
            working_dir=str(tmp_path),
            environment={"COLOUR": "red"},
            stdin=b"hello",
        )
        assert (await finish(run)).counts.passed == 1
        expected = f"{tmp_path} red hello ['one', 'two'] ['DTF_PROCESS_TREE']\n"
        assert (await output_of(rig, run)).decode() == expected
        (detail,) = rig.details(0)
        assert detail.output_tail == expected


async def test_an_exit_code_fails_and_resources_are_measured(tmp_path: Path) -> None:
    code = "import sys; x = bytearray(80_000_000); sum(range(3_000_000)); sys.exit(4)"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(client, sys.executable, "-c", code)
        assert (await finish(run)).counts.failed == 1
        (detail,) = rig.details(0)
        assert (detail.exit_code, detail.message) == (4, "exited with code 4")
        (event,) = rig.events("results_accepted")
        assert event.results_accepted.cpu_seconds[0] > 0.005
        assert event.results_accepted.peak_memory_bytes[0] > 80_000_000


@pytest.mark.parametrize(
    ("argv", "payload", "said"),
    [
        (("/no/such/program",), "", "cannot start /no/such/program: No such file or directory"),
        (("true",), '{"a": 1}', "expected a JSON array of strings"),
    ],
)
async def test_what_cannot_be_started_is_an_error_that_says_why(
    tmp_path: Path, argv: tuple[str, ...], payload: str, said: str
) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        assert (await finish(await command(client, *argv, payload=payload))).counts.error == 1
        assert said in rig.details(0)[0].message


async def test_output_is_stored_while_the_command_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo early; while [ ! -e {gate} ]; do sleep 0.01; done; echo late"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(client, "/bin/sh", "-c", script)
        seen = b""
        async for _, _, piece in _tail(client, run.run_id):
            seen += piece
            if seen == b"early\n":
                gate.touch()
        assert seen == b"early\nlate\n"
        assert (await finish(run)).counts.passed == 1


async def _tail(client: Client, run_id: str):  # type: ignore[no-untyped-def]
    async for response in client.runs.TailLogs(
        run_service_pb2.TailLogsRequest(run_id=run_id, follow=True), metadata=client.metadata
    ):
        yield response.task, response.attempt, response.data


async def test_much_output_arrives_whole(tmp_path: Path) -> None:
    code = "import sys\nfor n in range(200_000): print(n)\nsys.stdout.flush()"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(client, sys.executable, "-c", code)
        assert (await finish(run)).counts.passed == 1
        assert await output_of(rig, run) == b"".join(b"%d\n" % n for n in range(200_000))
        assert rig.details(0)[0].output_tail.endswith("199999\n")


async def test_an_overdue_command_ends_with_its_whole_tree(tmp_path: Path) -> None:
    script = "trap '' TERM; setsid sleep 600 & echo $! > one; sleep 600 & echo $! > two; wait"
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(client, "/bin/sh", "-c", script, timeout_seconds=3.0, working_dir=str(tmp_path))
        await finish(run)
        ((_, outcome, running_case, reason),) = rig.ended()
        assert (outcome, running_case) == (common_pb2.OUTCOME_TIMED_OUT, 1)
        assert reason == "stopped after its timeout of 3 s"
        for name in ("one", "two"):
            await eventually(lambda file=tmp_path / name: not is_told_alive(file), f"{name} ended")  # type: ignore[misc]


async def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        run = await command(client, "/bin/sh", "-c", "setsid sleep 600 & echo $!")
        assert (await finish(run)).counts.passed == 1
        await eventually(lambda: worker.running("sleep") == [], "what it left ended")


async def test_a_cancelled_command_ends_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as rig, rig.client() as client:
        worker = await rig.worker()
        run = await command(client, "sleep", "600")
        await eventually(lambda: worker.running("sleep") != [], "the command ran")
        await run.cancel()
        assert (await finish(run)).state == common_pb2.RUN_STATE_CANCELLED
        await eventually(lambda: worker.running("sleep") == [], "it ended")


JUNIT = """<?xml version="1.0"?>
<testsuites><testsuite name="s"><testcase classname="pkg.A" name="one" time="0.25"/>
<testcase classname="pkg.A" name="two" time="1.5"><failure message="no good">trace</failure></testcase>
<testcase name="three"><skipped/></testcase></testsuite></testsuites>"""


async def test_a_worker_that_was_lost_while_commands_ran_opens_a_session_and_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, lease_seconds=1.0, heartbeat_seconds=0.2) as rig, rig.client() as client:
        worker = await rig.worker("--slots", "2")
        run = await client.start_run("commands", commands=[["sleep", "2.5"]] * 4, infrastructure_retries=5)
        await eventually(lambda: len(worker.running("sleep")) == 2, "two commands run and two wait")
        worker.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: any(rig.events("worker_lost")), "the worker is given up")
        worker.process.send_signal(signal.SIGCONT)
        assert (await finish(run)).counts.passed == 4
        assert worker.process.poll() is None, worker.log
        assert "Error" not in worker.log


async def test_a_junit_file_replaces_the_exit_codes_verdict(tmp_path: Path) -> None:
    (tmp_path / "source.xml").write_text(JUNIT)
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(
            client, "cp", "source.xml", "out.xml", working_dir=str(tmp_path), junit_xml="out.xml"
        )
        assert (await finish(run)).counts.failed == 1
        (detail,) = rig.details(0)
        assert [(case.name, case.verdict) for case in detail.found] == [
            ("pkg.A::two", common_pb2.VERDICT_FAILED),
            ("three", common_pb2.VERDICT_SKIPPED),
            ("pkg.A::one", common_pb2.VERDICT_PASSED),
        ]
        assert detail.found[0].message == "no good"
        assert detail.message == "1 failed and 0 in error of 3 cases"


async def test_a_result_file_of_an_earlier_time_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    (tmp_path / "out.xml").write_text(JUNIT)
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(client, "true", working_dir=str(tmp_path), junit_xml="out.xml")
        assert (await finish(run)).counts.error == 1
        assert rig.details(0)[0].message == f"it did not write {tmp_path}/out.xml"


async def test_a_benchmark_file_becomes_measurements(tmp_path: Path) -> None:
    result = {"command": "sleep 0", "mean": 0.01, "median": 0.02, "min": 0.001, "max": 0.1, "stddev": None}
    (tmp_path / "source.json").write_text(json.dumps({"results": [result]}))
    async with running(tmp_path) as rig, rig.client() as client:
        await rig.worker()
        run = await command(
            client,
            "cp",
            "source.json",
            "out.json",
            working_dir=str(tmp_path),
            benchmark_json="out.json",
            benchmark_format=common_pb2.BENCHMARK_FORMAT_HYPERFINE,
        )
        assert (await finish(run)).counts.passed == 1
        (detail,) = rig.details(0)
        assert next((m.metric, m.value, m.unit, m.case_name) for m in detail.measurements) == (
            "mean",
            0.01,
            "s",
            "sleep 0",
        )
