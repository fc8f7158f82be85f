"""A Google Cloud provider over an API of the tests, and what a test does behind its back."""

from collections.abc import Mapping
from dataclasses import replace

from dtf.adapters.cloud_bootstrap import OUTCOME, Boot
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.gcp_cloud import GcpCloud
from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.system_clock import SystemClock
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import CapacityProvider, Instance, LaunchRequest
from dtf.settings.providers import GcpSettings
from tests.ec2_bench import KILLED, name_of
from tests.gcp_server import ZONES, GcpServer

OWNER = Owner(cluster="Tests.1", namespace="default", pool="local")
SETTINGS = GcpSettings(
    project="tests", zone=ZONES[0], machine_type="e2-standard-4", image="projects/p/global/images/family/dtf"
)


class GcpBench:
    """A project of its own."""

    def __init__(self, server: GcpServer, settings: GcpSettings = SETTINGS) -> None:
        self.server = server
        self.settings = replace(settings, endpoint_url=server.endpoint)
        self.gcp = self.new_provider()
        self.provider: CapacityProvider = self.gcp

    async def start(self) -> None:
        """Start the provider."""
        await self.gcp.start()

    async def stop(self) -> None:
        """Let go of the server."""
        await self.gcp.close()

    def new_provider(self, owner: Owner = OWNER, *, console_seconds: float = 20.0) -> CloudProvider:
        """Another provider of the same settings."""
        return CloudProvider(
            GcpCloud(self.settings, owner),
            worker_command(["dtf"]),
            boot=Boot("gcp", self.settings.setup),
            clock=SystemClock(),
            environment=self.environment,
            poll_seconds=0.02,
            console_seconds=console_seconds,
        )

    def environment(self, request: LaunchRequest) -> Mapping[str, str]:
        """How it joins."""
        return {"DTF_JOIN_TOKEN": "dtfjoin1_1"}

    async def kill(self, instance: Instance) -> None:
        """Its worker is killed with signal 9, so that it says so and shuts down."""
        console = f"[  31.4] startup-script: up\n{OUTCOME} {instance.launch_id} {KILLED} \n"
        self.server.set_status(name_of(instance), "TERMINATED", console=console)
