"""`dtf resource-manager`: keeps one pool as large as the log says it should be."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from dtf.adapters.archived_log import ArchivedLog
from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.live_feed import LiveFeed
from dtf.adapters.orphan_reaper import OrphanReaper
from dtf.adapters.process_provider import ProcessProvider, dtf_worker_command
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.invocation import Invocation
from dtf.cli.lifeline import inherited_descriptor, watch_lifeline
from dtf.cli.log_lines import log_to_stderr
from dtf.cli.log_paths import archive_dir_of
from dtf.client.connect import peer
from dtf.core.chain import ChainBroken
from dtf.ports.capacity import WorkerCommand
from dtf.ports.event_log import LogError
from dtf.ports.subjects import RecordKind
from dtf.resource_manager.fleet import GrpcFleet
from dtf.resource_manager.process import ResourceManager, resolve_policy
from dtf.rpc.channel import Peer
from dtf.settings.model import Settings
from dtf.settings.project import namespace_dir, state_dir

POOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class _Deployment:
    """Where the resource manager works."""

    settings: Settings
    server: str
    coordinator: Peer
    token_file: Path
    project_dir: Path
    state_dir: Path
    leaves_workers: bool
    settings_arguments: Sequence[str]
    """Global options that the workers are given too."""


@click.command("resource-manager")
@click.option("--server", help="host:port[,…] of the coordinator(s). Default: run.server (DTF_SERVER).")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the bearer token.")
@click.option("--pool", "pool_name", help="Name of the pool. Default: pool.name.")
@click.option("--min", "min_workers", type=int, help="Workers kept at least.")
@click.option("--max", "max_workers", type=int, help="Workers launched at most.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Where launches and decisions are remembered. Default: .dtf/resource_manager of the project.",
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
) -> int:
    """Launch workers while there is a backlog, let idle ones go, replace those that die.

    \b
    Example:
        dtf resource-manager --server 10.0.0.5:7070 --token-file token --min 1 --max 16
    """
    settings = invocation.load(
        pool__name=pool_name, pool__min_workers=min_workers, pool__max_workers=max_workers
    ).settings
    deployment = _deployment(invocation, settings, server, token_file, state_dir, leave_workers)
    log_to_stderr()
    watch_lifeline()
    asyncio.run(_serve(deployment))
    return ExitCode.OK


def _deployment(
    invocation: Invocation,
    settings: Settings,
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
    if settings.pool.provider != "process":
        raise CommandError(
            f"no provider {settings.pool.provider!r}",
            "set pool.provider to process",
            exit_code=ExitCode.USAGE,
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
        settings, server, coordinator, Path(token), invocation.project_dir, directory, leave_workers, options
    )


async def _serve(deployment: _Deployment) -> None:
    try:
        await _serve_pool(deployment)
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


async def _serve_pool(deployment: _Deployment) -> None:
    settings = deployment.settings
    clock = SystemClock()
    namespace = settings.coordinator.namespace
    async with contextlib.AsyncExitStack() as stack:
        live = await JetStreamLog.open(settings.nats, namespace, clock)
        log = ArchivedLog(live, archive_dir_of(settings, deployment.project_dir, namespace), namespace)
        stack.push_async_callback(log.close)
        scaling = await JetStreamRecords.open(settings.nats, RecordKind.SCALING, namespace, clock)
        stack.push_async_callback(scaling.close)
        fleet = GrpcFleet(deployment.coordinator)
        stack.push_async_callback(fleet.close)
        provider = _provider(deployment, clock)
        await provider.start()
        stack.push_async_callback(provider.close)
        manager = ResourceManager(
            resolve_policy(settings.pool, os.cpu_count() or 1),
            namespace=namespace,
            log=log,
            scaling=scaling,
            provider=provider,
            fleet=fleet,
            clock=clock,
            state_dir=deployment.state_dir,
            leaves_workers=deployment.leaves_workers,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, manager.stop)
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(_tell_ready(manager)),
                tasks.create_task(await _live_feed(settings, clock, stack)),
                tasks.create_task(OrphanReaper(lambda: provider.child_ids, clock).run()),
            ]
            await manager.run()
            for task in beside:
                task.cancel()


async def _live_feed(
    settings: Settings, clock: SystemClock, stack: contextlib.AsyncExitStack
) -> Coroutine[Any, Any, None]:
    """What publishes the live feed, on connections of its own (docs/adr/0004-the-live-feed.md)."""
    namespace = settings.coordinator.namespace
    log = await JetStreamLog.attach(settings.nats, namespace, clock)
    stack.push_async_callback(log.close)
    return LiveFeed(log, settings.nats, namespace, clock).run()


async def _tell_ready(manager: ResourceManager) -> None:
    await manager.ready.wait()
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()


def _provider(deployment: _Deployment, clock: SystemClock) -> ProcessProvider:
    lifeline = inherited_descriptor()
    return ProcessProvider(
        _worker_command(deployment),
        records_dir=deployment.state_dir / "launches",
        logs_dir=deployment.state_dir.parent / "logs",
        clock=clock,
        working_dir=deployment.project_dir,
        inherited=() if lifeline is None else (lifeline,),
    )


def _worker_command(deployment: _Deployment) -> WorkerCommand:
    return dtf_worker_command(
        deployment.server, str(deployment.token_file.absolute()), deployment.settings_arguments
    )
