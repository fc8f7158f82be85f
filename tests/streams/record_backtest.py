"""Records the run that the backtest's simulator is held against: `python -m tests.streams.record_backtest`.

A real broker, coordinator, resource manager and workers; waves of sleeping commands on a pool of 0 to 4
workers with every other setting as it ships, until the pool is empty again. Record anew when the
shipped policy changed on purpose, and say so in the commit.
"""

import asyncio
import signal
import tempfile
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.system_clock import SystemClock
from dtf.settings.model import NatsSettings
from tests.integration.pool_rig import PoolRig, pool_rig
from tests.streams.record import write_stream

DIRECTORY = Path(__file__).parent / "backtest"
LOG_FILE = DIRECTORY / "events.dtfstream"
SCALING_FILE = DIRECTORY / "scaling.dtfstream"
SETTINGS = """
[pool]
min_workers = 0
max_workers = 4
"""
WAVES: list[tuple[float, list[float]]] = [
    (6.0, [0.5, 1.0, 1.5, 2.0] * 3),
    (3.0, [0.8] * 6),
    (8.0, [3.0, 0.4, 0.4, 2.0, 0.6]),
    (0.0, [0.7, 1.1] * 10),
]
"""Seconds until the next wave, and what each command of this one sleeps."""


async def record() -> None:
    """Run the waves and write what was said."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        project = directory / "project"
        project.mkdir()
        server = NatsServer(directory / "store", directory / "secrets" / "nats")
        await server.start()
        try:
            await _record(server, project)
        finally:
            await server.stop()


async def _record(server: NatsServer, project: Path) -> None:
    async with pool_rig(server, project, SETTINGS) as rig:
        manager = await rig.start_manager()
        async with asyncio.TaskGroup() as runs:
            for pause, seconds in WAVES:
                runs.create_task(_run(rig, seconds))
                await SystemClock().sleep(pause)
        await rig.workers_until(0)
        manager.send_signal(signal.SIGTERM)
        await manager.wait()
        nats = NatsSettings(url=server.url, credentials_file=str(server.credentials_file))
        log = await JetStreamLog.attach(nats, "default", SystemClock())
        await write_stream(LOG_FILE, "events", log.read(0))
        await log.close()
        await write_stream(SCALING_FILE, "scaling", rig.records.read(0))


async def _run(rig: PoolRig, seconds: list[float]) -> None:
    run = await rig.client.start_run("waves", commands=[["sleep", str(s)] for s in seconds])
    await run.result()


if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    asyncio.run(record())
