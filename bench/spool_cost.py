"""What the spool costs a commit: the same commits through the real log with and without it, in turns.

python -m bench.spool_cost [ROUNDS]
"""

import asyncio
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.spool import FileSpool
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.coordinator.commits import PendingCommit, Step
from dtf.coordinator.reign import begin_reign
from dtf.coordinator.writer import Writer, WriterLimits
from dtf.core.run.commands import Command, CreateRun
from dtf.settings.model import NatsSettings

COMMANDS = 20_000
SINGLES = 100


class Quiet:
    """A listener that does nothing."""

    def follow_up(self) -> Command | None:
        """No grants."""
        return None

    def decided(self, step: Step) -> None:
        """Nothing to note."""

    def idle(self) -> None:
        """Nothing to do."""

    def durable(self, commit: PendingCommit) -> None:
        """Nothing to let out."""


async def measure(
    nats: NatsSettings, directory: Path, namespace: str, *, is_spooled: bool
) -> tuple[float, float, float]:
    """Commands a second when many wait, CPU microseconds a command, and seconds for one alone (median)."""
    log = await JetStreamLog.open(nats, namespace, SystemClock())
    spool = FileSpool(directory / namespace) if is_spooled else None
    reign = await begin_reign(
        log,
        SystemClock(),
        leader="bench",
        lease_seconds=10,
        nonce=secrets.token_bytes(8),
        code_version="x",
        spool=spool,
    )
    writer = Writer(
        log,
        SystemClock(),
        reign.state,
        reign.chain,
        nonce=secrets.token_bytes(8),
        code_version="x",
        limits=WriterLimits(),
        listener=Quiet(),
        spool=spool,
    )
    waits: list[float] = []
    async with asyncio.TaskGroup() as group:
        running = group.create_task(writer.run())
        begun, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(writer.begin(_create(number)) for number in range(COMMANDS)))
        elapsed, used = time.perf_counter() - begun, time.process_time() - used
        for number in range(COMMANDS, COMMANDS + SINGLES):
            begun = time.perf_counter()
            await writer.submit(_create(number))
            waits.append(time.perf_counter() - begun)
        running.cancel()
    await log.close()
    if spool is not None:
        await spool.close()
    return COMMANDS / elapsed, 1e6 * used / COMMANDS, statistics.median(waits)


def _create(number: int) -> Command:
    template = common_pb2.TaskTemplate(callable=common_pb2.CallableSpec(function="bench:nothing"))
    request = run_service_pb2.CreateRunRequest(request_id=f"q{number}", suite="s", templates=[template])
    return CreateRun(f"r{number}", request)


async def main(rounds: int) -> None:
    """Measure in turns and print the ratios of the medians."""
    with tempfile.TemporaryDirectory(prefix="dtf-bench-") as name:
        directory = Path(name)
        server = NatsServer(directory / "nats", directory / "secrets" / "nats")
        await server.start()
        nats = NatsSettings(url=server.url, credentials_file=str(server.credentials_file))
        found: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
        for turn in range(rounds):
            for is_spooled in (False, True) if turn % 2 else (True, False):
                namespace = f"n{turn}-{is_spooled}"
                found[is_spooled].append(await measure(nats, directory, namespace, is_spooled=is_spooled))
        await server.stop()
    without, with_spool = (
        [statistics.median(column) for column in zip(*found[key], strict=True)] for key in (False, True)
    )
    for label, index, unit in (
        ("commands a second", 0, ""),
        ("CPU a command", 1, " µs"),
        ("one alone", 2, " s"),
    ):
        print(
            f"{label:18} without {without[index]:10.4g}{unit}  with {with_spool[index]:10.4g}{unit}"
            f"  ratio {with_spool[index] / without[index]:.2f}"
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
