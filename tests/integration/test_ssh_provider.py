"""Hosts reached by ssh, on real sshds: where launches go, what outlives a connection, what is told of it."""

import asyncio
import logging
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from dtf.adapters.nats_server import NatsServer
from dtf.adapters.ssh_provider import SshProvider
from dtf.ports.capacity import Instance, InstanceState, LaunchRequest, ProviderError, QuotaExceeded
from dtf.settings.providers import SshSettings
from tests.integration.pool_rig import pool_rig
from tests.integration.scripted_pool import WAIT_SECONDS
from tests.ports import free_ports
from tests.ssh_bench import SshBench, process_of
from tests.ssh_daemon import SshDaemon, client_configuration, skip_without_ssh, started_daemon

pytestmark = pytest.mark.resource_manager

SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"
PARENT = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('child', subprocess.Popen(['sleep', '600']).pid, 'up', flush=True)
signal.pause()
"""
MakeBench = Callable[..., Any]


@pytest.fixture(scope="module")
def other_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshDaemon]:
    """Another host, which tests may cut off and start again."""
    skip_without_ssh()
    daemon = started_daemon(tmp_path_factory)
    yield daemon
    daemon.stop()


@pytest.fixture
async def make(ssh_daemon: SshDaemon, tmp_path: Path) -> AsyncIterator[MakeBench]:
    """Makes the bench of the test: `await make(program, daemons, **settings)`."""
    async with AsyncExitStack() as stack:

        async def make_one(
            program: str = SLEEPER, daemons: list[SshDaemon] | None = None, **settings: Any
        ) -> SshBench:
            bench = SshBench(daemons or [ssh_daemon], tmp_path, program, SshSettings(**settings))
            stack.push_async_callback(bench.stop)
            await bench.start()
            return bench

        yield make_one


def launch_of(launch_id: str, slots: int = 1) -> LaunchRequest:
    """A launch as the resource manager asks for it."""
    return LaunchRequest(launch_id, "local", slots=slots)


async def exit_of(provider: SshProvider) -> Instance:
    """The next exit."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await anext(aiter(provider.exits()))


def host_of(instance: Instance) -> str:
    """Where it is."""
    return instance.handle.split(" on ")[1]


async def test_launches_go_where_most_slots_are_free_until_none_is(
    make: MakeBench, ssh_daemon: SshDaemon, other_daemon: SshDaemon
) -> None:
    hosts = {ssh_daemon.name: "slots=4", other_daemon.name: "slots=3"}
    bench = await make(daemons=[ssh_daemon, other_daemon], hosts=hosts)
    went = [host_of(await bench.provider.launch(launch_of(f"local-{n}", 2))) for n in (1, 2, 3)]
    assert sorted(went) == sorted([ssh_daemon.name, other_daemon.name, ssh_daemon.name])
    with pytest.raises(QuotaExceeded, match=f"no host has 2 slots free .*{other_daemon.name} 1 of 3"):
        await bench.provider.launch(launch_of("local-4", 2))
    assert len(await bench.provider.list_instances()) == 3
    assert host_of(await bench.provider.launch(launch_of("local-5", 1))) == other_daemon.name


