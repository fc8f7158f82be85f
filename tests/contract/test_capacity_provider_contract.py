"""What every CapacityProvider does, the fake and the real ones."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from dtf.adapters.process_provider import ProcessProvider
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import CapacityProvider, Instance, InstanceState, LaunchRequest, ProviderError
from dtf.settings.providers import KubernetesSettings
from tests.ec2_bench import Ec2Bench
from tests.kubernetes_bench import KubernetesBench
from tests.kubernetes_cluster import KubernetesCluster
from tests.memory_provider import MemoryProvider
from tests.slurm_bench import SlurmBench
from tests.ssh_bench import SshBench

pytestmark = pytest.mark.resource_manager

WAIT_SECONDS = 80.0
SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
UNHAPPY = "import sys; print('error: no coordinator at 127.0.0.1:1', file=sys.stderr); sys.exit(3)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


class Bench(Protocol):
    """A provider under test and what the test does behind its back."""

    provider: CapacityProvider

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        ...


class StartableBench(Bench, Protocol):
    """One whose provider finds what an earlier one left."""

    async def start(self) -> None:
        """Find it."""
        ...

    async def stop(self) -> None:
        """Let go."""
        ...


class LiveBench(Bench, Protocol):
    """One whose instances run a program of the test."""

    async def until_up(self, launch_id: str) -> None:
        """Return when its program has said "up"."""
        ...

    def new_provider(self) -> "StartableProvider":
        """Another provider of the same instances."""
        ...


class StartableProvider(CapacityProvider, Protocol):
    """One that finds what an earlier one left."""

    async def start(self) -> None:
        """Find it."""
        ...


LIVE = ("process", "kubernetes-pod", "kubernetes-job", "slurm", "ssh")


CLOUDS = ("ec2", "gcp", "azure")
"""Their instances run nothing here: what they would say of their workers is written to their consoles."""


@contextmanager
def cloud_bench(request: pytest.FixtureRequest) -> Iterator[StartableBench]:
    """A cloud in which nothing was ever launched, and its provider."""
    if request.param == "ec2":
        yield Ec2Bench(request.getfixturevalue("ec2"))
        return
    with gcp_bench() if request.param == "gcp" else azure_bench() as bench:
        yield bench


@contextmanager
def gcp_bench() -> Iterator[StartableBench]:
    """A project of Google Cloud."""
    pytest.importorskip("google.cloud.compute_v1", reason="requirements-clouds.lock installs it")
    from tests.gcp_bench import GcpBench
    from tests.gcp_server import GcpServer

    server = GcpServer()
    yield GcpBench(server)
    server.stop()


@contextmanager
def azure_bench() -> Iterator[StartableBench]:
    """A resource group of Azure."""
    pytest.importorskip("azure.mgmt.compute", reason="requirements-clouds.lock installs it")
    from tests.azure_bench import AzureBench
    from tests.azure_server import AzureServer

    server = AzureServer()
    yield AzureBench(server)
    server.stop()


class MemoryBench:
    """The fake."""

    def __init__(self) -> None:
        self.memory = MemoryProvider(SystemClock())
        self.provider: CapacityProvider = self.memory

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        await self.memory.end(instance.launch_id, "was killed by signal 9")


class ProcessBench:
    """Real processes, as simple as can be."""

    def __init__(self, directory: Path, program: str = SLEEPER) -> None:
        self.directory = directory
        self.program = program
        self.process_provider = self.new_provider()
        self.provider: CapacityProvider = self.process_provider

    def new_provider(self) -> ProcessProvider:
        """Another provider over the same records."""
        return ProcessProvider(
            self.command,
            records_dir=self.directory / "launches",
            logs_dir=self.directory / "logs",
            clock=SystemClock(),
        )

    def command(self, request: LaunchRequest) -> Sequence[str]:
        """A process that ends when told."""
        return [sys.executable, "-I", "-S", "-c", self.program]

    async def until_up(self, launch_id: str) -> None:
        """Return when the process has said so in its log."""
        log = self.directory / "logs" / f"worker-{launch_id}.log"
        while "up" not in log.read_text():
            await asyncio.to_thread(os.stat, log)

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        os.kill(int(instance.handle.split()[-1]), signal.SIGKILL)

    def end_all(self) -> None:
        """Leave nothing behind."""
        for path in (self.directory / "launches").glob("*.json"):
            for process in psutil.process_iter():
                if _names_record(process, path):
                    process.kill()


def _names_record(process: psutil.Process, path: Path) -> bool:
    try:
        return bool(process.environ().get("DTF_LAUNCH_RECORD") == str(path.absolute()))
    except psutil.Error:
        return False


@pytest.fixture(params=["memory", *CLOUDS, *LIVE])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Each provider in turn."""
    if request.param == "memory":
        yield MemoryBench()
        return
    if request.param in CLOUDS:
        with cloud_bench(request) as cloud:
            await cloud.start()
            yield cloud
            await cloud.stop()
        return
    async with live_bench(request, tmp_path) as bench:
        yield bench


