"""Records the scenarios: `python -m tests.streams.record_scenarios [NAME…]`, or `--golden` for golden.json alone.

Each runs on an embedded stack in /tmp/dtf-recording, under a host name, a user name and paths of
its own (Linux name spaces), so that nothing of the machine is in the recordings but its size.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.stream_file import StreamFileHeader, writing
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2
from dtf.ports.event_log import StoredCommit
from dtf.ports.subjects import RecordKind
from dtf.settings.model import NatsSettings
from tests.e2e.project import Project, finish
from tests.streams.scenario import Scenario, scenarios

WORKPLACE = Path("/tmp/dtf-recording")  # its name is in the recordings
PYTHON = Path("/tmp/dtf-python")
ENVIRONMENT = Path("/tmp/dtf-environment")
FOREIGN_WORDS = tuple(path.encode() for path in {str(Path.home()), str(Path.cwd()), "/home/"})
SETTINGS = """\
[coordinator]
heartbeat_seconds = 0.25
lease_seconds = 2.0

[worker]
telemetry_seconds = 0.5

[pool]
min_workers = {least}
max_workers = {most}
backlog_aim_seconds = 0.5
scale_in_idle_seconds = 0.5
scale_in_cooldown_seconds = 0.2
"""
SUITE = """\
import os
import signal
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(12))
def test_passes(number):
    assert number < 12


def test_fails():
    assert [1, 2] == [1, 3]


@pytest.mark.skip(reason="not today")
def test_is_skipped():
    pass


def test_is_flaky():
    once = Path("once")
    if not once.exists():
        once.touch()
        raise AssertionError("the first time it fails")


def test_crashes():
    os.kill(os.getpid(), signal.SIGKILL)


def test_passes_after_the_crash():
    pass
