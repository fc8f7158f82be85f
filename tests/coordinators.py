"""Coordinators for tests: in this process on a log in memory, with the services over real gRPC."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from dtf.adapters.file_blobs import FileBlobStore
from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.coordinator.process import NO_LIMITS, Coordinator
from dtf.ports.blob_store import BlobStore
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog
from dtf.ports.leader_lease import LeaderLease
from dtf.ports.spool import CommitSpool
from dtf.rpc.channel import Peer
from dtf.settings.blobs import BlobSettings
from dtf.settings.model import CoordinatorSettings

TOKEN = "a-token-for-tests"
SETTINGS = CoordinatorSettings(listen="127.0.0.1:0", namespace="test")
PATIENT = replace(SETTINGS, lease_seconds=600.0)
"""On the machine's clock: scripted workers send no heartbeats, and a machine that is slow must not lose them."""


def peer_of(coordinator: Coordinator) -> Peer:
    """How to call a coordinator."""
    return Peer((coordinator.address,), TOKEN)


@asynccontextmanager
async def running_coordinator(
    log: EventLog,
    blob_dir: Path,
    *,
    settings: CoordinatorSettings | None = None,
    telemetry: MemoryRecords | None = None,
    scaling: MemoryRecords | None = None,
    clock: Clock | None = None,
    blobs: BlobStore | None = None,
    blob_rules: BlobSettings = NO_LIMITS,
    lease: LeaderLease | None = None,
    spool: CommitSpool | None = None,
    is_standby: bool = False,
) -> AsyncIterator[Coordinator]:
    """A coordinator that leads and listens on a free port; `is_standby`: once it is its turn."""
    coordinator = Coordinator(
        settings or (PATIENT if clock is None else SETTINGS),
        log=log,
        telemetry=telemetry or MemoryRecords(),
        scaling=scaling or MemoryRecords(),
        blobs=blobs or FileBlobStore(blob_dir),
        clock=clock or SystemClock(),
        token=TOKEN,
        blob_rules=blob_rules,
        lease=lease,
        spool=spool,
    )
    await coordinator.start((lambda _address: None) if is_standby else None)
    try:
        yield coordinator
    finally:
        await coordinator.stop()


def create_request(request_id: str = "a", **fields: object) -> run_service_pb2.CreateRunRequest:
    """A run with one template that calls a function."""
    return run_service_pb2.CreateRunRequest(
        request_id=request_id,
        suite="suite",
        templates=[
            common_pb2.TaskTemplate(
                callable=common_pb2.CallableSpec(function="module:function"),
                retry=common_pb2.RetryPolicy(infrastructure_retries=1),
            )
        ],
        **fields,  # type: ignore[arg-type]  # a test's own fields
    )


def tasks(count: int, prefix: str = "task") -> list[common_pb2.TaskSpec]:
    """Tasks with one case each."""
    return [common_pb2.TaskSpec(name=f"{prefix}-{index}") for index in range(count)]


def verified(log: MemoryLog) -> int:
    """Read the whole log as a chain; how many commits it has. Raises ChainBroken."""
    from dtf.core.chain import ChainReader

    chain = ChainReader()
    for stored in log.commits:
        chain.accept(stored.sequence, stored.payload, stored.message_id)
    return chain.commit_count
