"""An EC2 provider over moto, and what a test does behind its back."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from dtf.adapters.cloud_bootstrap import OUTCOME, Boot
from dtf.adapters.cloud_provider import CloudProvider
from dtf.adapters.ec2_cloud import Ec2Cloud
from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.system_clock import SystemClock
from dtf.adapters.worker_command import worker_command
from dtf.ports.capacity import CapacityProvider, Instance, LaunchRequest
from dtf.settings.providers import Ec2Settings
from tests.ec2_server import REGION, Ec2Server

_clusters = count(1)
SETTINGS = Ec2Settings(region=REGION, image="ami-12345678", instance_type="m7i.large")
KILLED = 137
SHUTDOWN = "Client.InstanceInitiatedShutdown"


class Ec2Bench:
    """An installation of dtf of its own in the session's EC2."""

    def __init__(self, server: Ec2Server, settings: Ec2Settings = SETTINGS) -> None:
        self.server = server
        self.settings = replace(settings, endpoint_url=server.endpoint)
        self.owner = Owner(cluster=f"tests-{next(_clusters)}", namespace="default", pool="local")
        self.ec2 = self.new_provider()
        self.provider: CapacityProvider = self.ec2
        self.tokens = 0

    async def start(self) -> None:
        """Start the provider."""
        await self.ec2.start()

    async def stop(self) -> None:
        """Let go of the server."""
        await self.ec2.close()

    def new_provider(self, owner: Owner | None = None, *, console_seconds: float = 20.0) -> CloudProvider:
        """Another provider of the same settings."""
        return CloudProvider(
            Ec2Cloud(self.settings, owner or self.owner),
            worker_command(["dtf"]),
            boot=Boot("aws", self.settings.setup),
            clock=SystemClock(),
            environment=self.environment,
            poll_seconds=0.02,
            console_seconds=console_seconds,
        )

    def environment(self, request: LaunchRequest) -> Mapping[str, str]:
        """Another token each time, as from a coordinator."""
        self.tokens += 1
        return {"DTF_JOIN_TOKEN": f"dtfjoin1_{self.tokens}"}

    async def kill(self, instance: Instance) -> None:
        """Its worker is killed with signal 9, so that it says so and shuts down."""
        console = f"[  31.4] cloud-init[711]: up\n{OUTCOME} {instance.launch_id} {KILLED} \n"
        await self.end(instance, SHUTDOWN, console=console)

    async def end(self, instance: Instance, code: str, message: str = "", *, console: str = "") -> None:
        """It is terminated, for this reason."""
        await asyncio.to_thread(self.server.end, name_of(instance), code, message, console=console)


def account(server: Ec2Server) -> Any:
    """A client for what a test makes in its account."""
    import boto3

    return boto3.client("ec2", region_name=REGION, endpoint_url=server.endpoint)


def name_of(instance: Instance) -> str:
    """What EC2 calls it."""
    return instance.handle.rpartition(" ")[2]
