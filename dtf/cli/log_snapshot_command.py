"""`dtf log snapshot`: fold the log and keep the state, in a process of its own."""

import asyncio
import fcntl
import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.lifeline import watch_lifeline
from dtf.cli.log_errors import log_error
from dtf.cli.log_lines import log_to_stderr
from dtf.cli.log_paths import snapshots_dir
from dtf.cli.log_source import StreamSource, open_log_source
from dtf.coordinator.recovery import Fold, HistoryLost, restore
from dtf.core.chain import ChainBroken
from dtf.core.run.state_hash import state_hash
from dtf.core.snapshot import SnapshotUnusable, open_snapshot, take
from dtf.ports.event_log import LogError
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.settings.code_version import code_version
from dtf.settings.project import make_private_dir

NICENESS = 10
"""The coordinator and the broker come first: a snapshot is in no hurry."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What the command did."""

    sequence: int
    commits: int
    bytes: int
    is_new: bool
    state_hash: str
    oldest_kept: int
    """Sequence of the oldest snapshot on this machine's disk."""
    stores: list[str]
    """Where it is."""
    faults: list[str]
    """Stores that did not take it, and why."""


@click.command()
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_obj
def command(invocation: Invocation, namespace: str | None, as_json: bool) -> None:
    """Take a snapshot of the state at the log's end, to this machine's disk and to the broker.

    It begins from the newest snapshot there is, so it costs what the log has grown since. The
    coordinator has snapshots taken by itself; by hand it is of use before an archive or an update.
    Three are kept in each place.

    \b
    Example:
        dtf log snapshot
    """
    log_to_stderr()
    watch_lifeline()
    _step_back()
    gc.disable()  # a fold makes nothing that refers to itself, and what it makes stays until the end
    name = namespace or invocation.load().settings.coordinator.namespace
    with _alone(snapshots_dir(invocation, name)):
        try:
            taken = asyncio.run(_take(invocation, name))
        except (HistoryLost, ChainBroken, LogError, SnapshotStoreError) as error:
            raise log_error(error) from error
    if as_json:
        click.echo(json.dumps(asdict(taken)))
    else:
        _print(taken)


def _step_back() -> None:
    """Run when others leave a processor, and never take it from one that just woke up."""
    os.nice(NICENESS)
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _print(taken: Taken) -> None:
    what = (
        f"{taken.commits} commits, {taken.bytes / 2**20:.1f} MiB" if taken.is_new else "it was there already"
    )
    click.echo(f"snapshot at {taken.sequence} ({what}), state {taken.state_hash[:12]}")
    for store in taken.stores:
        click.echo(f"  in {store}")
    for fault in taken.faults:
        click.echo(f"  not kept: {fault}", err=True)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two at a time would do no harm, and no good. The lock goes with the process."""
    try:
        descriptor = os.open(make_private_dir(directory) / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise CommandError(f"no snapshot can be kept in {directory}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CommandError(
            "another process is taking a snapshot of this log", "wait until it is done"
        ) from None
    finally:
        os.close(descriptor)


async def _take(invocation: Invocation, namespace: str) -> Taken:
    async with open_log_source(invocation, None, namespace) as source:
        assert isinstance(source, StreamSource)
        folded = Fold()
        restored = await restore(source, source.stores, None, folded)
        if restored.newer:
            raise HistoryLost(
                f"the log ends at {folded.chain.sequence}; {restored.newer[0].source} is of what it lost",
                "`dtf log repair` explains, and puts it back if it can",
            )
        if folded.chain.commit_count == 0:
            raise CommandError("the log is empty", "there is nothing to take yet", exit_code=ExitCode.EMPTY)
        name = SnapshotName(folded.chain.sequence, folded.chain.last_hash.hex())
        data, proved = _proved_bytes(folded)
        kept, faults = await _save(source.stores, name, data)
        return Taken(
            sequence=name.sequence,
            commits=folded.chain.commit_count,
            bytes=len(data),
            is_new=restored.snapshot_sequence != name.sequence,
            state_hash=proved,
            oldest_kept=await _oldest_on_disk(source),
            stores=kept,
            faults=faults,
        )


def _proved_bytes(folded: Fold) -> tuple[bytes, str]:
    """The snapshot, opened again and compared before any older one makes way for it."""
    data = take(folded.state, folded.chain, code_version=code_version())
    expected = state_hash(folded.state)
    folded.state = type(folded.state)()  # two states at a time would be twice the memory
    try:
        reopened, _ = open_snapshot(data)
    except SnapshotUnusable as error:
        raise SnapshotStoreError(f"the snapshot cannot be read back: {error}; it was not kept") from error
    if state_hash(reopened) != expected:
        raise SnapshotStoreError(
            f"the snapshot read back has the state {state_hash(reopened)[:12]}, expected {expected[:12]}; "
            "it was not kept: `dtf log status` and this command's log belong into a report"
        )
    return data, expected


async def _save(
    stores: Sequence[SnapshotStore], name: SnapshotName, data: bytes
) -> tuple[list[str], list[str]]:
    """Keep it in every store that takes it. Raises SnapshotStoreError if none does."""
    kept: list[str] = []
    faults: list[str] = []
    for store in stores:
        try:
            if name not in await store.names():
                await store.save(name, data)
            kept.append(store.description)
        except SnapshotStoreError as error:
            faults.append(str(error))
    if not kept:
        raise SnapshotStoreError("; ".join(faults))
    return kept, faults


async def _oldest_on_disk(source: StreamSource) -> int:
    names = await source.stores[0].names()
    return names[-1].sequence if names else 0
