"""`dtf resource-manager`: keeps pools as large as the log says they should be."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import click

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.live_feed import LiveFeed
from dtf.adapters.orphan_reaper import OrphanReaper
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.lifeline import watch_lifeline
from dtf.cli.log_lines import log_to_stderr
from dtf.cli.log_paths import archive_dir_of
from dtf.cli.metrics_server import MetricsPlace, metrics_server
from dtf.cli.pool_metrics import PoolCollector
from dtf.cli.providers import Site, cluster_of, make_pool
from dtf.cli.scaling_policies import make_shadow
from dtf.client.connect import peer
from dtf.client.join_tokens import JoinTokens
from dtf.core.chain import ChainBroken
from dtf.ports.event_log import LogError
from dtf.ports.subjects import RecordKind
from dtf.resource_manager.fleet import GrpcFleet
from dtf.resource_manager.process import ResourceManager, Shadow
from dtf.rpc.channel import Peer, open_channel
from dtf.settings.model import Settings
from dtf.settings.project import namespace_dir, state_dir
from dtf.settings.rules import POOL_NAME

FEED_REPORT_SECONDS = 30.0
ALL_POOLS = "pools"
"""Name of the state file of a resource manager that looks after every pool."""


@dataclass(frozen=True, slots=True)
class _Deployment:
    """Where the resource manager works."""

    settings: Settings
    pools: Sequence[str]
    """Pools that are looked after."""
    state_name: str
    server: str
    coordinator: Peer
    token_file: Path
    project_dir: Path
    state_dir: Path
    leaves_workers: bool
    settings_arguments: Sequence[str]
    """Global options that the workers are given too."""
    is_dry_run: bool = False
    shadow: Shadow | None = None


@click.command("resource-manager")
@click.option("--server", help="host:port[,…] of the coordinator(s). Default: run.server (DTF_SERVER).")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token.")
@click.option("--pool", "pool_name", help="Look after this pool alone. Default: every pool of the settings.")
@click.option("--min", "min_workers", type=int, help="Workers kept at least, of --pool or else of [pool].")
@click.option("--max", "max_workers", type=int, help="Workers launched at most, likewise.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Where launches and decisions are remembered. Default: .dtf/resource_manager of the project.",
)
@click.option(
    "--dry-run", "is_dry_run", is_flag=True, help="Publish what would be done, and ask nobody to do it."
)
@click.option(
    "--shadow",
    "shadow_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="TOML file with a [pool] table: a policy that decides beside the pool's own, without authority.",
)
@click.option("--leave-workers", is_flag=True, help="When stopped in good order, let the workers go on.")
@click.pass_obj
def command(
    invocation: Invocation,
    server: str | None,
    token_file: Path | None,
    pool_name: str | None,
    min_workers: int | None,
    max_workers: int | None,
    state_dir: Path | None,
    leave_workers: bool,
    is_dry_run: bool,
    shadow_file: Path | None,
) -> int:
    """Launch workers while there is a backlog, let idle ones go, replace those that die.

    \b
    Example:
        dtf resource-manager --server 10.0.0.5:7070 --token-file token --min 1 --max 16
    """
    settings, pools = _pools(invocation, pool_name, min_workers, max_workers)
    deployment = _deployment(invocation, settings, pools, server, token_file, state_dir, leave_workers)
    if pool_name:
        deployment = replace(deployment, state_name=pool_name)
    shadow = None if shadow_file is None else make_shadow(shadow_file, settings.of_pool(pools[0]).pool)
    deployment = replace(deployment, is_dry_run=is_dry_run, shadow=shadow)
    log_to_stderr()
    watch_lifeline()
    asyncio.run(_serve(deployment))
    return ExitCode.OK


def _pools(
    invocation: Invocation, only: str | None, min_workers: int | None, max_workers: int | None
) -> tuple[Settings, Sequence[str]]:
    """The settings, and the pools of them to look after. A name that is none of theirs is given to [pool]."""
    table = f"pools__{only}" if only in invocation.load().settings.pools else "pool"
    bounds: dict[str, object] = {
        f"{table}__min_workers": min_workers,
        f"{table}__max_workers": max_workers,
    }
    if only and table == "pool":
        bounds["pool__name"] = only
    settings = invocation.load(**bounds).settings
    return settings, [only] if only else settings.pool_names


def _deployment(
    invocation: Invocation,
    settings: Settings,
    pools: Sequence[str],
    server: str | None,
    token_file: Path | None,
    state: Path | None,
    leave_workers: bool,
) -> _Deployment:
    server = server or settings.run.server
    token = str(token_file or settings.run.token_file)
    if not server:
        raise CommandError(
            "no coordinator is named", "pass --server host:port, or set DTF_SERVER", exit_code=ExitCode.USAGE
        )
    if not settings.nats.url:
        raise CommandError("no broker is named", "set [nats] url, or DTF_NATS_URL", exit_code=ExitCode.USAGE)
    if not token:
        raise CommandError(
            "no token is given", "pass --token-file, the coordinator's own", exit_code=ExitCode.USAGE
        )
    if not POOL_NAME.fullmatch(settings.pool.name):
        raise CommandError(
            f"a pool cannot be named {settings.pool.name!r}: its workers are named after it",
            "use 1 to 64 letters, digits, '-', '_' and '.'",
            exit_code=ExitCode.USAGE,
        )
    home = namespace_dir(state_dir(invocation.project_dir), settings.coordinator.namespace)
    directory = state or home / "resource_manager"
    options = ["--project", str(invocation.project_dir)]
    if invocation.settings_file is not None:
        options += ["--settings", str(invocation.settings_file)]
    if authority := settings.run.certificate_authority_file:
        options += ["--set", f"worker.certificate_authority_file={Path(authority).absolute()}"]
    try:
        coordinator = peer(server, token, settings.run.certificate_authority_file)
    except (OSError, ValueError) as error:
        raise CommandError(str(error), exit_code=ExitCode.USAGE) from error
    return _Deployment(
        settings,
        pools,
        ALL_POOLS,
        server,
        coordinator,
        Path(token),
        invocation.project_dir,
        directory,
        leave_workers,
        options,
    )


async def _serve(deployment: _Deployment) -> None:
    try:
        await _serve_pools(deployment)
    except* LogError as errors:
        raise CommandError(
            _first(errors), "look at the broker, then start again", exit_code=ExitCode.UNAVAILABLE
        ) from errors
    except* ChainBroken as errors:
        raise CommandError(
            _first(errors),
            "the resource manager does not go on; start it again once the log is whole",
        ) from errors


def _first(errors: BaseExceptionGroup[BaseException]) -> str:
    """What the first of them says; task groups nest."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else str(first)


