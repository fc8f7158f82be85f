"""One coordinator and two, each with a namespace of its own, on one broker and one machine."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.bench_stack import BenchStack, cpu_seconds
from bench.throughput_ours import in_batches
from dtf.client.client import Client
from dtf.rpc.channel import Peer, parse_addresses

WARM_UP = 2_000


@dataclass(frozen=True, slots=True)
class NamespaceCost:
    """The same tasks through so many coordinators."""

    coordinators: int
    tasks_per_second: float
    coordinator_seconds_a_task: float
    """Of all of them."""
    broker_seconds_a_task: float


async def measure_namespaces(directory: Path, count: int) -> list[NamespaceCost]:
    """`count` no-ops over two workers: both of one coordinator, then one of each of two."""
    async with BenchStack(directory) as stack:
        assert stack.coordinator is not None
        peers = [Peer(parse_addresses(stack.settings.worker.server), stack.token)]
        await stack.add_worker()
        await stack.add_worker()
        one = await _measure(stack, peers, [stack.coordinator], count)
        other, address = await stack.add_coordinator("other")
        await stack.rest()
        peers.append(Peer(parse_addresses(address), stack.token))
        await stack.move_last_worker(address)
        two = await _measure(stack, peers, [stack.coordinator, other], count)
    return [one, two]


async def _measure(
    stack: BenchStack, peers: list[Peer], coordinators: list[psutil.Process], count: int
) -> NamespaceCost:
    clients = [Client(peer) for peer in peers]
    for client in clients:
        await client.__aenter__()
    try:
        for client in clients:
            await in_batches(client, WARM_UP)
        await stack.rest()
        used, broker = sum(map(cpu_seconds, coordinators)), cpu_seconds(stack.nats_process)
        begun = time.perf_counter()
        await asyncio.gather(*(in_batches(client, count // len(clients)) for client in clients))
        elapsed = time.perf_counter() - begun
    finally:
        for client in clients:
            await client.__aexit__(None, None, None)
    return NamespaceCost(
        len(peers),
        count / elapsed,
        (sum(map(cpu_seconds, coordinators)) - used) / count,
        (cpu_seconds(stack.nats_process) - broker) / count,
    )
