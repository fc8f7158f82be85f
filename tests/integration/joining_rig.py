"""A coordinator that serves TLS by an authority of its own, and workers that join it by tokens."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from dtf.adapters.certificates import OwnAuthority, OwnCertificates
from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2, token_service_pb2
from dtf.cli.reserved_port import ReservedPort
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from dtf.rpc.addresses import names_of_machine
from dtf.rpc.channel import Peer
from dtf.rpc.invitation import Invitation, parse_invitation
from dtf.rpc.pinning import trusted_roots
from dtf.settings.model import CoordinatorSettings

OPERATORS_TOKEN = "the-operators-token"
PATIENCE_SECONDS = 90.0
SETTINGS = CoordinatorSettings(lease_seconds=600.0)
"""Scripted workers send no heartbeats, and a machine that is slow must not lose them."""


def address_beyond_loopback() -> str:
    """An address of this machine that is not loopback; skips the test where there is none."""
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family == socket.AF_INET and not entry.address.startswith("127."):
                return str(entry.address)
    pytest.skip("this machine has no address beyond loopback; joining from outside was left out")


@dataclass(slots=True)
class Cluster:
    """One coordinator after the other, on one log, with one authority."""

    directory: Path
    log: MemoryLog
    host: str = "127.0.0.1"
    address: str = ""
    has_tls: bool = True
    settings: CoordinatorSettings = SETTINGS
    coordinator: Coordinator | None = None
    _kept: ReservedPort | None = None

    @property
    def authority(self) -> OwnAuthority:
        """The authority of its certificates."""
        return OwnAuthority(self.directory / "tls", SystemClock())

    async def start(self) -> None:
        """Start it, or start it anew at the same address."""
        clock = SystemClock()
        if not self.address:
            self._kept = ReservedPort(f"{self.host}:0")
            self.address = self._kept.address
        listen = self.address
        certificates = OwnCertificates(self.authority, "coordinator", lambda: names_of_machine(listen), clock)
        self.coordinator = Coordinator(
            replace(self.settings, listen=listen),
            log=self.log,
            telemetry=MemoryRecords(),
            scaling=MemoryRecords(),
            blobs=FileBlobStore(self.directory / "blobs"),
            clock=clock,
            token=OPERATORS_TOKEN,
            certificates=certificates if self.has_tls else None,
        )
        await self.coordinator.start()

    async def stop(self) -> None:
        """Stop it; the log and the address stay."""
        if self.coordinator is not None:
            await self.coordinator.stop()
            self.coordinator = None

    async def close(self) -> None:
        """Stop it, and let its address go."""
        await self.stop()
        if self._kept is not None:
            self._kept.release()

    @property
    def peer(self) -> Peer:
        """How an operator calls it."""
        authority = str(self.authority.certificate_file) if self.has_tls else ""
        return Peer((self.address,), OPERATORS_TOKEN, authority)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """An operator's client."""
        async with Client(self.peer) as client:
            yield client

    async def issue(self, **fields: object) -> str:
        """The text of a new token."""
        async with self.client() as client:
            request = token_service_pb2.IssueTokenRequest(**{"pool": "local", **fields})  # type: ignore[arg-type]
            return (await client.tokens.make(request)).text

    def events(self, kind: str) -> Iterator[events_pb2.Event]:
        """Events of one kind, in the order of the log."""
        for stored in self.log.commits:
            for event in events_pb2.Commit.FromString(stored.payload).events:
                if event.WhichOneof("event") == kind:
                    yield event


def joining_peer(text: str) -> tuple[Invitation, Peer]:
    """What a worker with this token has in its hands."""
    invitation = parse_invitation(text)
    roots = trusted_roots(invitation.addresses, invitation.trust)
    peer = Peer(
        invitation.addresses, invitation.credential, roots=roots, server_name=invitation.trust.server_name
    )
    return invitation, peer


class OutsideWorker:
    """A `dtf worker` process in a directory of its own, which knows a token and nothing else."""

    def __init__(self, directory: Path, *options: str, variable: str = "") -> None:
        directory.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DTF_")}
        if variable:
            environment["DTF_JOIN_TOKEN"] = variable
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dtf.cli.main", "worker", *options],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    async def ready(self) -> str:
        """Its identity, once its session is open."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, (await self.end())[1]
        return str(json.loads(line)["worker_id"])

    def traces(self, name: str) -> str:
        """What /proc shows of it: its cmdline or its environ."""
        return Path(f"/proc/{self.process.pid}/{name}").read_text(errors="replace")

    async def end(self) -> tuple[int, str]:
        """Its exit code and what it wrote to standard error."""
        _, errors = await asyncio.to_thread(self.process.communicate, None, PATIENCE_SECONDS)
        return self.process.returncode, errors.decode()

    def close(self) -> None:
        """kill -9 it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    clock = SystemClock()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await clock.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"did not happen: {what}") from None
