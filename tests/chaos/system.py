"""The whole system on one machine: broker, two coordinators, pool, analyzer, with what disturbs them between.

    clients ──(client-a, client-b)──▶ coordinator-a ──(broker-a)──▶ nats-server
    workers ──(worker-a, worker-b)──▶ coordinator-b ──(broker-b)──▶ nats-server

The names in parentheses are links that can be cut. The broker's store and coordinator-a's state lie on
a disk of their own; coordinators and workers each have a wall clock of their own. What the machine
cannot give (`Means`) is left out, and named.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from dtf.adapters.nats_server import NatsServer
from dtf.adapters.process_provider import LaunchRecord
from dtf.cli.lifeline import VARIABLE, Lifeline
from dtf.cli.reserved_port import ReservedPort
from dtf.client.client import Client
from dtf.client.connect import peer
from dtf.ports.clock import Clock
from dtf.rpc.channel import Peer
from dtf.settings.loader import dump_settings, without_settings
from dtf.settings.model import (
    AnalyzerSettings,
    CoordinatorSettings,
    NatsSettings,
    PoolSettings,
    RunSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)
from dtf.settings.project import make_private_dir, write_private
from tests.chaos.clocks import SkewedClock, build_shim, find_compiler
from tests.chaos.disk import OwnDisk, in_namespace, why_no_disk
from tests.chaos.members import AnyMember, Broker, Member
from tests.chaos.proxies import Proxies, find_toxiproxy

COORDINATORS = ("coordinator-a", "coordinator-b")
START_SECONDS = 90.0
LEASE_SECONDS = 2.0
"""Of a worker: what a fault may outlive or not."""

SNAPSHOT_EVENTS = 3_000
"""So that a round has snapshots, and starts from them."""


@dataclass(frozen=True, slots=True)
class Means:
    """What this machine gives the faults; an empty path or a reason stands for what it does not."""

    toxiproxy: Path | None
    compiler: Path | None
    no_disk: str
    """Why there is no disk of our own; "" if there is one."""

    @classmethod
    def find(cls) -> "Means":
        """What is there."""
        no_disk = why_no_disk() or ("" if in_namespace() else "needs a mount namespace of its own")
        return cls(find_toxiproxy(), find_compiler(), no_disk)


class System:
    """One system in a directory. `start` it; `running` keeps its processes up."""

    def __init__(self, directory: Path, means: Means, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.logs = make_private_dir(directory / "logs")
        self.journals = make_private_dir(directory / "journals")
        self._secrets = make_private_dir(directory / "secrets")
        self._token_file = self._secrets / "token"
        write_private(self._token_file, secrets.token_urlsafe(32) + "\n")
        self._lifeline = Lifeline()
        self._means = means
        self.disk = None if means.no_disk else OwnDisk(directory)
        self.proxies = Proxies(means.toxiproxy, clock) if means.toxiproxy else None
        self.clocks: dict[str, SkewedClock] = {}
        if means.compiler is not None:
            shim = build_shim(means.compiler, directory)
            for group in ("coordinators", "workers"):
                self.clocks[group] = SkewedClock(shim, directory / f"clock-{group}")
        self._ports = {name: ReservedPort("127.0.0.1:0") for name in (*COORDINATORS, "trend-analyzer")}
        self._links: dict[str, str] = {}
        self.members: dict[str, Member] = {}
        self._ending: dict[str, int] = {}
        """How often a member had ended before it was told to."""
        self.broker: Broker

    # -- start and end

    @asynccontextmanager
    async def running(self) -> AsyncIterator["System"]:
        """All of it up, and down again at the end."""
        async with AsyncExitStack() as stack:
            if self.disk is not None:
                self.disk.mount()
                stack.callback(self.disk.unmount)
            server = NatsServer(
                self.store_dir, self._secrets / "nats", log_file=self.logs / "nats-server.log"
            )
            self.broker = Broker(server, self.clock)
            stack.push_async_callback(self._lifeline.end, START_SECONDS)
            if self.proxies is not None:
                await self.proxies.start(self.logs / "toxiproxy.log")
                stack.push_async_callback(self.proxies.stop)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [group.create_task(self.broker.run())]
            stack.callback(lambda: [task.cancel() for task in tasks])
            async with asyncio.timeout(START_SECONDS):
                await self.broker.ready.wait()
                await self._make_links()
                for name in ("coordinator-a", "coordinator-b", "resource-manager", "trend-analyzer"):
                    self.members[name] = self._member(name)
                tasks += [group.create_task(member.run()) for member in self.members.values()]
                await self.settled()
            yield self

    def must_end(self, member: AnyMember) -> None:
        """Its process is about to be told to end: nothing is settled before it has."""
        if member.ready.is_set():
            self._ending[member.name] = len(member.exit_codes)

    async def settled(self) -> None:
        """Every process that was to end has, and every process is there and has said that it is ready."""
        for member in self.everyone():
            before = self._ending.pop(member.name, -1)
            while len(member.exit_codes) <= before:
                await self.clock.sleep(0.02)
            await member.ready.wait()

    def everyone(self) -> Iterator[AnyMember]:
        """The broker and the members."""
        yield self.broker
        yield from self.members.values()

    @property
    def store_dir(self) -> Path:
        """The broker's."""
        return (self.disk.mount_point if self.disk is not None else self.directory) / "nats"

    # -- who is who

    def coordinator_with(self, pid: int) -> Member | None:
        """The coordinator whose process has this id."""
        return next((self.members[name] for name in COORDINATORS if self.members[name].pid == pid), None)

    def worker_pids(self) -> list[int]:
        """Workers that the resource manager launched, and that it does not know to have ended."""
        found: list[int] = []
        for path in sorted((self.directory / "resource-manager" / "launches").rglob("*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=LaunchRecord)
            except (OSError, msgspec.MsgspecError):
                continue  # being replaced, or gone
            if record.process_id and not record.has_exited:
                found.append(record.process_id)
        return found

    def links(self, kind: str) -> list[str]:
        """Links of one kind: broker, worker or client."""
        return [name for name in self._links if name.startswith(kind)]

    # -- clients and tools

    def client(self) -> Client:
        """A client that knows both coordinators."""
        return Client(self.peer())

    def peer(self, only: str = "") -> Peer:
        """How to call the coordinators, or one of them."""
        addresses = self._links[f"client-{only[-1]}"] if only else self._servers("client")
        return peer(addresses, str(self._token_file))

    @property
    def nats(self) -> NatsSettings:
        """The broker, past the links."""
        return self._nats(self.broker.server.url)

    def dtf(self, name: str, *arguments: str) -> list[str]:
        """`dtf ARGUMENTS` with the settings of a member."""
        return self._command(name, *arguments)

    def environment(self, name: str) -> dict[str, str]:
        """What a member's process sees."""
        environment = without_settings(os.environ)
        environment[VARIABLE] = str(self._lifeline.descriptor)
        environment["DTF_JOURNAL"] = str(self.journals)
        clock = self._clock_of(name)
        return environment | (clock.environment if clock is not None else {})

    def _clock_of(self, name: str) -> SkewedClock | None:
        if name in COORDINATORS:
            return self.clocks.get("coordinators")
        return self.clocks.get("workers") if name == "resource-manager" else None

    # -- how it is put together

    async def _make_links(self) -> None:
        broker = self.broker.server.url.removeprefix("nats://")
        for name in COORDINATORS:
            letter = name[-1]
            wanted: Mapping[str, str] = {
                f"broker-{letter}": broker,
                f"worker-{letter}": self._ports[name].address,
                f"client-{letter}": self._ports[name].address,
            }
            for link, upstream in wanted.items():
                self._links[link] = (
                    await self.proxies.link(link, upstream) if self.proxies is not None else upstream
                )

    def _servers(self, kind: str) -> str:
        return ",".join(self._links[f"{kind}-{name[-1]}"] for name in COORDINATORS)

    def _nats(self, url: str) -> NatsSettings:
        return NatsSettings(
            url=url,
            credentials_file=str(self._secrets / "nats"),
            append_timeout_seconds=2.0,
            max_log_bytes=2**30,
        )

    def _member(self, name: str) -> Member:
        role = "coordinator" if name in COORDINATORS else name
        arguments = [role]
        if role == "coordinator":
            arguments.append("--standby")
        if role == "resource-manager":
            arguments += ["--state-dir", str(self.directory / "resource-manager")]
            arguments += ["--server", self._servers("worker"), "--token-file", str(self._token_file)]
        return Member(
            name,
            self._command(name, *arguments),
            environment=self.environment(name),
            log_file=self.logs / f"{name}.log",
            inherited=[self._lifeline.descriptor],
            clock=self.clock,
        )

    def _command(self, name: str, *arguments: str) -> list[str]:
        file = self.directory / f"settings-{name}.json"
        write_private(file, dump_settings(self._settings(name)))
        program = [sys.executable, "-P", "-m", "dtf.cli.main"]
        return [*program, "--project", str(self.directory), "--settings", str(file), *arguments]

    def _settings(self, name: str) -> Settings:
        token_file = str(self._token_file)
        settings = Settings(
            nats=self._nats(self.broker.server.url),
            coordinator=CoordinatorSettings(
                token_file=token_file,
                heartbeat_seconds=0.25,
                lease_seconds=LEASE_SECONDS,
                blob_dir=str(self.directory / "blobs"),
                state_dir=str(self.directory / name),
                snapshot_events=SNAPSHOT_EVENTS,
                kept_runs=3,
                run_grace_seconds=5.0,
                kept_gone_workers=3,
                worker_grace_seconds=5.0,
            ),
            worker=WorkerSettings(server=self._servers("worker"), token_file=token_file, slots=1, credits=8),
            pool=PoolSettings(min_workers=2, max_workers=3, slots=1),
            store=StoreSettings(path=str(self.directory / "metrics.duckdb")),
            analyzer=AnalyzerSettings(
                listen=self._ports["trend-analyzer"].address,
                server=self._ports["trend-analyzer"].address,
                token_file=token_file,
            ),
            run=RunSettings(server=self._servers("client"), token_file=token_file, workspace="tree"),
        )
        if name in COORDINATORS:
            return self._of_coordinator(settings, name)
        return settings

    def _of_coordinator(self, settings: Settings, name: str) -> Settings:
        link = self._links[f"broker-{name[-1]}"]
        state = self.directory / name
        if name == COORDINATORS[0] and self.disk is not None:
            state = self.disk.mount_point / name
        coordinator = replace(
            settings.coordinator,
            listen=self._ports[name].address,
            state_dir=str(make_private_dir(state)),
        )
        return replace(settings, coordinator=coordinator, nats=self._nats(f"nats://{link}"))


def tail(directory: Path, names: Sequence[str], characters: int = 2000) -> str:
    """The end of some logs, for messages."""
    return "\n".join(
        f"--- {path.name}\n{path.read_text(errors='replace')[-characters:]}"
        for path in sorted(directory.glob("*.log"))
        if path.stem in names or not names
    )
