"""Fixtures of all tests: a clock that stands still, and a broker of our own with a namespace a test."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.settings.model import NatsSettings
from tests.ec2_server import Ec2Server, ec2_server
from tests.fakes import FakeClock
from tests.influxd import influxd, own_influxd
from tests.kubernetes_cluster import kubernetes
from tests.ports import kept_address
from tests.scheduling import pytest_xdist_auto_num_workers, pytest_xdist_make_scheduler
from tests.slurm_cluster import slurm
from tests.ssh_daemon import ssh_daemon

__all__ = [
    "influxd",
    "kubernetes",
    "own_influxd",
    "pytest_xdist_auto_num_workers",
    "pytest_xdist_make_scheduler",
    "slurm",
    "ssh_daemon",
]

_namespaces = count(1)

# The same examples every time, however slow the machine is just now.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# What tests start is no part of the pytest that runs them: neither a worker of its xdist …
for _name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
    os.environ.pop(_name, None)
# … nor deaf to Ctrl-C because a shell started that one in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock() -> FakeClock:
    """Virtual time; `await clock.advance(seconds)` moves it."""
    return FakeClock()


@pytest.fixture
def system_clock() -> SystemClock:
    """The machine's time, for what talks to real processes."""
    return SystemClock()


@pytest.fixture(scope="session")
def ec2_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ec2Server]:
    """One EC2 for the session."""
    for module in ("boto3", "moto", "flask_cors"):
        pytest.importorskip(module, reason="EC2 is tested with what requirements-clouds.lock installs")
    with ec2_server(tmp_path_factory.mktemp("ec2")) as server:
        yield server


@pytest.fixture
def ec2(ec2_process: Ec2Server, monkeypatch: pytest.MonkeyPatch) -> Ec2Server:
    """An EC2 without any orders of a test; it takes the credentials of the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    ec2_process.reset()
    return ec2_process


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsServer]:
    """One nats-server for the session, ready; tests that harm theirs start one of their own."""
    directory = tmp_path_factory.mktemp("nats")
    server = NatsServer(directory / "store", directory / "secrets" / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def nats_settings(nats_server: NatsServer) -> NatsSettings:
    """How to reach the session's broker."""
    return NatsSettings(
        url=nats_server.url,
        credentials_file=str(nats_server.credentials_file),
        max_log_bytes=64 * 2**20,
        append_timeout_seconds=60.0,  # its disk is others' too
    )


@pytest.fixture
def namespace() -> str:
    """A namespace that no other test of any process uses on this broker."""
    return f"test-{os.getpid()}-{next(_namespaces)}"


@pytest_asyncio.fixture
async def event_log(
    nats_settings: NatsSettings, namespace: str, system_clock: SystemClock
) -> AsyncIterator[JetStreamLog]:
    """An empty event log on the session's broker."""
    log = await JetStreamLog.open(nats_settings, namespace, system_clock)
    yield log
    await log.close()


@pytest_asyncio.fixture
async def own_nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A broker of the test's own, to be killed and restarted at will: its port stays its own meanwhile."""
    with kept_address() as address:
        port = int(address.rpartition(":")[2])
        server = NatsServer(tmp_path / "store", tmp_path / "secrets" / "nats", port=port)
        await server.start()
        yield server
        await server.stop()
