"""`dtf log repair`: put back what the log lost, or let it go on without."""

import asyncio
import getpass
import os
import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import click

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.leader_bucket import LeaderBucket
from dtf.adapters.spool import FileSpool, lock_spool
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.log_errors import log_error
from dtf.cli.log_lines import log_to_stderr
from dtf.cli.log_paths import set_aside_dir, spool_dir
from dtf.cli.log_source import snapshot_stores
from dtf.cli.project_broker import project_broker
from dtf.cli.set_aside import SetAside
from dtf.coordinator.loss import Loss
from dtf.coordinator.pipeline import WriterStopped
from dtf.coordinator.recovery import Fold, Restored, check_history, find_loss, restore, send_spooled
from dtf.coordinator.reign import Reign, begin_reign
from dtf.coordinator.repair import RepairRefused, accepted_loss, put_back
from dtf.core.chain import ChainBroken
from dtf.core.run.state import State
from dtf.core.snapshot import SnapshotUnusable, open_snapshot
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError
from dtf.ports.leader_lease import LeaderLease, LeaderPhase, LeaseError, LeaseUnavailable
from dtf.ports.snapshot_store import SnapshotName, SnapshotStore, SnapshotStoreError
from dtf.ports.spool import SpoolError
from dtf.settings.code_version import code_version
from dtf.settings.project import make_private_dir


@dataclass(slots=True)
class _Site:
    """The log and what this machine knows of it."""

    namespace: str
    event_log: JetStreamLog
    stores: tuple[SnapshotStore, ...]
    spool: FileSpool
    aside: SetAside
    lease_seconds: float


@click.command()
@click.option(
    "--accept-loss",
    "accepted",
    type=click.IntRange(min=0),
    metavar="SEQUENCE",
    help="Let the log go on from here without what it lost; the refused start names the sequence.",
)
@click.option("--namespace", default=None, help="Namespace, if not the settings'.")
@click.pass_obj
def command(invocation: Invocation, accepted: int | None, namespace: str | None) -> None:
    """Put back what the event log lost, from this machine's spool.

    Appends the missing commits as they were, each where it was, and reads them back. Run again, it
    goes on where it stopped; with nothing missing it says so. It refuses while a coordinator leads.

    With --accept-loss the log goes on without them: LeaderElected of a new epoch says what was lost
    and who accepted it, and what this machine knows of it is moved to set-aside/ in the state directory.

    Exit codes: 0 nothing is missing (any more), 1 not repaired, 6 no broker, 9 still missing.

    \b
    Example:
        dtf log repair
    """
    log_to_stderr()
    name = namespace or invocation.load().settings.coordinator.namespace
    try:
        asyncio.run(_repair(invocation, name, accepted))
    except (RepairRefused, SpoolError, SnapshotStoreError, LogError, ChainBroken, WriterStopped) as error:
        raise log_error(error) from error


async def _repair(invocation: Invocation, namespace: str, accepted: int | None) -> None:
    async with AsyncExitStack() as stack:
        directory = spool_dir(invocation, namespace)
        lock = lock_spool(make_private_dir(directory), exclusive=True)
        stack.callback(os.close, lock)
        nats = await stack.enter_async_context(project_broker(invocation))
        clock = SystemClock()
        lease = LeaderBucket(nats, namespace)
        stack.push_async_callback(lease.close)
        await refuse_beside_a_leader(lease, clock)
        event_log = await JetStreamLog.open(nats, namespace, clock)
        stack.push_async_callback(event_log.close)
        stores = tuple(snapshot_stores(invocation, nats, namespace))
        for store in stores:
            stack.push_async_callback(store.close)
        aside = SetAside(set_aside_dir(invocation, namespace), directory, stores)
        lease_seconds = invocation.load().settings.coordinator.lease_seconds
        await _mend(_Site(namespace, event_log, stores, FileSpool(directory), aside, lease_seconds), accepted)
        if accepted is not None:
            await take_back_word(lease)


async def refuse_beside_a_leader(lease: LeaderLease, clock: Clock) -> None:
    """A leader that says so is asked to stop first; the log's chain holds against one that does not.

    Raises CommandError.
    """
    try:
        before = await lease.read()
        record = before.record
        if record is None or record.phase in (LeaderPhase.RELEASED, LeaderPhase.LOST):
            return
        click.echo(f"looking whether {record.leader} still leads", err=True)
        await clock.sleep(record.lease_seconds)
        after = await lease.read()
        # A record that is gone was not renewed: the bucket forgets what is ten seconds old.
        if after.record is not None and after.revision != before.revision:
            raise CommandError(
                f"{after.record.leader} leads this namespace at {after.record.address}",
                "stop it first: `dtf down`, or its service",
            )
    except LeaseUnavailable:
        return


