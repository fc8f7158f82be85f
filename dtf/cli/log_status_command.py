"""`dtf log status`: where the log ends, how large it is, and what would bring it back."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.log_archive import ArchiveError, open_archive
from dtf.adapters.spool import FileSpool
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_errors import log_error
from dtf.cli.log_paths import archive_dir, set_aside_dir, spool_dir
from dtf.cli.log_source import snapshot_stores
from dtf.cli.project_broker import project_broker
from dtf.coordinator.recovery import message_at
from dtf.core.snapshot import SnapshotUnusable, read_snapshot
from dtf.ports.event_log import LogError
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.ports.spool import SpoolError

_OK = "good"


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """One snapshot."""

    store: str
    sequence: int
    bytes: int
    taken_at: str
    """Time of its last commit."""
    said: str
    """"good", or what is wrong with it."""


@dataclass(slots=True)
class LogStatus:
    """What the command says."""

    namespace: str
    first_sequence: int
    last_sequence: int
    last_hash: str
    bytes: int
    max_bytes: int
    snapshots: list[SnapshotStatus] = field(default_factory=list)
    verified_to: int = 0
    """Sequence of the newest good snapshot: whoever took it read the chain up to there."""
    spool: str = ""
    spool_bytes: int = 0
    spool_acknowledged: int = 0
    spool_beyond: int = 0
    """Commits in it beyond the log's end."""
    spool_damage: list[str] = field(default_factory=list)
    archived_to: int = 0
    set_aside: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether nothing known here is missing from the log."""
        return self.spool_acknowledged <= self.last_sequence and all(
            snapshot.sequence <= self.last_sequence and snapshot.said != _NOT_IN_LOG
            for snapshot in self.snapshots
        )


_NOT_IN_LOG = "the log has another commit there"


@click.command()
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, namespace: str | None, as_json: bool) -> int:
    """Say where the event log ends, how large it is, and what would bring it back.

    Exit codes: 0 nothing is known to be missing, 6 no broker, 9 the log lacks what it had acknowledged.

    \b
    Example:
        dtf log status
    """
    name = namespace or invocation.load().settings.coordinator.namespace
    try:
        status = asyncio.run(_gather(invocation, name))
    except (LogError, SpoolError, ArchiveError) as error:
        raise log_error(error) from error
    if as_json:
        click.echo(json.dumps({**asdict(status), "is_whole": status.is_whole}))
    else:
        _print(status)
    if not status.is_whole:
        raise CommandError(
            f"the log ends at {status.last_sequence} and lacks what it had acknowledged",
            "`dtf log repair` explains, and puts it back if it can",
            exit_code=ExitCode.LOG_LOST,
        )
    return ExitCode.OK


async def _gather(invocation: Invocation, namespace: str) -> LogStatus:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(project_broker(invocation))
        event_log = await JetStreamLog.attach(nats, namespace, SystemClock())
        stack.push_async_callback(event_log.close)
        head = await event_log.head()
        status = LogStatus(
            namespace,
            head.first_sequence,
            head.last_sequence,
            head.last_message_id,
            await event_log.size_bytes(),
            nats.max_log_bytes,
        )
        for store in snapshot_stores(invocation, nats, namespace):
            stack.push_async_callback(store.close)
            await _add_snapshots(status, store, event_log)
        status.verified_to = max((s.sequence for s in status.snapshots if s.said == _OK), default=0)
        await _add_spool(status, spool_dir(invocation, namespace))
        archive = open_archive(archive_dir(invocation, namespace), namespace)
        status.archived_to = archive.last_sequence if archive.segments else 0
        aside = set_aside_dir(invocation, namespace)
        status.set_aside = [str(path) for path in sorted(aside.iterdir())] if aside.is_dir() else []
        return status


async def _add_snapshots(status: LogStatus, store: SnapshotStore, event_log: JetStreamLog) -> None:
    try:
        for name in await store.names():
            status.snapshots.append(await _look_at(store, name, event_log, status.last_sequence))
    except SnapshotStoreError as error:
        status.faults.append(str(error))


async def _look_at(
    store: SnapshotStore, name: SnapshotName, event_log: JetStreamLog, last_sequence: int
) -> SnapshotStatus:
    size, taken_at, said = 0, "", _OK
    try:
        data = await store.load(name)
        size = len(data)
        message = read_snapshot(data)
        taken_at = datetime.fromtimestamp(message.now_unix_nanos / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = await message_at(event_log, name.sequence)
        if name.sequence > last_sequence:
            said = f"the log ends before it, at {last_sequence}"
        elif found is not None and found.message_id not in {name.hash, ""}:
            said = _NOT_IN_LOG
    except (SnapshotUnusable, SnapshotStoreError) as error:
        said = str(error)
    return SnapshotStatus(store.description, name.sequence, size, taken_at, said)


async def _add_spool(status: LogStatus, directory: Path) -> None:
    contents = await FileSpool(directory).read(status.last_sequence)
    status.spool = str(directory)
    status.spool_bytes = await asyncio.to_thread(_size_of, directory)
    status.spool_acknowledged = max((mark.sequence for mark in contents.marks), default=0)
    status.spool_beyond = len(contents.commits)
    status.spool_damage = list(contents.damage)


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.spool"))


def _print(status: LogStatus) -> None:
    share = status.bytes / status.max_bytes
    click.echo(f"log        {status.namespace}: messages {status.first_sequence} to {status.last_sequence}")
    click.echo(f"hash       {status.last_hash or 'none'}")
    click.echo(f"size       {_mebibytes(status.bytes)} of {_mebibytes(status.max_bytes)} ({share:.0%})")
    click.echo(f"verified   {_verified(status)}")
    for snapshot in status.snapshots:
        click.echo(
            f"snapshot   {snapshot.sequence} of {snapshot.taken_at or 'unknown time'}, "
            f"{_mebibytes(snapshot.bytes)}, {snapshot.said}; {snapshot.store}"
        )
    beyond = f", {status.spool_beyond} commits beyond the log's end" if status.spool_beyond else ""
    click.echo(
        f"spool      {_mebibytes(status.spool_bytes)}, acknowledged up to {status.spool_acknowledged}{beyond}; {status.spool}"
    )
    click.echo(f"archive    {f'up to {status.archived_to}' if status.archived_to else 'none'}")
    for path in status.set_aside:
        click.echo(f"set aside  {path}")
    for fault in (*status.spool_damage, *status.faults):
        click.echo(f"fault      {fault}", err=True)


def _verified(status: LogStatus) -> str:
    if status.verified_to:
        return f"the chain is whole up to {status.verified_to} (its newest good snapshot)"
    why = "no snapshot of it is good" if status.snapshots else "there is no snapshot yet"
    return f"{why}; `dtf log snapshot` reads the chain and takes one, `dtf replay` only reads it"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