async def _serve_pools(deployment: _Deployment) -> None:
    settings = deployment.settings
    clock = SystemClock()
    namespace = settings.coordinator.namespace
    async with contextlib.AsyncExitStack() as stack:
        live = await JetStreamLog.open(settings.nats, namespace, clock)
        log = ArchivedLog(live, archive_dir_of(settings, deployment.project_dir, namespace), namespace)
        stack.push_async_callback(log.close)
        scaling = await JetStreamRecords.open(settings.nats, RecordKind.SCALING, namespace, clock)
        stack.push_async_callback(scaling.close)
        telemetry = await JetStreamRecords.open(settings.nats, RecordKind.TELEMETRY, namespace, clock)
        stack.push_async_callback(telemetry.close)
        fleet = GrpcFleet(deployment.coordinator)
        stack.push_async_callback(fleet.close)
        site = await _site(deployment, log, clock, stack)
        pools = [make_pool(settings.of_pool(name), site) for name in deployment.pools]
        for pool in pools:
            stack.push_async_callback(pool.provider.close)
        manager = ResourceManager(
            pools,
            namespace=namespace,
            log=log,
            scaling=scaling,
            fleet=fleet,
            clock=clock,
            state_dir=deployment.state_dir,
            state_name=deployment.state_name,
            max_workers=settings.resource_manager.max_workers,
            leaves_workers=deployment.leaves_workers,
            telemetry=telemetry,
            telemetry_after=(await telemetry.head()).last_sequence,
            is_dry_run=deployment.is_dry_run,
            shadow=deployment.shadow,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, manager.stop)
        feed = await _live_feed(settings, clock, stack)
        address = _publish_figures(settings, manager, feed, stack)
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(manager.measure_forever())] if address else []
            beside += [
                tasks.create_task(_tell_ready(manager, address)),
                tasks.create_task(feed.run()),
                tasks.create_task(_report_feed(feed, fleet, deployment.state_name, clock)),
                tasks.create_task(OrphanReaper(site.child_ids, clock).run()),
            ]
            await manager.run()
            for task in beside:
                task.cancel()


def _publish_figures(
    settings: Settings, manager: ResourceManager, feed: LiveFeed, stack: contextlib.AsyncExitStack
) -> str:
    """/metrics, if it is asked for: where it is served."""
    section = settings.resource_manager
    if not section.metrics_listen:
        return ""
    place = MetricsPlace("resource_manager", section.metrics_listen, section.metrics_token_file)
    collector = PoolCollector(lambda: manager.meters, lambda: feed.skipped_count)
    return stack.enter_context(metrics_server(place, collector))


async def _live_feed(settings: Settings, clock: SystemClock, stack: contextlib.AsyncExitStack) -> LiveFeed:
    """What publishes the live feed, on connections of its own (docs/adr/0004-the-live-feed.md)."""
    namespace = settings.coordinator.namespace
    log = await JetStreamLog.attach(settings.nats, namespace, clock)
    stack.push_async_callback(log.close)
    return LiveFeed(log, settings.nats, namespace, clock)


async def _report_feed(feed: LiveFeed, fleet: GrpcFleet, name: str, clock: SystemClock) -> NoReturn:
    """Have the coordinator know what the live feed did not send, once there is any: it knows of none otherwise."""
    while True:
        if feed.skipped_count:
            await fleet.report_live_feed(f"{name}@{socket.gethostname()}", feed.skipped_count)
        await clock.sleep(FEED_REPORT_SECONDS)


async def _tell_ready(manager: ResourceManager, metrics: str) -> None:
    await manager.ready.wait()
    said: dict[str, object] = {"ready": True}
    if metrics:
        said["metrics"] = metrics
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


async def _site(
    deployment: _Deployment, log: ArchivedLog, clock: SystemClock, stack: contextlib.AsyncExitStack
) -> Site:
    channel = open_channel(deployment.coordinator)
    stack.push_async_callback(channel.close)
    settings = deployment.settings
    is_here = all(settings.of_pool(name).pool.provider == "process" for name in deployment.pools)
    return Site(
        clock=clock,
        cluster="" if is_here else await cluster_of(log, clock),
        server=deployment.server,
        token_file=deployment.token_file,
        worker_options=deployment.settings_arguments,
        project_dir=deployment.project_dir,
        state_dir=deployment.state_dir,
        tokens=JoinTokens(channel, deployment.coordinator.metadata),
        processors=os.cpu_count() or 1,
    )