async def test_a_host_that_is_down_is_named_once_and_others_are_used(
    make: MakeBench, ssh_daemon: SshDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    absent = f"ci@127.0.0.1:{free_ports(1)[0]}"
    with caplog.at_level(logging.WARNING, "dtf.ssh"):
        bench = await make(hosts={absent: "slots=64", ssh_daemon.name: "slots=1"})
        running = await bench.provider.launch(launch_of("local-1"))
        await bench.provider.list_instances()
    assert host_of(running) == ssh_daemon.name
    said = [record.getMessage() for record in caplog.records if "is down" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith(f"{absent} is down: ")
    assert "Connection refused" in said[0]
    with pytest.raises(QuotaExceeded, match=f"down: {absent}"):
        await bench.provider.launch(launch_of("local-2"))


async def test_workers_outlive_the_connection_and_the_provider_and_are_known_while_their_host_is_away(
    make: MakeBench, ssh_daemon: SshDaemon, other_daemon: SshDaemon
) -> None:
    bench = await make(daemons=[other_daemon, ssh_daemon])
    first = await bench.provider.launch(launch_of("local-1"))
    second = await bench.provider.launch(launch_of("local-2"))
    lost, kept = (first, second) if host_of(first) == other_daemon.name else (second, first)
    await asyncio.to_thread(other_daemon.cut)
    try:
        assert await bench.provider.list_instances() == [first, second]
        later = bench.new_provider()
        await later.start()
        listed = {instance.launch_id: instance for instance in await later.list_instances()}
        assert listed[kept.launch_id] == kept
        assert listed[lost.launch_id].state is InstanceState.RUNNING, "it may run, and does"
        with pytest.raises(ProviderError):
            await later.terminate(lost.launch_id, grace_seconds=1)
    finally:
        await asyncio.to_thread(other_daemon.start)
    assert await later.list_instances() == [first, second]
    assert await later.launch(launch_of(lost.launch_id)) == lost
    bench.kill_process(process_of(lost))
    exited = await exit_of(later)
    assert (exited.launch_id, exited.reason) == (lost.launch_id, "was killed by signal 9")
    await later.close()


async def test_a_launch_without_an_answer_is_made_once_on_its_own_host(
    make: MakeBench, ssh_daemon: SshDaemon, tmp_path: Path
) -> None:
    bench = await make()
    running = await bench.provider.launch(launch_of("local-1"))
    for record in (tmp_path / "records" / bench.owner.namespace).iterdir():
        record.unlink()
    later = bench.new_provider()
    await later.start()
    assert await later.launch(launch_of("local-1")) == running
    assert [i.launch_id for i in await later.list_instances()] == ["local-1"]
    assert [path.name for path in bench.launches_of(ssh_daemon).iterdir()] == ["local-1"]
    await later.close()


async def test_a_host_whose_key_is_not_known_is_not_trusted(
    ssh_daemon: SshDaemon, other_daemon: SshDaemon, tmp_path: Path
) -> None:
    bench = SshBench([ssh_daemon], tmp_path, SLEEPER, SshSettings(hosts={other_daemon.name: "slots=1"}))
    await bench.start()
    with pytest.raises(ProviderError, match="Host key verification failed"):
        await bench.provider.launch(launch_of("local-1"))
    with pytest.raises(ProviderError, match="no host answers"):
        await bench.provider.list_instances()
    await bench.stop()


async def test_the_join_token_reaches_its_worker_and_is_on_no_command_line(
    make: MakeBench, ssh_daemon: SshDaemon
) -> None:
    bench = await make()

    def environment(request: LaunchRequest) -> Mapping[str, str]:
        return {"DTF_JOIN_TOKEN": 'dtfjoin1_it\'s a "secret"'}

    provider = bench.new_provider(environment=environment)
    await provider.start()
    worker = psutil.Process(process_of(await provider.launch(launch_of("local-1"))))
    assert worker.environ()["DTF_JOIN_TOKEN"] == 'dtfjoin1_it\'s a "secret"'
    watch = worker.parent()
    assert watch is not None
    assert "dtf-watch" in watch.cmdline()
    for each in worker.parents():
        assert each.pid in (1, os.getpid()) or "DTF_JOIN_TOKEN" not in each.environ(), each.cmdline()
    lines = [line for each in (worker, *worker.parents()) for line in each.cmdline()]
    assert any("dtf-watch" in line for line in lines)
    assert not any("secret" in line for line in lines)
    for path in (bench.launches_of(ssh_daemon) / "local-1").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "secret" not in path.read_text()
    await provider.close()


async def test_what_a_worker_started_is_killed_with_it_when_its_grace_is_over(
    make: MakeBench, ssh_daemon: SshDaemon
) -> None:
    bench = await make(PARENT)
    await bench.provider.launch(launch_of("local-1"))
    await bench.until_up("local-1")
    child = psutil.Process(int((bench.launches_of(ssh_daemon) / "local-1" / "log").read_text().split()[1]))
    await bench.provider.terminate("local-1", grace_seconds=0.1)
    assert (await exit_of(bench.provider)).reason == "was killed by signal 9"
    _, alive = psutil.wait_procs([child], timeout=WAIT_SECONDS)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


async def test_a_worker_whose_watching_shell_died_too_is_told_as_ended(make: MakeBench) -> None:
    bench = await make()
    worker = psutil.Process(process_of(await bench.provider.launch(launch_of("local-1"))))
    shell = worker.parent()
    assert shell is not None
    shell.kill()
    worker.kill()
    exited = await exit_of(bench.provider)
    assert exited.reason.startswith("ended, and with it what watched over it")
    assert not exited.is_clean


async def test_setup_runs_before_the_worker_and_a_missing_directory_is_named(make: MakeBench) -> None:
    program = "import os, sys; sys.exit(int(os.environ['CODE']))"
    bench = await make(program, setup="CODE=7\nexport CODE")
    await bench.provider.launch(launch_of("local-1"))
    assert (await exit_of(bench.provider)).reason == "exited with code 7"
    await bench.stop()
    bench = await make(program, working_dir="absent")
    await bench.provider.launch(launch_of("local-1"))
    assert (
        await exit_of(bench.provider)
    ).reason == "exited with code 1 (error: there is no directory absent)"


async def test_what_a_worker_wrote_makes_no_launch_of_it(make: MakeBench, tmp_path: Path) -> None:
    forged = [f"launch {there} 1 1 1 exited 0 x" for there in ("local-7", "../../victim")]
    program = (
        f"print({'up' + chr(92) + 'n' + chr(92).join(f'n{line}' for line in forged)!r}); raise SystemExit(3)"
    )
    bench = await make(program)
    victim = tmp_path / "victim.json"
    victim.write_text("kept")
    await bench.provider.launch(launch_of("local-1"))
    exited = await exit_of(bench.provider)
    assert (exited.launch_id, exited.is_clean) == ("local-1", False)
    assert [each.launch_id for each in await bench.provider.list_instances()] == ["local-1"]
    assert victim.read_text() == "kept"


async def test_launches_of_others_are_neither_listed_nor_touched(make: MakeBench) -> None:
    bench = await make()
    await bench.provider.launch(launch_of("local-1"))
    other = await make()
    assert await other.provider.list_instances() == []


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ({}, "no hosts are named"),
        ({"build1": "4"}, 'write "slots=4"'),
        ({"-oProxyCommand=x": "slots=1"}, "is not a host"),
    ],
    ids=["none", "slots without their name", "what ssh would take for an option"],
)
async def test_hosts_that_cannot_be_are_refused_with_what_to_write(
    hosts: dict[str, str], said: str, tmp_path: Path
) -> None:
    configuration = client_configuration([], tmp_path / "ssh_config")
    bench = SshBench([], tmp_path, SLEEPER, SshSettings(hosts=hosts, configuration=str(configuration)))
    with pytest.raises(ProviderError, match=said):
        await bench.start()
    await bench.ssh_provider.close()


async def test_tasks_run_on_hosts_through_the_resource_manager(
    ssh_daemon: SshDaemon, own_nats_server: NatsServer, tmp_path: Path
) -> None:
    configuration = client_configuration([ssh_daemon], tmp_path / "ssh_config")
    settings = f"""
[pool]
provider = "ssh"
min_workers = 2
max_workers = 2

[ssh]
program = "{sys.executable} -P -m dtf.cli.main"
configuration = "{configuration}"
poll_seconds = 0.5

[ssh.hosts]
"{ssh_daemon.name}" = "slots=2"
"""
    project = tmp_path / "project"
    project.mkdir()
    async with pool_rig(own_nats_server, project, settings) as pool:
        manager = await pool.start_manager()
        workers = await pool.workers_until(2)
        at_home = f'test "$HOME" = "{ssh_daemon.home}"'
        run = await pool.client.start_run("homes", commands=[["sh", "-c", at_home]] * 4)
        assert (await run.result()).counts.passed == 4
        manager.send_signal(signal.SIGTERM)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await manager.wait() == 0
    assert not any(psutil.pid_exists(worker.process_id) for worker in workers)