async def take_back_word(lease: LeaderLease) -> None:
    """What was lost is not missed any more; a leader's word of it would keep everyone from leading."""
    try:
        view = await lease.read()
        if view.record is not None and view.record.phase is LeaderPhase.LOST:
            over = replace(view.record, phase=LeaderPhase.RELEASED, sequence=0, message_id="")
            await lease.write(over, view.revision)
            click.echo(
                f"{view.record.leader} had acknowledged {view.record.sequence}: nobody asks for that now"
            )
    except LeaseError as error:
        click.echo(f"the leader's word of the loss was not taken back: {error}; run this again", err=True)


async def _mend(site: _Site, accepted: int | None) -> None:
    for directory in await site.aside.finish(site.event_log):
        click.echo(f"finished what was begun before: {directory}")
    folded, restored = Fold(), Restored()
    restored = await restore(site.event_log, site.stores, site.spool, folded)
    loss = await find_loss(site.event_log, folded.chain, restored)
    if loss is None:
        count = await send_spooled(
            site.event_log, folded, await check_history(site.event_log, folded, restored)
        )
        sent = f"; {count} commits that had not reached it were sent" if count else ""
        click.echo(f"nothing is missing: the log of {site.namespace} ends at {folded.chain.sequence}{sent}")
        return
    for line in loss.lines():
        click.echo(line)
    if accepted is None:
        await _put_back(site, loss, folded)
    else:
        await _go_on_without(site, loss, folded, restored, accepted)


async def _put_back(site: _Site, loss: Loss, folded: Fold) -> None:
    done = await put_back(site.event_log, loss, folded.chain)
    if done.commits:
        fillers = f" and {done.fillers} fillers for messages that were no commits" if done.fillers else ""
        click.echo(f"put back {done.commits} commits{fillers}: messages {done.first} to {done.last}")
    after = Fold()
    restored = await restore(site.event_log, site.stores, site.spool, after)
    left = await find_loss(site.event_log, after.chain, restored)
    if left is not None:
        raise CommandError(
            f"still missing: {left.lines()[0]}",
            *left.lines()[1:],
            "where another machine led before this one, it has what comes first: `dtf log repair` there, then here again",
            f"else `dtf log repair --accept-loss {left.after_sequence}` goes on without them",
            exit_code=ExitCode.LOG_LOST,
        )
    click.echo(f"read back: the log ends at {after.chain.sequence}, its chain is whole, nothing is missing")


async def _go_on_without(site: _Site, loss: Loss, folded: Fold, restored: Restored, accepted: int) -> None:
    if accepted != loss.after_sequence:
        raise CommandError(
            f"--accept-loss {accepted} is not what is lost: it begins after {loss.after_sequence}",
            f"`dtf log repair --accept-loss {loss.after_sequence}` accepts that",
            exit_code=ExitCode.USAGE,
        )
    beyond = await _states_beyond(site, loss.after_sequence)
    what = accepted_loss(loss, folded.state, beyond, f"{getpass.getuser()}@{socket.gethostname()}")
    directory = await site.aside.copy(loss, folded.chain.sequence + 1)
    reign = await begin_reign(
        site.event_log,
        SystemClock(),
        leader=f"dtf log repair {socket.gethostname()}:{os.getpid()}",
        lease_seconds=site.lease_seconds,
        nonce=secrets.token_bytes(8),
        code_version=code_version(),
        reign=Reign(folded.state, folded.chain),
        accepted_loss=what,
    )
    await site.aside.finish(site.event_log)
    click.echo(
        f"the log goes on at {reign.chain.sequence} in epoch {reign.chain.epoch}, which says what is lost; "
        f"what this machine knows of it is in {directory}"
    )


async def _states_beyond(site: _Site, after: int) -> list[State]:
    """States that snapshots keep of the lost history; one that cannot be read says nothing."""
    states: list[State] = []
    seen: set[SnapshotName] = set()
    for store in site.stores:
        for name in await store.names():
            if name.sequence <= after or name in seen:
                continue
            try:
                states.append(open_snapshot(await store.load(name))[0])
                seen.add(name)
            except (SnapshotUnusable, SnapshotStoreError):
                continue
    return states
