"""An SSH provider over real sshds, and what a test does behind its back."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from dtf.adapters.kubernetes_objects import Owner
from dtf.adapters.ssh_provider import SshProvider
from dtf.adapters.ssh_script import directory_of
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import CapacityProvider, Instance, LaunchRequest, WorkerEnvironment
from dtf.settings.providers import SshSettings
from tests.ssh_daemon import SshDaemon, client_configuration

_numbers = count(1)


class SshBench:
    """An owner of its own, and a provider that launches `program` for it on four slots a host."""

    def __init__(
        self, daemons: list[SshDaemon], directory: Path, program: str, settings: SshSettings | None = None
    ) -> None:
        self.daemons = daemons
        self.directory = directory
        self.program = program
        self.owner = Owner("tests", f"test-{os.getpid()}-{next(_numbers)}", "local")
        self.settings = replace(
            settings or SshSettings(),
            hosts=(settings and settings.hosts) or {daemon.name: "slots=4" for daemon in daemons},
            configuration=str(client_configuration(daemons, directory / "ssh_config")),
            poll_seconds=0.2,
        )
        self.ssh_provider = self.new_provider()
        self.provider: CapacityProvider = self.ssh_provider

    def new_provider(self, *, environment: WorkerEnvironment | None = None) -> SshProvider:
        """Another provider of the same hosts."""
        return SshProvider(
            self.command,
            settings=self.settings,
            owner=self.owner,
            records_dir=self.directory / "records" / self.owner.namespace,
            clock=SystemClock(),
            environment=environment,
        )

    async def start(self) -> None:
        """Start the provider."""
        await self.ssh_provider.start()

    async def stop(self) -> None:
        """Leave nothing behind."""
        await self.ssh_provider.close()
        for daemon in self.daemons:
            for file in self.launches_of(daemon).glob("*/pid"):
                if not (file.parent / "exit").exists():
                    self.kill_process(int(file.read_text()))

    def launches_of(self, daemon: SshDaemon) -> Path:
        """Where a host has our launches."""
        return daemon.home / directory_of(self.settings.directory, self.owner)

    def command(self, request: LaunchRequest) -> Sequence[str]:
        """The program."""
        return [sys.executable, "-I", "-S", "-c", self.program]

    async def until_up(self, launch_id: str) -> None:
        """Return when its process has said so."""
        logs = [self.launches_of(daemon) / launch_id / "log" for daemon in self.daemons]
        while not any(log.exists() and "up" in log.read_text() for log in logs):
            await asyncio.to_thread(logs[0].exists)

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        self.kill_process(process_of(instance))

    def kill_process(self, process_id: int) -> None:
        """End a process with signal 9."""
        try:
            os.kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            return


def process_of(instance: Instance) -> int:
    """Its process."""
    return int(instance.handle.split()[1])
