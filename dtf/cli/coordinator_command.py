"""`dtf coordinator`: lead one namespace until told to stop."""

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import click

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.file_snapshots import FileSnapshots
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.leader_bucket import LeaderBucket
from dtf.adapters.object_store_snapshots import ObjectStoreSnapshots
from dtf.adapters.preparation_process import local_preparation
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.spool import FileSpool
from dtf.adapters.system_clock import SystemClock
from dtf.cli.certificate_choice import coordinator_certificates
from dtf.cli.coordinator_metrics import CoordinatorCollector
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.lifeline import watch_lifeline
from dtf.cli.log_errors import log_error
from dtf.cli.log_lines import log_to_stderr
from dtf.cli.log_paths import archive_dir_of, snapshots_dir, spool_dir
from dtf.cli.metrics_server import MetricsPlace, metrics_server
from dtf.cli.snapshot_process import SnapshotProcess
from dtf.client.connect import read_token
from dtf.coordinator.pipeline import Deposed, WriterStopped
from dtf.coordinator.process import Coordinator
from dtf.coordinator.recovery import HistoryLost
from dtf.core.chain import ChainBroken
from dtf.ports.spool import SpoolError
from dtf.ports.subjects import RecordKind
from dtf.rpc.certificates import ServerCertificates
from dtf.rpc.server import AddressInUse, ListenAddress, ListenError
from dtf.settings.model import Settings
from dtf.settings.project import make_private_dir, namespace_dir

GC_THRESHOLD = 50_000
"""Of the collector's youngest generation: 1.12 times the throughput (design/measured.md)."""

LAST_SNAPSHOT_SECONDS = 8.0
"""The supervisor gives a part 15 s to end."""

log = logging.getLogger(__name__)


@click.command()
@click.option("--listen", metavar="HOST:PORT", help="Where to serve gRPC; port 0: any free one.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token.")
@click.option("--namespace", help="Namespace of the log that this coordinator leads.")
@click.option("--nats-url", metavar="URL", help="Broker of the event log: nats://host:port.")
@click.option("--blob-dir", type=click.Path(path_type=Path), help="Directory of the blob store.")
@click.option("--standby", is_flag=True, help="Wait for the leader to go, then take its place.")
@click.pass_obj
def command(
    invocation: Invocation,
    listen: str | None,
    token_file: Path | None,
    namespace: str | None,
    nats_url: str | None,
    blob_dir: Path | None,
    standby: bool,
) -> int:
    """Lead one namespace: decide, commit, and serve clients and workers.

    Says {"ready": true, "address": "…", "role": "leader"} on standard output when it leads and
    listens; with --standby the same with "role": "standby" first, when it follows the log and
    holds its port. Without --standby it takes the place of whoever leads. Ends in good order on
    SIGTERM or SIGINT. Beyond loopback it serves TLS, by a certificate of its own authority unless
    the settings name another, and wants a token (docs/joining.md). Exit codes: 0 told to stop, 4 settings (an address that may not be
    listened on, a port in use), 6 no broker, or no room for the spool, 7 deposed by another
    coordinator, 9 the log lacks what it had acknowledged (`dtf log repair`).

    \b
    Example:
        dtf coordinator --listen 127.0.0.1:7070 --token-file token --nats-url nats://127.0.0.1:4222
        dtf coordinator --listen 127.0.0.1:7071 --token-file token --nats-url nats://127.0.0.1:4222 --standby
    """
    settings = invocation.load(
        coordinator__listen=listen,
        coordinator__token_file=str(token_file) if token_file else None,
        coordinator__namespace=namespace,
        coordinator__blob_dir=str(blob_dir) if blob_dir else None,
        nats__url=nats_url,
    ).settings
    _check(settings)
    log_to_stderr()
    watch_lifeline()
    try:
        certificates = _certificates(invocation, settings)
        _check_listen(settings, certificates)
        asyncio.run(_serve(invocation, settings, _blob_dir(invocation, settings), standby, certificates))
    except (ListenError, WriterStopped, ChainBroken, SpoolError) as error:
        raise _as_command_error(error) from error
    return ExitCode.OK


def _check(settings: Settings) -> None:
    if not settings.nats.url:
        raise CommandError(
            "no broker is named", "set [nats] url, DTF_NATS_URL or --nats-url", exit_code=ExitCode.USAGE
        )
    if not settings.coordinator.token_file:
        raise CommandError(
            "no token is given, and whoever can submit can run code",
            "set [coordinator] token_file or --token-file to a file that only its owner can read",
            exit_code=ExitCode.USAGE,
        )
    if settings.coordinator.metrics_listen:
        _metrics_place(settings).token()


def _certificates(invocation: Invocation, settings: Settings) -> ServerCertificates | None:
    """What the listener is to show. Raises ListenError."""
    state = invocation.project_dir / settings.coordinator.state_dir
    try:
        return coordinator_certificates(settings, state, SystemClock())
    except ValueError as error:
        raise ListenError(f"coordinator.advertise: {error}") from error


def _check_listen(settings: Settings, certificates: ServerCertificates | None) -> None:
    """Before the broker is asked: what may not be listened on needs no broker to say so. Raises ListenError."""
    address = ListenAddress(settings.coordinator.listen, _token(settings), certificates)
    address.check()
    address.credentials()


