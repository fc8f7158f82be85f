"""A trend analyzer on a log in memory, with a store under it and a client in front, for tests."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.memory_vault import MemoryVault
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import analysis_service_pb2 as pb
from dtf.api.v1 import analysis_service_pb2_grpc, events_pb2
from dtf.ports.clock import Clock
from dtf.ports.metric_store import MetricStore
from dtf.rpc.channel import Peer, open_channel
from dtf.settings.model import AnalyzerSettings
from dtf.settings.trends import TrendsSettings
from dtf.trend_analyzer.process import TrendAnalyzer
from dtf.trend_analyzer.reruns import Coordinator

TOKEN = "token-of-the-tests"
CALL_SECONDS = 180.0
"""Far above what a search takes: on a machine's first day numba compiles for 15 s of a processor that others use too."""


class Streams:
    """The three streams in memory; commits are appended as the coordinator would."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.telemetry = MemoryRecords()
        self.scaling = MemoryRecords()
        self.analysis = MemoryRecords()
        self.vault = MemoryVault()

    def append(self, commits: Sequence[events_pb2.Commit]) -> int:
        """Put commits into the log; return the last sequence."""
        for commit in commits:
            payload = commit.SerializeToString()
            self.log.inject(payload, hashlib.sha256(payload).hexdigest())
        return len(self.log.commits)


class AnalysisClient:
    """Calls of AnalysisService with the token and a timeout."""

    def __init__(self, stub: "analysis_service_pb2_grpc.AnalysisServiceAsyncStub", peer: Peer) -> None:
        self.stub = stub
        self.metadata = peer.metadata

    async def checkpoint(
        self, wait_for: int = 0, deadline_seconds: float = CALL_SECONDS
    ) -> pb.GetCheckpointResponse:
        """GetCheckpoint."""
        request = pb.GetCheckpointRequest(wait_for_sequence=wait_for)
        return await self.stub.GetCheckpoint(request, metadata=self.metadata, timeout=deadline_seconds)


@asynccontextmanager
async def analyzing(
    streams: Streams,
    store: MetricStore,
    clock: Clock | None = None,
    *,
    coordinator: Coordinator | None = None,
    trends: TrendsSettings | None = None,
) -> AsyncIterator[AnalysisClient]:
    """An analyzer that runs while the block does, and a client of it."""
    analyzer = TrendAnalyzer(
        AnalyzerSettings(),
        log=streams.log,
        telemetry=streams.telemetry,
        scaling=streams.scaling,
        analysis=streams.analysis,
        store=store,
        vault=streams.vault,
        clock=clock or SystemClock(),
        token=TOKEN,
        coordinator=coordinator,
        trends=trends,
    )
    async with analyzer, calling(analyzer.address) as client:
        yield client


@asynccontextmanager
async def calling(address: str, token: str = TOKEN) -> AsyncIterator[AnalysisClient]:
    """A client of the analyzer at an address."""
    peer = Peer((address,), token)
    async with open_channel(peer) as channel:
        yield AnalysisClient(analysis_service_pb2_grpc.AnalysisServiceStub(channel), peer)
