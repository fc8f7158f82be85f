"""A Slurm provider over a real Slurm, and what a test does behind its back."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import psutil

from dtf.adapters.kubernetes_objects import LAUNCH_VARIABLE, Owner
from dtf.adapters.slurm_commands import SlurmCommands
from dtf.adapters.slurm_provider import SlurmProvider
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import CapacityProvider, Instance, InstanceState, LaunchRequest, WorkerEnvironment
from dtf.settings.providers import SlurmSettings
from tests.slurm_cluster import SlurmCluster

_numbers = count(1)


class SlurmBench:
    """An owner of its own, and a provider that launches `program` for it."""

    def __init__(self, cluster: SlurmCluster, program: str, settings: SlurmSettings | None = None) -> None:
        self.cluster = cluster
        self.program = program
        self.owner = Owner("tests", f"test-{os.getpid()}-{next(_numbers)}", "local")
        self.logs = cluster.logs / self.owner.namespace
        self.settings = replace(
            settings or SlurmSettings(), configuration=str(cluster.configuration), poll_seconds=0.2
        )
        self.slurm_provider = self.new_provider()
        self.provider: CapacityProvider = self.slurm_provider

    def new_provider(
        self, *, environment: WorkerEnvironment | None = None, patience_seconds: float = 20.0
    ) -> SlurmProvider:
        """Another provider of the same jobs."""
        clock = SystemClock()
        return SlurmProvider(
            self.command,
            settings=self.settings,
            owner=self.owner,
            logs_dir=self.logs,
            clock=clock,
            environment=environment,
            working_dir=self.cluster.directory,
            commands=SlurmCommands(self.settings, clock, patience_seconds=patience_seconds),
        )

    async def start(self) -> None:
        """Start the provider."""
        await self.slurm_provider.start()

    async def stop(self) -> None:
        """Leave no job behind."""
        for instance in await self.slurm_provider.list_instances():
            if instance.state is InstanceState.RUNNING:
                await self.run("scancel", instance.handle.split()[-1])
        await self.slurm_provider.close()

    def command(self, request: LaunchRequest) -> Sequence[str]:
        """The program."""
        return [sys.executable, "-I", "-S", "-c", self.program]

    async def run(self, program: str, *arguments: str, script: str = "") -> str:
        """What a program of Slurm's wrote."""
        return await asyncio.to_thread(self.cluster.run, program, *arguments, script=script)

    async def until_up(self, launch_id: str) -> None:
        """Return when its process has said so."""
        log = self.logs / f"worker-{launch_id}.log"
        while not log.exists() or "up" not in log.read_text():
            await asyncio.to_thread(log.exists)

    async def kill(self, instance: Instance) -> None:
        """End an instance with signal 9."""
        (await self.process_of(instance)).kill()

    async def process_of(self, instance: Instance) -> psutil.Process:
        """Its process, once it runs."""
        job_id = instance.handle.split()[-1]
        async with asyncio.timeout(80):
            while True:
                for process in await asyncio.to_thread(_workers, instance.launch_id):
                    if _job_of(process) == job_id:
                        return process


def _workers(launch_id: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter() if _environment(each).get(LAUNCH_VARIABLE) == launch_id]


def _job_of(process: psutil.Process) -> str:
    environment = _environment(process)
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        return f"{environment.get('SLURM_ARRAY_JOB_ID')}_{task}"
    return environment.get("SLURM_JOB_ID", "")


def _environment(process: psutil.Process) -> Mapping[str, str]:
    try:
        variables: Mapping[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return variables
