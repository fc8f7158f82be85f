"""deploy/nats.conf is accepted by the nats-server we ship, and lets each user do what it should."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import LogMismatch
from dtf.settings.model import NatsSettings

CONF = Path(__file__).parents[2] / "deploy" / "nats.conf"
ENVIRONMENT = {
    "DTF_NATS_NAME": "dtf-nats-1",
    "DTF_NATS_STORE": "store",
    "DTF_NATS_CERT": "server.pem",
    "DTF_NATS_KEY": "server.key",
    "DTF_NATS_CA": "server.pem",
    "DTF_NATS_PASSWORD_HASH": "writer-password",
    "DTF_NATS_TAP_PASSWORD_HASH": "tap-password",
    "DTF_NATS_ADMIN_PASSWORD_HASH": "admin-password",
    "DTF_NATS_ROUTE_1": "nats-route://nats-2:6222",
    "DTF_NATS_ROUTE_2": "nats-route://nats-3:6222",
}


async def check(directory: Path, environment: dict[str, str], conf: Path = CONF) -> tuple[int, str]:
    """Exit code and words of `nats-server -t`."""
    binary = await find_nats_server()
    process = await asyncio.create_subprocess_exec(
        binary.path,
        *("-t", "-c", conf),
        cwd=directory,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(90):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory with a key and a certificate that signs itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
    request = (
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 -keyout server.key -out server.pem"
    )
    subprocess.run([openssl, *request.split()], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    return tmp_path


async def test_nats_server_accepts_the_production_configuration(certificates: Path) -> None:
    assert await check(certificates, ENVIRONMENT) == (0, AnyText("is valid"))


async def test_the_block_for_websockets_is_accepted_once_it_is_let_in(
    certificates: Path, tmp_path: Path
) -> None:
    begun, _, rest = CONF.read_text().partition("# websocket {")
    block, _, after = f"# websocket {{{rest}".partition("# }\n")
    let_in = tmp_path / "let-in.conf"
    let_in.write_text(begun + re.sub(r"(?m)^# ?", "", f"{block}# }}\n") + after)
    assert "\nwebsocket {" in let_in.read_text()
    assert await check(certificates, ENVIRONMENT, let_in) == (0, AnyText("is valid"))


@pytest.mark.parametrize("missing", ["DTF_NATS_STORE", "DTF_NATS_PASSWORD_HASH", "DTF_NATS_CERT"])
async def test_it_does_not_start_while_something_is_not_filled_in(certificates: Path, missing: str) -> None:
    environment = {name: value for name, value in ENVIRONMENT.items() if name != missing}
    code, said = await check(certificates, environment)
    assert (code, missing in said) == (1, True)


class AnyText(str):
    """Equal to every text that holds it."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other


@pytest_asyncio.fixture
async def production_url(tmp_path: Path) -> AsyncIterator[str]:
    """A server with the accounts and the JetStream of the production file, on loopback and without TLS."""
    text = re.sub(r"(?ms)^(tls|cluster) \{.*?^\}", "", CONF.read_text())
    text = re.sub(r"(?m)^(listen|http|pid_file): .*$", "", text)
    (tmp_path / "nats.conf").write_text(text)
    binary = await find_nats_server()
    process = await asyncio.create_subprocess_exec(
        binary.path,
        *("-c", "nats.conf", "-a", "127.0.0.1", "-p", "-1"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **ENVIRONMENT},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            yield await read_url(process)
    finally:
        process.kill()
        await process.communicate()


async def read_url(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    port = ""
    while line := (await process.stderr.readline()).decode():
        if match := re.search(r"client connections on 127\.0\.0\.1:(\d+)", line):
            port = match[1]
        if "Server is ready" in line:
            return f"nats://127.0.0.1:{port}"
    raise AssertionError("nats-server ended before it was ready")


def settings_of(tmp_path: Path, url: str, user: str) -> NatsSettings:
    file = tmp_path / user
    file.write_text(f"{user}:{'writer' if user == 'dtf' else user}-password")
    return NatsSettings(url=url, credentials_file=str(file))


async def test_the_log_works_for_dtf_and_can_be_read_but_not_written_by_a_tap(
    production_url: str, tmp_path: Path
) -> None:
    writer = await JetStreamLog.open(settings_of(tmp_path, production_url, "dtf"), "default", SystemClock())
    assert await append(writer) == 1
    tap = await JetStreamLog.attach(settings_of(tmp_path, production_url, "tap"), "default", SystemClock())
    found = [commit.payload async for batch in tap.read(0) for commit in batch]
    assert found == [b"payload"]
    await tap.close()

    faults: list[str] = []
    client = await connect_tap(production_url, faults)
    with pytest.raises(nats.errors.TimeoutError):
        await client.request("dtf.default.log", b"from a tap", timeout=0.5)
    await client.close()
    assert "permissions violation for publish" in " ".join(faults).lower()
    assert (await writer.head()).last_sequence == 1
    await writer.close()


async def test_a_wrong_password_is_named_at_once(production_url: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, production_url, "tap")
    (tmp_path / "tap").write_text("tap:guess")
    with pytest.raises(LogMismatch, match="refuses these credentials"):
        await JetStreamLog.attach(settings, "default", SystemClock())


async def append(log: JetStreamLog) -> int:
    return await log.append(
        b"payload", message_id="a" * 64, previous_message_id="", expected_last_sequence=0, headers={}
    )


async def connect_tap(url: str, faults: list[str]) -> Client:
    async def note(error: Exception) -> None:
        faults.append(str(error))

    return await nats.connect(url, user="tap", password="tap-password", error_cb=note)
