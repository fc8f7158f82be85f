"""A Google Cloud provider over an API of the tests, and what a test does behind its back."""

from dataclasses import replace

from dtf.adapters.cloud_bootstrap import Boot
from dtf.adapters.gcp_cloud import GcpCloud
from dtf.ports.capacity import Instance
from dtf.settings.providers import GcpSettings
from tests.cloud_bench import CloudBench, console_of_killed, name_of
from tests.gcp_server import ZONES, GcpServer

SETTINGS = GcpSettings(
    project="tests", zone=ZONES[0], machine_type="e2-standard-4", image="projects/p/global/images/family/dtf"
)


class GcpBench(CloudBench):
    """A project of its own."""

    def __init__(self, server: GcpServer, settings: GcpSettings = SETTINGS) -> None:
        self.server = server
        reached = replace(settings, endpoint_url=server.url)
        super().__init__(lambda owner: GcpCloud(reached, owner), boot=Boot("gcp", settings.setup))

    async def kill(self, instance: Instance) -> None:
        """Its worker is killed with signal 9, so that it says so and shuts down."""
        self.server.set_status(name_of(instance), "TERMINATED", console=console_of_killed(instance))
