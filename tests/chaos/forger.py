"""Results that must count for nothing: of leases that another worker holds, and of leases that are over."""

import asyncio
import random

import grpc.aio

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.rpc.channel import Peer
from tests.chaos.watch import LogWatch
from tests.scripted_worker import scripted_worker

FORGED_LEASES = 6
POOL = "forgers"
"""No pool of the resource manager: what happens to it is nobody's business."""


async def forge_results(coordinator: Peer, watch: LogWatch, draw: random.Random) -> str:
    """Say, as a worker with a session of its own and no lease, that tasks of others failed."""
    try:
        async with scripted_worker(coordinator, pool=POOL) as worker:
            await worker.attach(credits=0)
            held = draw.sample(sorted(watch.fences.items()), min(FORGED_LEASES, len(watch.fences)))
            over = draw.sample(list(watch.ended), min(FORGED_LEASES, len(watch.ended)))
            await worker.say(results=[_failed(fence, run_id) for fence, run_id in (*held, *over)])
            await worker.hear_acknowledged(worker.sequence)
    except (grpc.aio.AioRpcError, TimeoutError, EOFError, asyncio.InvalidStateError) as error:
        return f"forged results did not get through: {error}".partition("\n")[0]
    return f"results forged for {len(held)} leases of others and {len(over)} that were over"


def _failed(fence: int, run_id: str) -> worker_service_pb2.CaseResults:
    return worker_service_pb2.CaseResults(
        run_id=run_id,
        fences=[fence],
        cases=[0],
        verdicts=[common_pb2.VERDICT_FAILED],
        durations_seconds=[0.001],
    )
