"""Where the workers of a pool come from: `pool.provider` as an adapter. Each is imported when it is used.

Workers of this machine are told where the coordinator is and which token to show. Workers elsewhere
join by a token of their own launch, which is spent when they register (docs/joining.md).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio

from dtf.adapters.process_provider import ProcessProvider, dtf_worker_command
from dtf.adapters.worker_command import worker_command
from dtf.cli.errors import CommandError
from dtf.cli.exit_codes import ExitCode
from dtf.cli.joining import TOKEN_VARIABLE
from dtf.cli.lifeline import inherited_descriptor
from dtf.client.join_tokens import JoinTokens
from dtf.ports.capacity import CapacityProvider, LaunchRequest, ProviderError
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogUnavailable
from dtf.resource_manager.fleet import REQUESTER
from dtf.resource_manager.managed_pool import ManagedPool
from dtf.resource_manager.process import resolve_policy
from dtf.settings.model import Settings

FIRST_COMMIT_SECONDS = 0.5
"""Between looks for the first commit of a new log."""
CLUSTER_ID_LENGTH = 16
TOKEN_SECONDS = 900.0
"""A worker that is launched joins within so long, unless it waits for a turn first."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a resource manager works."""

    clock: Clock
    cluster: str
    """The installation of dtf, in what providers label."""
    server: str
    token_file: Path
    worker_options: Sequence[str]
    """Global options of `dtf` that workers of this machine are given too."""
    project_dir: Path
    state_dir: Path
    tokens: JoinTokens
    processors: int
    children: list[Callable[[], frozenset[int]]] = field(default_factory=list)
    """Process ids of workers that are children of this process, by provider."""

    def child_ids(self) -> frozenset[int]:
        """Process ids of all workers that are children of this process."""
        return frozenset().union(*(ids() for ids in self.children))

    async def join(self, request: LaunchRequest, expires_seconds: float = TOKEN_SECONDS) -> Mapping[str, str]:
        """The variables by which a worker elsewhere joins. Raises ProviderError."""
        try:
            token = await self.tokens.issue(
                pool=request.pool,
                launch_id=request.launch_id,
                expires_seconds=expires_seconds,
                issued_by=REQUESTER,
            )
        except grpc.aio.AioRpcError as error:
            raise ProviderError(
                f"no join token could be had for {request.launch_id}: {error.details()}"
            ) from error
        return {TOKEN_VARIABLE: token}


def make_pool(settings: Settings, site: Site) -> ManagedPool:
    """The pool of `settings` with its provider, which is not started yet. Raises CommandError."""
    pool = settings.pool
    if pool.provider not in _MAKERS:
        raise CommandError(
            f"this version of dtf has no provider {pool.provider!r}",
            f"it has {', '.join(_MAKERS)}",
            exit_code=ExitCode.USAGE,
        )
    provider, start = _MAKERS[pool.provider](settings, site)
    return ManagedPool(
        resolve_policy(pool, site.processors),
        provider,
        start=start,
        cpus=pool.cpus,
        memory_bytes=pool.memory_bytes,
        gpus=pool.gpus,
        is_spot=pool.is_spot,
        quarantine_ratio=pool.quarantine_ratio,
        probation_seconds=pool.probation_seconds,
    )


async def cluster_of(log: EventLog, clock: Clock) -> str:
    """The installation that a log is of: named after its first commit, which there is once a coordinator leads."""
    while True:
        first = ""
        try:
            async for batch in log.read(0, 1):
                first = first or batch[0].message_id
        except LogUnavailable:
            pass  # whoever follows the log says so
        if first:
            return first[:CLUSTER_ID_LENGTH]
        await clock.sleep(FIRST_COMMIT_SECONDS)


_Made = tuple[CapacityProvider, Callable[[], Awaitable[None]]]


def _process(settings: Settings, site: Site) -> _Made:
    lifeline = inherited_descriptor()
    provider = ProcessProvider(
        dtf_worker_command(site.server, str(site.token_file.absolute()), site.worker_options),
        records_dir=site.state_dir / "launches" / settings.pool.name,
        logs_dir=site.state_dir.parent / "logs",
        clock=site.clock,
        working_dir=site.project_dir,
        inherited=() if lifeline is None else (lifeline,),
    )
    site.children.append(lambda: provider.child_ids)
    return provider, provider.start


def _kubernetes(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.kubernetes_objects import Owner
    from dtf.adapters.kubernetes_provider import KubernetesProvider

    provider = KubernetesProvider(
        worker_command(["dtf"]),
        settings=settings.kubernetes,
        owner=Owner(site.cluster, settings.coordinator.namespace, settings.pool.name),
        clock=site.clock,
        environment=site.join,
    )
    return provider, provider.start


def _slurm(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.kubernetes_objects import Owner
    from dtf.adapters.slurm_provider import SlurmProvider, slurm_worker_command

    expires_seconds = TOKEN_SECONDS + settings.slurm.pending_patience_seconds
    provider = SlurmProvider(
        slurm_worker_command(settings.slurm),
        settings=settings.slurm,
        owner=Owner(site.cluster, settings.coordinator.namespace, settings.pool.name),
        logs_dir=site.state_dir.parent / "logs",
        clock=site.clock,
        environment=lambda request: site.join(request, expires_seconds),
        working_dir=site.project_dir,
    )
    return provider, provider.start


def _ssh(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.kubernetes_objects import Owner
    from dtf.adapters.ssh_provider import SshProvider, ssh_worker_command

    provider = SshProvider(
        ssh_worker_command(settings.ssh),
        settings=settings.ssh,
        owner=Owner(site.cluster, settings.coordinator.namespace, settings.pool.name),
        records_dir=site.state_dir / "launches" / settings.pool.name,
        clock=site.clock,
        environment=site.join,
    )
    return provider, provider.start


def _ec2(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.ec2_cloud import ec2_provider
    from dtf.adapters.kubernetes_objects import Owner

    owner = Owner(site.cluster, settings.coordinator.namespace, settings.pool.name)
    provider = ec2_provider(settings.ec2, owner, clock=site.clock, environment=site.join)
    return provider, provider.start


def _gcp(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.gcp_cloud import gcp_provider
    from dtf.adapters.kubernetes_objects import Owner

    owner = Owner(site.cluster, settings.coordinator.namespace, settings.pool.name)
    provider = gcp_provider(settings.gcp, owner, clock=site.clock, environment=site.join)
    return provider, provider.start


def _azure(settings: Settings, site: Site) -> _Made:
    from dtf.adapters.azure_cloud import azure_provider
    from dtf.adapters.kubernetes_objects import Owner

    owner = Owner(site.cluster, settings.coordinator.namespace, settings.pool.name)
    provider = azure_provider(settings.azure, owner, clock=site.clock, environment=site.join)
    return provider, provider.start


_MAKERS: Mapping[str, Callable[[Settings, Site], _Made]] = {
    "process": _process,
    "kubernetes": _kubernetes,
    "ec2": _ec2,
    "gcp": _gcp,
    "azure": _azure,
    "slurm": _slurm,
    "ssh": _ssh,
}
