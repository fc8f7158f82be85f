"""An account a namespace: the broker itself keeps them apart, as docs/scale.md and deploy/nats.conf say."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import pytest
import pytest_asyncio

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import LogError
from dtf.ports.subjects import event_subject
from dtf.settings.model import NatsSettings

READY_SECONDS = 60.0
DOC = Path(__file__).parents[2] / "docs" / "scale.md"


def accounts() -> str:
    """The block of accounts in docs/scale.md."""
    found = re.search(r"^    accounts \{\n(?:    .*\n)+", DOC.read_text(), re.MULTILINE)
    assert found is not None, "docs/scale.md shows no block of accounts"
    return found[0]


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[str]:
    """A nats-server with the accounts of the documentation; its host and port."""
    conf = tmp_path / "nats.conf"
    conf.write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{tmp_path}"\n'
        f'jetstream {{ store_dir: "{tmp_path}/store" }}\n{accounts()}'
    )
    process = await asyncio.create_subprocess_exec(
        (await find_nats_server()).path,
        *("-c", str(conf)),
        env={"DTF_A_PASSWORD": "secret-of-a", "DTF_B_PASSWORD": "secret-of-b"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        port = ""
        async with asyncio.timeout(READY_SECONDS):
            while line := (await process.stderr.readline()).decode():
                if found := re.search(r"Listening for client connections on 127.0.0.1:(\d+)", line):
                    port = found[1]
                if "Server is ready" in line:
                    break
        assert port, "nats-server did not say where it listens"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.communicate()


def settings(broker: str, tmp_path: Path, user: str) -> NatsSettings:
    """How the processes of one namespace reach the broker."""
    file = tmp_path / f"credentials-{user}"
    file.touch(mode=0o600)
    file.write_text(f"dtf-{user}:secret-of-{user}")
    return NatsSettings(url=f"nats://{broker}", credentials_file=str(file), max_log_bytes=2**24)


@pytest.mark.coordinator
async def test_neither_sees_nor_disturbs_the_others_log(broker: str, tmp_path: Path) -> None:
    clock = SystemClock()
    here = await JetStreamLog.open(settings(broker, tmp_path, "a"), "a", clock)
    try:
        await here.append(b"x", message_id="1", previous_message_id="", expected_last_sequence=0, headers={})
        with pytest.raises(LogError):
            await JetStreamLog.attach(settings(broker, tmp_path, "b"), "a", clock)
        stranger = await nats.connect(f"nats://dtf-b:secret-of-b@{broker}")
        with pytest.raises(nats.errors.NoRespondersError):
            await stranger.request(event_subject("a"), b"a stranger's", timeout=READY_SECONDS)
        await stranger.close()
        there = await JetStreamLog.open(settings(broker, tmp_path, "b"), "a", clock)
        try:
            assert (await there.head()).last_sequence == 0, "a log of its own, even under the same name"
        finally:
            await there.close()
        assert (await here.head()).last_sequence == 1
    finally:
        await here.close()
