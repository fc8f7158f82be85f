"""Clients without manners: stream beside stream, each with a large message, as fast as they can."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import psutil

from bench.bench_stack import BenchStack
from bench.throughput_ours import start
from dtf.api.v1 import common_pb2, run_service_pb2, run_service_pb2_grpc
from dtf.client.client import Client
from dtf.rpc.channel import Peer, open_channel, parse_addresses
from dtf.rpc.errors import parse

TASKS_A_MESSAGE = 48
PAYLOAD_BYTES = 16_000
STREAMS_A_CONNECTION = 50
FLOOD_SECONDS = 10.0
LOOK_SECONDS = 0.05


@dataclass(slots=True)
class FloodCost:
    """What a flood came to."""

    streams: int
    accepted: int = 0
    refused: int = 0
    other_ends: dict[str, int] = field(default_factory=dict)
    offered_bytes: int = 0
    memory_growth_bytes: int = 0
    """Of the coordinator, at its highest; what it accepted stays in its queue and is part of it."""
    accepted_bytes: int = 0


async def measure_flood(directory: Path, streams: int) -> FloodCost:
    """Flood one coordinator from `streams` concurrent calls."""
    cost = FloodCost(streams)
    async with BenchStack(directory) as stack:
        assert stack.coordinator is not None
        peer = Peer(parse_addresses(stack.settings.worker.server), stack.token)
        async with Client(peer) as client:
            run = await start(client, common_pb2.Requirements(labels={"bench": "nobody"}))
            local = [("grpc.use_local_subchannel_pool", 1)]
            channels = [open_channel(peer, local) for _ in range(1 + streams // STREAMS_A_CONNECTION)]
            until = time.perf_counter() + FLOOD_SECONDS
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_watch_memory(stack.coordinator, cost))
                floods = [
                    group.create_task(_flood(channels[n % len(channels)], peer, run.run_id, until, cost))
                    for n in range(streams)
                ]
                await asyncio.gather(*floods)
                watch.cancel()
            for channel in channels:
                await channel.close()
    return cost


async def _watch_memory(process: psutil.Process, cost: FloodCost) -> None:
    before = process.memory_info().rss
    while True:
        cost.memory_growth_bytes = max(cost.memory_growth_bytes, process.memory_info().rss - before)
        await asyncio.sleep(LOOK_SECONDS)  # noqa: TID251  # a benchmark's look at another process


async def _flood(channel: grpc.aio.Channel, peer: Peer, run_id: str, until: float, cost: FloodCost) -> None:
    """One call after the other; each says batch 1, so that all but the first are repetitions."""
    stub = run_service_pb2_grpc.RunServiceStub(channel)
    spec = common_pb2.TaskSpec(name="large", payload='"' + "x" * PAYLOAD_BYTES + '"')
    message = run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=1, tasks=[spec] * TASKS_A_MESSAGE)
    size = message.ByteSize()
    while time.perf_counter() < until:
        cost.offered_bytes += size
        call = stub.SubmitTasks(metadata=peer.metadata, timeout=60.0)
        try:
            await call.write(message)
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                cost.accepted += 1
                cost.accepted_bytes += size
        except grpc.aio.AioRpcError as error:
            failure = parse(error)
            if failure.retry_after_seconds:
                cost.refused += 1
            else:
                cost.other_ends[failure.code.name] = cost.other_ends.get(failure.code.name, 0) + 1
        except asyncio.InvalidStateError:
            cost.refused += 1
