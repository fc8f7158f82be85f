"""Records the streams that replay tests read: `python -m tests.streams.record`.

A real broker, coordinator, resource manager and workers run a suite of unequal commands on a pool
that grows from one worker to three and shrinks again; then the log and the scaling decisions are
written beside this file. Record anew when the schema or the policy changed on purpose, and say so
in the commit.
"""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.stream_file import StreamFileHeader, writing
from dtf.adapters.system_clock import SystemClock
from dtf.ports.event_log import StoredCommit
from dtf.settings.model import NatsSettings
from tests.integration.pool_rig import pool_rig

DIRECTORY = Path(__file__).parent
LOG_FILE = DIRECTORY / "unequal_commands.log.dtfstream"
SCALING_FILE = DIRECTORY / "unequal_commands.scaling.dtfstream"
SECONDS = [0.05, 0.1, 0.4, 0.05, 0.9, 0.2, 0.05, 0.1] * 5


async def record() -> None:
    """Run the suite twice, so that the second time durations are known by name, and write what was said."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        server = NatsServer(directory / "store", directory / "secrets" / "nats")
        await server.start()
        try:
            await _record(server, directory)
        finally:
            await server.stop()


async def _record(server: NatsServer, directory: Path) -> None:
    (directory / "project").mkdir()
    async with pool_rig(server, directory / "project") as rig:
        manager = await rig.start_manager()
        for _ in range(2):
            run = await rig.client.start_run("unequal", commands=[["sleep", str(s)] for s in SECONDS])
            await run.result()
            await rig.workers_until(1)
        manager.send_signal(signal.SIGTERM)
        await manager.wait()
        nats = NatsSettings(url=server.url, credentials_file=str(server.credentials_file))
        log = await JetStreamLog.attach(nats, "default", SystemClock())
        await write_stream(LOG_FILE, "events", log.read(0))
        await log.close()
        await write_stream(SCALING_FILE, "scaling", rig.records.read(0))


async def write_stream(path: Path, kind: str, batches: AsyncIterator[Sequence[StoredCommit]]) -> None:
    """Write a stream as `dtf events export` does."""
    header = StreamFileHeader(kind, "default", "recorded", SystemClock().now_ns())
    with writing(path, header) as writer:
        async for batch in batches:
            for message in batch:
                writer.write(message)


if __name__ == "__main__":
    asyncio.run(record())