"""
CALLABLES = "def square(number):\n    if number == 13:\n        raise ValueError('unlucky')\n    return number * number\n"


def is_result(event: events_pb2.Event) -> bool:
    """Whether a result was accepted."""
    return event.HasField("results_accepted")


async def pytest_suite(project: Project) -> None:
    """Passed, failed, skipped, flaky and crashed cases."""
    project.write("test_suite.py", SUITE)
    await asyncio.to_thread(project.dtf, "run", "--retries", "1", "test_suite.py", "-q", expect=(1,))


async def lost_worker(project: Project) -> None:
    """A pool that grows to three, loses one worker to kill -9 in the middle, and shrinks again."""
    project.write("commands.txt", "".join(f"sleep 0.{3 + n % 4}  # {n}\n" for n in range(30)))
    process = project.start("run", "--each", "commands.txt", "--json")
    await project.wait_for(lambda event: event.HasField("worker_registered"), count=3)
    result = await project.wait_for(is_result, count=8)
    named = result.results_accepted.worker_id
    registered = await project.wait_for(lambda event: event.worker_registered.worker_id == named)
    psutil.Process(registered.worker_registered.process_id).kill()
    await asyncio.to_thread(finish, process)
    await project.wait_for(lambda event: event.HasField("worker_left"), count=2)


async def restarts(project: Project) -> None:
    """The coordinator and then the resource manager are killed while leases are held; each is started anew."""
    project.write("commands.txt", "".join(f"sleep 0.{3 + n % 4}  # {n}\n" for n in range(30)))
    process = project.start("run", "--each", "commands.txt", "--json")
    await project.wait_for(is_result, count=6)
    project.part("coordinator").kill()
    await project.wait_for(lambda event: event.leader_elected.epoch == 2)
    await project.wait_for(is_result, count=14)
    project.part("resource-manager").kill()
    await asyncio.to_thread(finish, process)
    await project.wait_for(lambda event: event.HasField("worker_left"), count=2)


async def cancelled(project: Project) -> None:
    """A run that Ctrl-C stops while commands run and wait."""
    project.write("commands.txt", "true\n" * 4 + "sleep 100\n" * 8)
    process = project.start("run", "--each", "commands.txt", "--json")
    await project.wait_for(is_result, count=2)
    process.send_signal(signal.SIGINT)
    await asyncio.to_thread(finish, process, (2,))


async def callables(project: Project) -> None:
    """Four hundred calls, one of which fails."""
    project.write("calls.py", CALLABLES)
    project.write("numbers.jsonl", "".join(f"[{number}]\n" for number in range(400)))
    arguments = ["run", "--callable", "calls:square", "--each", "numbers.jsonl", "--json"]
    await asyncio.to_thread(project.dtf, *arguments, expect=(1,))


SCENARIOS: dict[str, tuple[int, int, Callable[[Project], Awaitable[None]]]] = {
    "pytest_suite": (2, 2, pytest_suite),
    "lost_worker": (1, 3, lost_worker),
    "killed_worker": (1, 3, lost_worker),
    "restarts": (1, 3, restarts),
    "cancelled": (2, 2, cancelled),
    "callables": (2, 2, callables),
}
"""Smallest and largest pool, and what is run."""


async def record(name: str) -> None:
    """Run one scenario and write its streams."""
    least, most, run = SCENARIOS[name]
    scenario = Scenario(name)
    project = _begin(scenario, SETTINGS.format(least=least, most=most))
    try:
        project.dtf("up")
        await run(project)
        await _save(scenario, project)
    except BaseException:
        sys.stderr.write(project.logs())
        raise
    finally:
        project.close()
        shutil.rmtree(WORKPLACE)
    scenario.write_golden()


def _begin(scenario: Scenario, settings: str) -> Project:
    scenario.directory.mkdir(exist_ok=True)
    (scenario.directory / "dtf.toml").write_text(settings)
    shutil.rmtree(WORKPLACE, ignore_errors=True)
    WORKPLACE.mkdir(mode=0o700)
    return Project(WORKPLACE, settings)


async def _save(scenario: Scenario, project: Project) -> None:
    stack, clock = project.stack, SystemClock()
    nats = NatsSettings(url=stack.nats, credentials_file=stack.nats_credentials_file)
    log = await JetStreamLog.attach(nats, stack.namespace, clock)
    # The log last: every decision's own sequence is then in it.
    for kind in (RecordKind.SCALING, RecordKind.TELEMETRY):
        records = await JetStreamRecords.open(nats, kind, stack.namespace, clock)
        await _write(scenario.file(kind.value), kind.value, records.read(0))
        await records.close()
    await _write(scenario.file("events"), "events", log.read(0))
    await log.close()


async def _write(path: Path, kind: str, batches: AsyncIterator[Sequence[StoredCommit]]) -> None:
    header = StreamFileHeader(kind, "default", version("dtf"), SystemClock().now_ns())
    with writing(path, header) as writer:
        async for batch in batches:
            for message in batch:
                found = [word for word in FOREIGN_WORDS if word in message.payload]
                assert not found, f"{path.name} {message.sequence} holds {found}: {message.payload!r}"
                writer.write(message)


def _in_a_place_of_its_own(names: Sequence[str]) -> int:
    """This again, under another host and user name, its Python and packages mounted where anyone could have them."""
    packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    start = f"""
        set -eu
        hostname recorder
        mkdir -p {PYTHON}
        mount --bind {sys.base_prefix} {PYTHON}
        {PYTHON}/bin/python3 -m venv --without-pip --clear {ENVIRONMENT}
        mount --bind {Path(sys.prefix) / packages} {ENVIRONMENT / packages}
        exec {ENVIRONMENT}/bin/python -m tests.streams.record_scenarios "$@"
    """
    command = ["unshare", "--map-root-user", "--uts", "--mount", "sh", "-c", start, "sh", *names]
    broker = str(Path(sys.prefix, "bin", "nats-server"))
    environment = {**os.environ, "USER": "tester", "LOGNAME": "tester", "DTF_NATS_SERVER": broker}
    try:
        return subprocess.call(command, env=environment)
    finally:
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        PYTHON.rmdir()


def main(names: Sequence[str]) -> int:
    """Record the scenarios of these names, or all."""
    if list(names) == ["--golden"]:
        for scenario in scenarios():
            scenario.write_golden()
        return 0
    if os.uname().nodename != "recorder":
        return _in_a_place_of_its_own(names)
    for name in names or SCENARIOS:
        asyncio.run(record(name))
        golden = Scenario(name).golden["coordinator"]
        sys.stdout.write(f"{name}: {json.dumps(golden['runs'])} {golden['last_sequence']} commits\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
