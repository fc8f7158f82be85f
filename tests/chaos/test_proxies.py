"""Links between processes: cut, muted, delayed, and whole again, even when toxiproxy hangs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from dtf.adapters.system_clock import SystemClock
from tests.chaos.proxies import Proxies, find_toxiproxy

PATIENCE_SECONDS = 90.0

pytestmark = pytest.mark.skipif(
    find_toxiproxy() is None, reason="left out: needs toxiproxy (`make toxiproxy`)"
)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def _linked(directory: Path) -> AsyncIterator[tuple[Proxies, str]]:
    """A link to a server that says again what it hears."""
    binary = find_toxiproxy()
    assert binary is not None
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    proxies = Proxies(binary, SystemClock())
    await proxies.start(directory / "toxiproxy.log")
    try:
        port = server.sockets[0].getsockname()[1]
        yield proxies, await proxies.link("way", f"127.0.0.1:{port}")
    finally:
        await proxies.stop()
        server.close()


async def _says_again(address: str) -> bytes:
    """What comes back of one word over a new connection; b"" if it was closed."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"word")
            return await reader.read(4)
        finally:
            writer.close()


async def test_a_link_is_cut_and_restored(tmp_path: Path) -> None:
    async with _linked(tmp_path) as (proxies, address):
        assert await _says_again(address) == b"word"
        await proxies.cut(["way"])
        with pytest.raises(ConnectionError):
            await _says_again(address)
        await proxies.restore(["way"])
        assert await _says_again(address) == b"word"


async def test_what_is_said_over_a_muted_link_is_lost_and_the_connection_closed_at_its_end(
    tmp_path: Path,
) -> None:
    async with _linked(tmp_path) as (proxies, address), asyncio.TaskGroup() as group:
        await proxies.mute(["way"])
        waiting = group.create_task(_says_again(address))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        await proxies.lift(["way"], "mute")
        assert await waiting == b""
        assert await _says_again(address) == b"word"


async def test_a_link_is_late_by_what_was_asked_each_way(tmp_path: Path) -> None:
    clock = SystemClock()
    async with _linked(tmp_path) as (proxies, address):
        await proxies.delay(["way"], 200)
        began = clock.monotonic()
        assert await _says_again(address) == b"word"
        assert clock.monotonic() - began > 0.2  # 100 to 300 ms each way


async def test_a_toxiproxy_that_hangs_is_started_anew_with_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.proxies.CALL_SECONDS", 1.0)
    async with _linked(tmp_path) as (proxies, address):
        assert proxies.process_id
        (hung,) = psutil.Process(proxies.process_id).children()
        os.kill(hung.pid, signal.SIGSTOP)
        await proxies.delay(["way"], 10)
        assert await _says_again(address) == b"word"
        await proxies.lift(["way"], "delay")
        assert await _says_again(address) == b"word"
