"""An EC2 provider over moto, and what a test does behind its back."""

import asyncio
from dataclasses import replace
from itertools import count
from typing import Any

from dtf.adapters.cloud_bootstrap import Boot
from dtf.adapters.ec2_cloud import Ec2Cloud
from dtf.adapters.kubernetes_objects import Owner
from dtf.ports.capacity import Instance
from dtf.settings.providers import Ec2Settings
from tests.cloud_bench import CloudBench, console_of_killed, name_of
from tests.ec2_server import REGION, Ec2Server

_clusters = count(1)
SETTINGS = Ec2Settings(region=REGION, image="ami-12345678", instance_type="m7i.large")
SHUTDOWN = "Client.InstanceInitiatedShutdown"


class Ec2Bench(CloudBench):
    """An installation of dtf of its own in the session's EC2."""

    def __init__(self, server: Ec2Server, settings: Ec2Settings = SETTINGS) -> None:
        self.server = server
        reached = replace(settings, endpoint_url=server.endpoint)
        super().__init__(
            lambda owner: Ec2Cloud(reached, owner),
            boot=Boot("aws", settings.setup),
            owner=Owner(cluster=f"tests-{next(_clusters)}", namespace="default", pool="local"),
        )

    async def kill(self, instance: Instance) -> None:
        """Its worker is killed with signal 9, so that it says so and shuts down."""
        await self.end(instance, SHUTDOWN, console=console_of_killed(instance))

    async def end(self, instance: Instance, code: str, message: str = "", *, console: str = "") -> None:
        """It is terminated, for this reason."""
        await asyncio.to_thread(self.server.end, name_of(instance), code, message, console=console)


def account(server: Ec2Server) -> Any:
    """A client for what a test makes in its account."""
    import boto3

    return boto3.client("ec2", region_name=REGION, endpoint_url=server.endpoint)
