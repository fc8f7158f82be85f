"""`dtf trend-analyzer`: follow the log into the metric store and answer AnalysisService, until told to stop."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import click

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.duckdb_store import DuckDbStore
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.rejected_points import FILE_NAME, RejectedPoints
from dtf.adapters.sqlite_vault import SqliteVault
from dtf.adapters.system_clock import SystemClock
from dtf.cli.certificate_choice import analyzer_certificates
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.lifeline import inherited_descriptor, watch_lifeline
from dtf.cli.log_paths import archive_dir_of
from dtf.cli.notifiers import make_notifiers
from dtf.client.connect import peer, read_token
from dtf.client.stack import read_stack
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError
from dtf.ports.metric_store import MetricStore, StoreError, StoreUnavailable
from dtf.ports.series_vault import VaultError
from dtf.ports.subjects import RecordKind
from dtf.rpc.certificates import ServerCertificates
from dtf.rpc.server import ListenError
from dtf.settings.model import NatsSettings, Settings
from dtf.settings.project import namespace_dir, state_dir
from dtf.trend_analyzer.process import TrendAnalyzer
from dtf.trend_analyzer.reruns import GrpcCoordinator

EMBEDDED_NICENESS = 5
"""On a machine it shares with workers the analyzer gives way: it must not slow what it measures."""

VAULT_SUFFIX = ".series.sqlite"
"""The series searched for findings lie beside the store: metrics.series.sqlite."""

STORE_WAIT_SECONDS = 15.0
"""How long a store that does not answer is waited for at the start."""


@click.command()
@click.option(
    "--listen", default=None, metavar="HOST:PORT", help="Where AnalysisService listens; port 0: any."
)
@click.option(
    "--store", type=click.Choice(["duckdb", "influxdb"]), default=None, help="Kind of metric store."
)
@click.option("--path", default=None, metavar="FILE", help="File of the DuckDB store.")
@click.option("--namespace", default=None, help="Namespace of the log.")
@click.pass_obj
def command(
    invocation: Invocation, listen: str | None, store: str | None, path: str | None, namespace: str | None
) -> None:
    """Follow the log into the metric store and answer AnalysisService.

    Says {"ready": true, "address": "…"} on standard output when it serves; ends on SIGTERM or
    SIGINT. Started again it goes on where it was. Several kinds of question are in docs/queries.md.

    \b
    Example:
        dtf trend-analyzer
        INFLUXDB_V2_URL=http://influx:8086 INFLUXDB_V2_TOKEN=… INFLUXDB_V2_ORG=qa INFLUXDB_V2_BUCKET=dtf \\
            dtf --set nats.url=nats://broker:4222 trend-analyzer --store influxdb
    """
    settings = invocation.load(
        analyzer__listen=listen, store__kind=store, store__path=path, coordinator__namespace=namespace
    ).settings
    watch_lifeline()
    if inherited_descriptor() is not None:
        os.nice(EMBEDDED_NICENESS)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        archive = archive_dir_of(settings, invocation.project_dir, settings.coordinator.namespace)
        asyncio.run(
            _serve(
                settings,
                _broker(invocation, settings),
                _store_path(invocation, settings),
                rejected_path(invocation, settings),
                archive,
                analyzer_certificates(
                    settings, invocation.project_dir / settings.coordinator.state_dir, SystemClock()
                ),
            )
        )
    except* (LogError, StoreError, VaultError, ListenError, OSError) as errors:
        raise _as_command_error(errors) from errors


async def _serve(
    settings: Settings,
    nats: NatsSettings,
    path: Path,
    rejected: Path,
    archive: Path,
    certificates: ServerCertificates | None,
) -> None:
    clock = SystemClock()
    namespace = settings.coordinator.namespace
    async with AsyncExitStack() as stack:
        stop = _stop_on_signals()
        store = await _open_store(settings, path, rejected, clock)
        stack.push_async_callback(store.close)
        log = ArchivedLog(await JetStreamLog.open(nats, namespace, clock), archive, namespace)
        stack.push_async_callback(log.close)
        telemetry = await JetStreamRecords.open(nats, RecordKind.TELEMETRY, namespace, clock)
        stack.push_async_callback(telemetry.close)
        scaling = await JetStreamRecords.open(nats, RecordKind.SCALING, namespace, clock)
        stack.push_async_callback(scaling.close)
        analysis = await JetStreamRecords.open(nats, RecordKind.ANALYSIS, namespace, clock)
        stack.push_async_callback(analysis.close)
        vault = await SqliteVault.open(path.with_suffix(VAULT_SUFFIX))
        stack.push_async_callback(vault.close)
        coordinator = _coordinator(settings)
        if coordinator is not None:
            stack.push_async_callback(coordinator.close)
        analyzer = TrendAnalyzer(
            settings.analyzer,
            log=log,
            telemetry=telemetry,
            scaling=scaling,
            analysis=analysis,
            store=store,
            vault=vault,
            clock=clock,
            namespace=namespace,
            notifiers=make_notifiers(settings.notify),
            notify=settings.notify,
            token=read_token(settings.analyzer.token_file or settings.coordinator.token_file),
            certificates=certificates,
            coordinator=coordinator,
            trends=settings.trends,
        )
        async with analyzer:
            click.echo(json.dumps({"ready": True, "address": analyzer.address}))
            await stop.wait()


def _coordinator(settings: Settings) -> GrpcCoordinator | None:
    """Who runs cases again, where [trends] confirm wants it. Raises CommandError."""
    if not settings.trends.confirm:
        return None
    token_file = settings.run.token_file or settings.analyzer.token_file or settings.coordinator.token_file
    if not settings.server:
        raise CommandError(
            "[trends] confirm is set, and no coordinator is named that could run cases again",
            "set [run] server, or DTF_SERVER; in a project's own stack it is known",
            exit_code=ExitCode.USAGE,
        )
    try:
        return GrpcCoordinator(peer(settings.server, token_file, settings.run.certificate_authority_file))
    except (OSError, ValueError) as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _open_store(settings: Settings, path: Path, rejected: Path, clock: Clock) -> MetricStore:
    match settings.store.kind:
        case "duckdb":
            return await DuckDbStore.open(path)
        case "influxdb":
            # Imported here because it takes half a second that the embedded store need not pay.
            from dtf.adapters.influx_connection import InfluxAddress
            from dtf.adapters.influx_store import InfluxStore

            address = InfluxAddress.from_environment(os.environ)
            aside = RejectedPoints(rejected, clock)
            return await _patiently(lambda: InfluxStore.open(address, clock=clock, rejected=aside), clock)
        case other:
            raise CommandError(
                f"store.kind is {other!r}, expected duckdb or influxdb", exit_code=ExitCode.USAGE
            )


async def _patiently(open_store: Callable[[], Awaitable[MetricStore]], clock: Clock) -> MetricStore:
    """The store, tried again while it is away, so that a supervisor need not count our deaths."""
    give_up_at = clock.monotonic() + STORE_WAIT_SECONDS
    while True:
        try:
            return await open_store()
        except StoreUnavailable as error:
            if clock.monotonic() >= give_up_at:
                raise
            logging.getLogger(__name__).warning("%s; trying again", error)
            await clock.sleep(max(1.0, error.retry_after_seconds))


def _broker(invocation: Invocation, settings: Settings) -> NatsSettings:
    """The broker that the settings name, or the one of the project's stack."""
    if settings.nats.url:
        return settings.nats
    stack = read_stack(invocation.project_dir)
    if stack is None or not stack.nats:
        raise CommandError(
            "no broker: nothing runs in this project and [nats] url is not set",
            "`dtf up` starts a stack with an analyzer of its own; or set [nats] url and credentials_file",
            exit_code=ExitCode.UNAVAILABLE,
        )
    return NatsSettings(url=stack.nats, credentials_file=stack.nats_credentials_file)


def _store_path(invocation: Invocation, settings: Settings) -> Path:
    home = namespace_dir(state_dir(invocation.project_dir), settings.coordinator.namespace)
    return Path(settings.store.path or home / "metrics.duckdb")


def rejected_path(invocation: Invocation, settings: Settings) -> Path:
    """Where the points are kept that the store refuses."""
    return namespace_dir(state_dir(invocation.project_dir), settings.coordinator.namespace) / FILE_NAME


def _as_command_error(errors: BaseExceptionGroup[Exception]) -> CommandError:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    exit_code = ExitCode.USAGE if isinstance(first, ListenError) else ExitCode.UNAVAILABLE
    return CommandError(str(first), exit_code=exit_code)