def _blob_dir(invocation: Invocation, settings: Settings) -> Path:
    coordinator = settings.coordinator
    state = namespace_dir(invocation.project_dir / coordinator.state_dir, coordinator.namespace)
    return Path(coordinator.blob_dir or state / "blobs")


async def _serve(
    invocation: Invocation,
    settings: Settings,
    blob_dir: Path,
    standby: bool,
    certificates: ServerCertificates | None,
) -> None:
    clock = SystemClock()
    namespace = settings.coordinator.namespace
    token = _token(settings)
    async with AsyncExitStack() as stack:
        stop = _stop_on_signals()
        live = await JetStreamLog.open(settings.nats, namespace, clock)
        event_log = ArchivedLog(live, archive_dir_of(settings, invocation.project_dir, namespace), namespace)
        stack.push_async_callback(event_log.close)
        telemetry = await JetStreamRecords.open(settings.nats, RecordKind.TELEMETRY, namespace, clock)
        stack.push_async_callback(telemetry.close)
        scaling = await JetStreamRecords.open(settings.nats, RecordKind.SCALING, namespace, clock)
        stack.push_async_callback(scaling.close)
        lease = LeaderBucket(settings.nats, namespace)
        stack.push_async_callback(lease.close)
        snapshots = snapshots_dir(invocation, namespace)
        stores = (FileSnapshots(snapshots), ObjectStoreSnapshots(settings.nats, namespace, clock))
        for store in stores:
            stack.push_async_callback(store.close)
        spool = FileSpool(spool_dir(invocation, namespace))
        stack.push_async_callback(spool.close)
        coordinator = Coordinator(
            settings.coordinator,
            log=event_log,
            telemetry=telemetry,
            scaling=scaling,
            blobs=FileBlobStore(make_private_dir(blob_dir)),
            blob_rules=settings.blobs,
            clock=clock,
            token=token,
            lease=lease,
            snapshots=stores,
            spool=spool,
            snapshot_launcher=SnapshotProcess(settings, invocation.project_dir, snapshots),
            certificates=certificates,
            preparation=local_preparation(),
        )
        if not await _started(coordinator, stop, standby):
            return
        stack.push_async_callback(coordinator.stop)
        _tune_collector()
        _say_ready(coordinator.address, "leader", metrics=_publish_figures(settings, coordinator, stack))
        fault: Exception | None = None
        async with asyncio.TaskGroup() as group:
            told = group.create_task(_stop_when_told(stop, coordinator))
            try:
                await coordinator.wait()
            except Exception as error:  # raised below, by itself and not in a group
                fault = error
            told.cancel()
        if fault is not None:
            raise fault
        await coordinator.take_last_snapshot(LAST_SNAPSHOT_SECONDS)


async def _started(coordinator: Coordinator, stop: asyncio.Event, standby: bool) -> bool:
    """Start it; False if it was told to stop before it led."""
    on_standby = partial(_say_ready, role="standby") if standby else None
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(_fault_of(coordinator.start(on_standby)))
        told = group.create_task(_wait(stop))
        await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        told.cancel()
    if starting.cancelled():
        return False
    fault = starting.result()
    if fault is not None:
        raise fault
    return True


async def _fault_of(part: Awaitable[None]) -> Exception | None:
    """What a part ended with: a group would wrap it."""
    try:
        await part
    except Exception as error:
        return error
    return None


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _metrics_place(settings: Settings) -> MetricsPlace:
    coordinator = settings.coordinator
    return MetricsPlace("coordinator", coordinator.metrics_listen, coordinator.metrics_token_file)


def _publish_figures(settings: Settings, coordinator: Coordinator, stack: AsyncExitStack) -> str:
    """/metrics, if it is asked for: where it is served. Raises CommandError."""
    place = _metrics_place(settings)
    if not place.listen:
        return ""
    collector = CoordinatorCollector(coordinator.figures, asyncio.get_running_loop())
    return stack.enter_context(metrics_server(place, collector))


def _say_ready(address: str, role: str, metrics: str = "") -> None:
    said: dict[str, object] = {"ready": True, "address": address, "role": role}
    if metrics:
        said["metrics"] = metrics
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def _stop_when_told(stop: asyncio.Event, coordinator: Coordinator) -> None:
    await stop.wait()
    log.info("stopping")
    await coordinator.stop()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _tune_collector() -> None:
    """What the replay made stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def _token(settings: Settings) -> str:
    path = settings.coordinator.token_file
    try:
        token = read_token(path)
    except OSError as error:
        raise CommandError(f"the token file cannot be read: {error}", exit_code=ExitCode.USAGE) from error
    if not token:
        raise CommandError(f"the token file {path} is empty", exit_code=ExitCode.USAGE)
    return token


def _as_command_error(error: Exception) -> CommandError:
    match error:
        case AddressInUse():
            return CommandError(
                str(error), "`dtf status` says what runs in this project", exit_code=ExitCode.USAGE
            )
        case HistoryLost():
            return log_error(error)
        case ListenError():
            return CommandError(str(error), exit_code=ExitCode.USAGE)
        case Deposed():
            return CommandError(
                str(error),
                "nothing to mend if that is meant; else stop one of them",
                exit_code=ExitCode.DEPOSED,
            )
        case _:
            return CommandError(str(error), exit_code=ExitCode.UNAVAILABLE)
