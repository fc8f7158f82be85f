"""An Azure provider over an API of the tests, and what a test does behind its back."""

import gc
import warnings
from dataclasses import replace

from dtf.adapters.azure_cloud import AzureCloud
from dtf.adapters.cloud_bootstrap import Boot
from dtf.ports.capacity import Instance
from dtf.settings.providers import AzureSettings
from tests.azure_server import GROUP, SUBSCRIPTION, AzureServer
from tests.cloud_bench import CloudBench, console_of_killed, name_of

SETTINGS = AzureSettings(
    subscription=SUBSCRIPTION,
    resource_group=GROUP,
    location="westeurope",
    vm_size="Standard_D4s_v5",
    image="Debian:debian-12:12-gen2:latest",
    subnet=f"/subscriptions/{SUBSCRIPTION}/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/n/subnets/w",
)


class AzureBench(CloudBench):
    """A resource group of its own."""

    def __init__(self, server: AzureServer, settings: AzureSettings = SETTINGS) -> None:
        self.server = server
        reached = replace(settings, endpoint_url=server.url)
        super().__init__(
            lambda owner: AzureCloud(reached, owner, launch_poll_seconds=0.01),
            boot=Boot("azure", settings.setup),
        )

    async def kill(self, instance: Instance) -> None:
        """Its worker is killed with signal 9, so that it says so and shuts down."""
        self.server.set_power(name_of(instance), "stopped", console=console_of_killed(instance))

    async def stop(self) -> None:
        """Let go of the server, and of the sockets that Azure's library leaves to the garbage collector."""
        await super().stop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
