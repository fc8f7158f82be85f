"""A provider over a cloud of the tests, and what a test does behind its back."""

from collections.abc import Callable, Mapping

from dtf.adapters.cloud_bootstrap import OUTCOME, Boot
from dtf.adapters.cloud_machines import Cloud
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.system_clock import SystemClock
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import CapacityProvider, Instance, LaunchRequest

OWNER = Owner(cluster="Tests.1", namespace="default", pool="local")
KILLED = 137


class CloudBench:
    """A cloud with a provider of its own; the benches of the clouds add how a machine ends there."""

    def __init__(self, new_cloud: Callable[[Owner], Cloud], *, boot: Boot, owner: Owner = OWNER) -> None:
        self.owner = owner
        self.tokens = 0
        self._new_cloud = new_cloud
        self._boot = boot
        self._cloud_provider = self.new_provider()
        self.provider: CapacityProvider = self._cloud_provider

    async def start(self) -> None:
        """Start the provider."""
        await self._cloud_provider.start()

    async def stop(self) -> None:
        """Let go of the server."""
        await self._cloud_provider.close()

    def new_provider(self, owner: Owner | None = None, *, console_seconds: float = 20.0) -> CloudProvider:
        """Another provider of the same settings."""
        return CloudProvider(
            self._new_cloud(owner or self.owner),
            worker_command(["dtf"]),
            boot=self._boot,
            clock=SystemClock(),
            environment=self.environment,
            poll_seconds=0.02,
            console_seconds=console_seconds,
        )

    def environment(self, request: LaunchRequest) -> Mapping[str, str]:
        """Another token each time, as from a coordinator."""
        self.tokens += 1
        return {"DTF_JOIN_TOKEN": f"dtfjoin1_{self.tokens}"}


def console_of_killed(instance: Instance) -> str:
    """What a machine writes whose worker was killed with signal 9."""
    return f"[  31.4] cloud-init[711]: up\n{OUTCOME} {instance.launch_id} {KILLED} \n"


def name_of(instance: Instance) -> str:
    """What its cloud calls it."""
    return instance.handle.rpartition(" ")[2]
