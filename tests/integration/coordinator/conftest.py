"""A coordinator on a log in memory, a client, and workers that do as told."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.client.client import Client
from dtf.coordinator.process import Coordinator
from dtf.coordinator.reign import replay
from dtf.core.chain import ChainReader
from dtf.core.run.invariants import check
from dtf.core.run.state import State
from dtf.core.run.state_hash import state_hash
from dtf.rpc.channel import Peer
from tests.coordinators import peer_of, running_coordinator
from tests.integration.coordinator.rig import Crew
from tests.scripted_worker import ScriptedWorker


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def telemetry() -> MemoryRecords:
    return MemoryRecords()


@pytest.fixture
def scaling() -> MemoryRecords:
    return MemoryRecords()


@pytest_asyncio.fixture
async def coordinator(
    log: MemoryLog, telemetry: MemoryRecords, scaling: MemoryRecords, tmp_path: Path
) -> AsyncIterator[Coordinator]:
    """A coordinator whose log must replay, sound, to the state it ended with."""
    async with running_coordinator(log, tmp_path, telemetry=telemetry, scaling=scaling) as running:
        yield running
        await running.desk.writer.settled()
        assert check(running.desk.state) == []
        folded = State()
        await replay(log, folded, ChainReader())
        assert state_hash(folded) == state_hash(running.desk.state)


@pytest.fixture
def peer(coordinator: Coordinator) -> Peer:
    return peer_of(coordinator)


@pytest_asyncio.fixture
async def client(peer: Peer) -> AsyncIterator[Client]:
    async with Client(peer) as connected:
        yield connected


@pytest_asyncio.fixture
async def workers(peer: Peer) -> AsyncIterator[Crew]:
    """Workers that do as told, as many as are hired."""
    async with AsyncExitStack() as stack:
        yield Crew(peer, stack)


@pytest_asyncio.fixture
async def worker(workers: Crew) -> ScriptedWorker:
    """One worker, attached."""
    return await workers.hire()


@pytest_asyncio.fixture
async def channel(coordinator: Coordinator) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without limits or manners."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(coordinator.address, options=options) as opened:
        yield opened