@pytest.fixture(params=LIVE)
async def live(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LiveBench]:
    """Each provider in turn whose instances run something."""
    async with live_bench(request, tmp_path) as bench:
        yield bench


@asynccontextmanager
async def live_bench(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[LiveBench]:
    """The provider of the fixture's parameter; the mark `program` says what its instances run."""
    mark = request.node.get_closest_marker("program")
    program = SLEEPER if mark is None else mark.args[0]
    if request.param == "process":
        async with process_bench(directory, program) as processes:
            yield processes
        return
    if request.param == "slurm":
        jobs = SlurmBench(request.getfixturevalue("slurm"), program)
        await jobs.start()
        try:
            yield jobs
        finally:
            await jobs.stop()
        return
    if request.param == "ssh":
        hosts = SshBench([request.getfixturevalue("ssh_daemon")], directory, program)
        await hosts.start()
        try:
            yield hosts
        finally:
            await hosts.stop()
        return
    cluster: KubernetesCluster = request.getfixturevalue("kubernetes")
    settings = KubernetesSettings(kind=request.param.removeprefix("kubernetes-"))
    kubernetes = KubernetesBench(cluster, program, settings)
    await kubernetes.start()
    try:
        yield kubernetes
    finally:
        await kubernetes.stop()


@asynccontextmanager
async def process_bench(directory: Path, program: str = SLEEPER) -> AsyncIterator[ProcessBench]:
    """Real processes that are gone afterwards."""
    bench = ProcessBench(directory, program)
    await bench.process_provider.start()
    try:
        yield bench
    finally:
        await bench.process_provider.close()
        bench.end_all()


def request_for(launch_id: str) -> LaunchRequest:
    """A launch as the resource manager asks for it."""
    return LaunchRequest(launch_id, "local", slots=1, labels={"disk": "fast"})


async def next_exit(provider: CapacityProvider) -> Instance:
    """The next instance to exit."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(aiter(provider.exits()))


async def test_what_was_launched_is_listed_as_running(bench: Bench) -> None:
    await bench.provider.launch(request_for("local-1"))
    await bench.provider.launch(request_for("local-2"))
    listed = await bench.provider.list_instances()
    assert [(i.launch_id, i.state) for i in listed] == [
        ("local-1", InstanceState.RUNNING),
        ("local-2", InstanceState.RUNNING),
    ]


async def test_launching_twice_under_one_identity_launches_once(bench: Bench) -> None:
    first = await bench.provider.launch(request_for("local-1"))
    again = await bench.provider.launch(request_for("local-1"))
    assert again == first
    assert len(await bench.provider.list_instances()) == 1


async def test_a_launch_that_exited_is_not_launched_again_under_its_identity(bench: Bench) -> None:
    await bench.kill(await bench.provider.launch(request_for("local-1")))
    await next_exit(bench.provider)
    again = await bench.provider.launch(request_for("local-1"))
    assert again.state is InstanceState.EXITED


async def test_an_instance_that_dies_is_told_with_how(bench: Bench) -> None:
    await bench.provider.launch(request_for("local-1"))
    await bench.kill(await bench.provider.launch(request_for("local-2")))
    exited = await next_exit(bench.provider)
    assert (exited.launch_id, exited.state, exited.is_clean) == ("local-2", InstanceState.EXITED, False)
    assert "killed by signal 9" in exited.reason


async def test_an_exited_instance_stays_listed_until_it_is_forgotten(bench: Bench) -> None:
    await bench.kill(await bench.provider.launch(request_for("local-1")))
    await next_exit(bench.provider)
    assert [i.state for i in await bench.provider.list_instances()] == [InstanceState.EXITED]
    await bench.provider.forget("local-1")
    assert await bench.provider.list_instances() == []


async def test_a_running_instance_is_not_forgotten(bench: Bench) -> None:
    await bench.provider.launch(request_for("local-1"))
    await bench.provider.forget("local-1")
    assert [i.launch_id for i in await bench.provider.list_instances()] == ["local-1"]


async def test_terminating_ends_an_instance_that_obeys_without_an_error(live: LiveBench) -> None:
    await live.provider.launch(request_for("local-1"))
    await live.until_up("local-1")
    await live.provider.terminate("local-1", grace_seconds=30)
    exited = await next_exit(live.provider)
    assert (exited.launch_id, exited.is_clean, exited.reason) == ("local-1", True, "exited with code 0")


async def test_terminating_what_is_unknown_or_gone_does_nothing(bench: Bench) -> None:
    await bench.provider.terminate("local-9", grace_seconds=1)
    await bench.kill(await bench.provider.launch(request_for("local-1")))
    await next_exit(bench.provider)
    await bench.provider.terminate("local-1", grace_seconds=1)
    assert len(await bench.provider.list_instances()) == 1


@pytest.mark.program(STUBBORN)
async def test_an_instance_that_ignores_sigterm_is_killed_after_the_grace(live: LiveBench) -> None:
    await live.provider.launch(request_for("local-1"))
    await live.until_up("local-1")
    await live.provider.terminate("local-1", grace_seconds=0.1)
    exited = await next_exit(live.provider)
    assert "killed by signal 9" in exited.reason


async def test_a_process_that_cannot_start_says_why_and_is_not_listed(tmp_path: Path) -> None:
    provider = ProcessProvider(
        lambda _: [str(tmp_path / "absent")],
        records_dir=tmp_path / "launches",
        logs_dir=tmp_path / "logs",
        clock=SystemClock(),
    )
    await provider.start()
    with pytest.raises(ProviderError, match="absent"):
        await provider.launch(request_for("local-1"))
    assert await provider.list_instances() == []
    await provider.close()


@pytest.mark.program(UNHAPPY)
async def test_the_last_error_line_of_a_worker_is_in_the_reason(live: LiveBench) -> None:
    await live.provider.launch(request_for("local-1"))
    exited = await next_exit(live.provider)
    assert exited.reason == "exited with code 3 (error: no coordinator at 127.0.0.1:1)"


async def test_another_provider_adopts_what_runs(live: LiveBench) -> None:
    running = await live.provider.launch(request_for("local-1"))
    second = live.new_provider()
    await second.start()
    assert await second.list_instances() == [running]
    assert await second.launch(request_for("local-1")) == running
    await live.kill(running)
    exited = await next_exit(second)
    assert (exited.launch_id, exited.state) == ("local-1", InstanceState.EXITED)
    await second.close()


async def test_a_process_started_without_its_record_being_completed_is_found_again(tmp_path: Path) -> None:
    async with process_bench(tmp_path) as bench:
        running = await bench.provider.launch(request_for("local-1"))
        record = tmp_path / "launches" / "local-1.json"
        record.write_text('{"launch_id": "local-1", "launched_at_ns": 5}')
        second = bench.new_provider()
        await second.start()
        assert [i.handle for i in await second.list_instances()] == [running.handle]
        await second.close()


async def test_a_record_whose_process_never_started_lets_the_launch_be_made(tmp_path: Path) -> None:
    async with process_bench(tmp_path / "a") as bench:
        (tmp_path / "a" / "launches" / "local-1.json").write_text(
            '{"launch_id": "local-1", "launched_at_ns": 5}'
        )
        second = bench.new_provider()
        await second.start()
        assert await second.list_instances() == []
        instance = await second.launch(request_for("local-1"))
        assert instance.state is InstanceState.RUNNING
        await second.close()


async def test_a_process_id_that_was_reused_is_not_taken_for_the_worker(tmp_path: Path) -> None:
    async with process_bench(tmp_path) as bench:
        record = f'{{"launch_id": "local-1", "launched_at_ns": 5, "process_id": {os.getpid()}, "process_started": 1.0}}'
        (tmp_path / "launches" / "local-1.json").write_text(record)
        second = bench.new_provider()
        await second.start()
        assert [i.state for i in await second.list_instances()] == [InstanceState.EXITED]
        await second.terminate("local-1", grace_seconds=0)
        await second.close()
