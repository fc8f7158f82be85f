"""From a launch on EC2 to the end of its worker: what EC2 was given boots a real worker, which joins by its token."""

import base64
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from dtf.adapters.memory_log import MemoryLog
from dtf.ports.capacity import LaunchRequest
from tests.booted_machine import Machine
from tests.ec2_bench import SHUTDOWN, Ec2Bench
from tests.ec2_server import Ec2Server
from tests.integration.joining_rig import Cluster, eventually

pytestmark = [pytest.mark.resource_manager, pytest.mark.worker]

DTF = f'#!/bin/sh\nexec {sys.executable} -P -m dtf.cli.main "$@"\n'


class JoiningBench(Ec2Bench):
    """Its workers come with a token of a coordinator."""

    token = ""

    def environment(self, request: LaunchRequest) -> Mapping[str, str]:
        """The token."""
        return {"DTF_JOIN_TOKEN": self.token}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A coordinator that serves TLS."""
    running = Cluster(tmp_path / "cluster", MemoryLog())
    await running.start()
    yield running
    await running.close()


async def test_what_ec2_was_given_boots_a_worker_that_joins_works_leaves_and_is_told_of(
    cluster: Cluster, ec2: Ec2Server, tmp_path: Path
) -> None:
    bench = JoiningBench(ec2)
    await bench.start()
    bench.token = await cluster.issue(pool="local", launch_id="local-1", is_single_use=True)
    instance = await bench.provider.launch(LaunchRequest("local-1", "local", labels={"disk": "fast"}))
    (asked,) = ec2.requests("RunInstances")

    (tmp_path / "machine").mkdir()
    machine = Machine(tmp_path / "machine")
    machine.install("dtf", DTF)
    with machine.boot(base64.b64decode(asked["UserData"]).decode()) as process:
        try:
            await eventually(lambda: any(cluster.events("worker_registered")), "the worker has joined")
            (registered,) = [event.worker_registered for event in cluster.events("worker_registered")]
            assert (registered.worker_id, registered.launch_id) == ("local-1", "local-1")
            assert registered.labels["disk"] == "fast"
            async with cluster.client() as client:
                run = await client.start_run("s", commands=[["echo", "it ran"]])
                assert (await run.result()).counts.passed == 1
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (machine.directory / "run" / "worker.log").read_text()

    assert bench.token not in machine.console.read_text()
    await bench.end(instance, SHUTDOWN, console=machine.console.read_text())
    exited = await anext(aiter(bench.provider.exits()))
    assert (exited.reason, exited.is_clean) == ("exited with code 0", True)
    await bench.stop()
