"""make bench NAME=recovery: how long a coordinator takes to start, and what a snapshot costs who asks meanwhile.

Two logs of EVENTS events (recovery_log.py says what is in them), each started from twice by the real
process: from its newest snapshot and the log after it, then with no snapshot at all. Time counts from
the start of the process to the line that says that it leads; the machine's page cache is warm.
Both ways end in the same state: `--fold` folds each way in a process of its own and prints the hash.

    python -m bench.recovery_bench [--events 1000000] [--tasks 1000000] [--shapes mixed,singles] [--json]

What it does meanwhile is said on standard error; all of it takes under four minutes on a quiet machine.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.bench_stack import NAMESPACE
from bench.recovery_log import DecidedLog, LogBuilder
from bench.recovery_replies import measure_replies, tell
from bench.recovery_writer import BulkWriter
from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.nats_configuration import read_credentials
from dtf.adapters.nats_server import NatsServer
from dtf.adapters.object_store_snapshots import ObjectStoreSnapshots
from dtf.adapters.preparation_process import LocalPreparation
from dtf.adapters.system_clock import SystemClock
from dtf.coordinator.recovery import Fold, restore
from dtf.core.run.state_hash import state_hash
from dtf.ports.snapshot_store import SnapshotStore
from dtf.ports.subjects import event_subject
from dtf.settings.loader import dump_settings, load_settings_file
from dtf.settings.model import NatsSettings, Settings

TAIL_RATIO = 0.1
"""Of the events, after the snapshot: half of what brings on the next one (coordinator.snapshot_events)."""
ROUNDS = 3
BARE_ROUNDS = 2
BUILDING_SYNC_INTERVAL = "1h"
"""While a log is written: it may be lost with the machine."""
START_SECONDS = 300.0
AIM_SNAPSHOT_SECONDS = 2.0
AIM_BARE_SECONDS = 10.0
AIM_DELAY_SECONDS = 0.05


@dataclass(slots=True)
class Started:
    """One log, started from both ways; times in seconds, medians of ROUNDS or BARE_ROUNDS."""

    shape: str
    events: int
    messages: int
    mebibytes: float
    tail_events: int
    snapshot_seconds: float = 0.0
    """To take the snapshot, from a log without one."""
    from_snapshot: float = 0.0
    from_log: float = 0.0
    fold_from_snapshot: float = 0.0
    fold_from_log: float = 0.0
    is_same_state: bool = False

    @property
    def ratio(self) -> float:
        """How many times longer the bare log takes."""
        return self.from_log / self.from_snapshot

    def report(self) -> None:
        """For people."""
        print(
            f"\n{self.shape}: {self.events:,} events in {self.messages:,} commits "
            f"({self.events / self.messages:.1f} a commit), {self.mebibytes:.0f} MiB"
        )
        print(
            f"  start from snapshot + {self.tail_events:,} events  {self.from_snapshot:6.2f} s"
            f"  (aim < {AIM_SNAPSHOT_SECONDS:g}; restoring {self.fold_from_snapshot:.2f})"
        )
        print(
            f"  start from the bare log                {self.from_log:6.2f} s"
            f"  (aim < {AIM_BARE_SECONDS:g}; restoring {self.fold_from_log:.2f}: "
            f"{self.messages / self.fold_from_log:,.0f} commits/s, {self.events / self.fold_from_log:,.0f} events/s)"
        )
        print(f"  bare log over snapshot                 {self.ratio:6.2f} times as long")
        print(f"  the same state hash both ways          {'yes' if self.is_same_state else 'NO'}")
        print(f"  taking the snapshot                    {self.snapshot_seconds:6.2f} s", flush=True)


class Site:
    """A broker, a state directory, and the processes that use them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = self._broker(is_synced=False)
        self.settings = Settings()

    def _broker(self, *, is_synced: bool) -> NatsServer:
        interval = "always" if is_synced else BUILDING_SYNC_INTERVAL
        return NatsServer(
            self.directory / "nats", self.directory / "secrets" / "nats", sync_interval=interval
        )

    async def reopen(self, *, is_synced: bool) -> None:
        """Start the broker, or start it again with its store as it is in production."""
        await self.server.stop()
        self.server = self._broker(is_synced=is_synced)
        await self.server.start()
        token = self.directory / "token"
        token.write_text("bench")
        token.chmod(0o600)
        nats = NatsSettings(
            url=self.server.url,
            credentials_file=str(self.server.credentials_file),
            append_timeout_seconds=120.0,
        )
        coordinator = replace(
            Settings().coordinator,
            namespace=NAMESPACE,
            token_file=str(token),
            state_dir=str(self.directory / "state"),
            snapshot_events=1 << 40,
            snapshot_bytes=1 << 50,
        )
        self.settings = replace(Settings(), nats=nats, coordinator=coordinator)
        (self.directory / "settings.json").write_text(dump_settings(self.settings))

    async def run(self, *arguments: str) -> str:
        """A dtf command, to its end; what it printed."""
        process = await self.start(*arguments)
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"dtf {' '.join(arguments)} ended with {process.returncode}")
        return output.decode()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """A dtf command."""
        with (self.directory / "errors.log").open("wb") as errors:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "dtf.cli.main", "--project", str(self.directory)),
                *("--settings", str(self.directory / "settings.json"), *arguments),
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )

    async def seconds_to_lead(self) -> float:
        """Start a coordinator, wait until it leads, stop it."""
        begun = time.perf_counter()
        process = await self.start("coordinator")
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        elapsed = time.perf_counter() - begun
        process.terminate()
        await process.wait()
        if b"ready" not in line:
            said = await asyncio.to_thread((self.directory / "errors.log").read_text)
            raise RuntimeError(f"the coordinator did not start: {said[-2000:]}")
        return elapsed

    def stores(self) -> Sequence[SnapshotStore]:
        """Where its snapshots are."""
        directory = self.directory / "state" / "snapshots" / NAMESPACE
        return FileSnapshots(directory), ObjectStoreSnapshots(self.settings.nats, NAMESPACE, SystemClock())

    async def forget_snapshots(self) -> None:
        """None on the disk, none in the broker."""
        for store in self.stores():
            for name in await store.names():
                await store.remove(name)
            await store.close()


