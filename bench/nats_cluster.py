"""Several nats-servers on this machine as one cluster, with as many copies of every stream."""

import asyncio
import json
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from dtf.adapters.leader_bucket import LeaderBucket
from dtf.adapters.nats_binary import find_nats_server
from dtf.adapters.system_clock import SystemClock
from dtf.cli.reserved_port import ReservedPort
from dtf.ports.event_log import LogError
from dtf.ports.leader_lease import LeaseError
from dtf.settings.model import NatsSettings

READY_SECONDS = 60.0
STOP_SECONDS = 15.0


class NatsCluster:
    """The nodes. Use it as an async context manager."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        self._directory = directory
        self._clients = [ReservedPort("127.0.0.1:0") for _ in range(nodes)]
        self._routes = [ReservedPort("127.0.0.1:0") for _ in range(nodes)]
        self._secret = secrets.token_urlsafe(16)
        self.processes: list[asyncio.subprocess.Process] = []

    @property
    def settings(self) -> NatsSettings:
        """How to reach it."""
        return NatsSettings(
            url=",".join(f"nats://{port.address}" for port in self._clients),
            credentials_file=str(self._directory / "credentials"),
            replicas=len(self._clients),
        )

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, mode=0o700)
        (self._directory / "credentials").write_text(f"dtf:{self._secret}")
        (self._directory / "credentials").chmod(0o600)
        binary = await find_nats_server()
        for index in range(len(self._clients)):
            config = self._directory / f"node-{index}.conf"
            config.write_text(self._configuration(index))
            self.processes.append(
                await asyncio.create_subprocess_exec(
                    *(str(binary.path), "-c", str(config), "-l", str(self._directory / f"node-{index}.log"))
                )
            )
        await self._until_ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        for process in self.processes:
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        for port in (*self._clients, *self._routes):
            port.release()

    def _configuration(self, index: int) -> str:
        routes = [f"nats-route://{port.address}" for port in self._routes]
        return (
            f"server_name: node-{index}\n"
            f"listen: {self._clients[index].address}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self._directory / f'store-{index}'))}, "
            "sync_interval: always }\n"
            f"cluster {{ name: bench, listen: {self._routes[index].address}, routes: {json.dumps(routes)} }}\n"
            f'authorization {{ user: dtf, password: "{self._secret}" }}\n'
        )

    async def _until_ready(self) -> None:
        """Return when the nodes have a leader that makes streams."""
        bucket = LeaderBucket(self.settings, "ready")
        try:
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    try:
                        await bucket.read()
                        await bucket.enlist("bench")
                        return
                    except (LeaseError, LogError):
                        await SystemClock().sleep(0.2)
        finally:
            await bucket.close()