async def measure_start(shape: str, events: int) -> Started:
    """Build a log of a shape and start from it, both ways."""
    directory = Path(tempfile.mkdtemp(prefix="dtf-bench-"))
    site = Site(directory)
    try:
        await site.reopen(is_synced=False)
        tell(f"{shape}: building a log of {events:,} events")
        builder, taken, before = await _build(site, shape, events)
        await site.reopen(is_synced=True)
        result = Started(
            shape,
            builder.event_count,
            builder.sequence,
            builder.byte_count / 2**20,
            builder.event_count - before,
            taken,
        )
        await _start_both_ways(site, result)
        return result
    finally:
        await site.server.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def _build(site: Site, shape: str, events: int) -> tuple[LogBuilder, float, int]:
    """Write the log, with a snapshot before its last tenth; seconds of the snapshot, events before it."""
    begun = time.perf_counter()

    def tell_count(count: int) -> None:
        if count * 10 // events > (count - events // 100) * 10 // events:
            tell(f"  {count:,} events after {time.perf_counter() - begun:.0f} s")

    log = await JetStreamLog.open(site.settings.nats, NAMESPACE, SystemClock())
    user, password = read_credentials(site.server.credentials_file)
    writer = await BulkWriter.connect(site.server.url, user, password, event_subject(NAMESPACE))
    decided = DecidedLog(is_mixed=shape == "mixed")
    decided.decide()
    builder = LogBuilder(decided, writer, tell_count)
    await builder.build(round(events * (1 - TAIL_RATIO)))
    await _is_stored(log, builder)
    before = builder.event_count
    tell("  taking a snapshot of it, from the bare log")
    snapshot_begun = time.perf_counter()
    await site.run("log", "snapshot")
    taken = time.perf_counter() - snapshot_begun
    await builder.build(events)
    await _is_stored(log, builder)
    await writer.close()
    await log.close()
    return builder, taken, before


async def _is_stored(log: JetStreamLog, builder: LogBuilder) -> None:
    """Wait until the log ends with the last commit that was written."""
    async with asyncio.timeout(START_SECONDS):
        while (await log.head()).last_message_id != builder.last_message_id:
            pass


async def _start_both_ways(site: Site, result: Started) -> None:
    tell("  starting from the snapshot and what came after it")
    with_snapshot = await _folded(site)
    result.from_snapshot = statistics.median([await site.seconds_to_lead() for _ in range(ROUNDS)])
    end = await _folded(site)
    await site.forget_snapshots()
    tell("  starting from the bare log")
    without = await _folded(site)
    result.from_log = statistics.median([await site.seconds_to_lead() for _ in range(BARE_ROUNDS)])
    result.fold_from_snapshot, result.fold_from_log = with_snapshot[0], without[0]
    result.is_same_state = end[1:] == without[1:]


async def _folded(site: Site) -> tuple[float, int, str]:
    """Seconds, last sequence and state hash of a fold in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.recovery_bench", "--fold", str(site.directory)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    seconds, sequence, digest = json.loads(output)
    return seconds, sequence, digest


async def fold(directory: Path) -> None:
    """Print how long a fold takes, where it ends and the state's hash."""
    site = Site(directory)
    site.settings = load_settings_file(directory / "settings.json").settings
    log = await JetStreamLog.attach(site.settings.nats, NAMESPACE, SystemClock())
    folded = Fold()
    begun = time.perf_counter()
    await restore(log, site.stores(), None, folded, LocalPreparation())
    elapsed = time.perf_counter() - begun
    print(json.dumps([elapsed, folded.chain.sequence, state_hash(folded.state)]))
    await log.close()


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--shapes", default="mixed,singles")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fold", type=Path)
    options = parser.parse_args()
    if options.fold:
        await fold(options.fold)
        return
    started: list[Started] = []
    for shape in options.shapes.split(","):
        if shape:
            started.append(await measure_start(shape, options.events))
            started[-1].report()
    replies = await measure_replies(options.tasks) if options.tasks else None
    if replies is not None:
        replies.report(AIM_DELAY_SECONDS)
    if options.json:
        print(
            json.dumps(
                {"starts": [asdict(r) for r in started], "replies": asdict(replies) if replies else None}
            )
        )


if __name__ == "__main__":
    asyncio.run(main())
