"""Idle workers, many in one process, over real connections: each has its session, its stream and its pulse.

    python -m bench.idle_workers ADDRESS TOKEN_FILE COUNT FIRST

FIRST numbers them. Says {"ready": true} when all are attached, and stops on SIGTERM. A worker here has nothing to
run; what it says to the coordinator is what a real one says that waits for work.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path

import grpc
import grpc.aio

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2, worker_service_pb2, worker_service_pb2_grpc
from dtf.cli.lifeline import watch_lifeline
from dtf.rpc.channel import Peer, open_channel, parse_addresses
from dtf.worker.pulse import Pulse

OPENING_AT_ONCE = 16
CALL_SECONDS = 120.0
TELEMETRY_SECONDS = 5.0
CREDITS = 64

Attach = worker_service_pb2.AttachRequest


def sample() -> worker_service_pb2.Telemetry:
    """What an idle worker measures of itself."""
    return worker_service_pb2.Telemetry(
        cpu_ratio=0.1, memory_used_bytes=2**30, memory_total_bytes=2**34, disk_free_bytes=2**36, load=0.5
    )


class IdleWorker:
    """One worker that waits for work."""

    def __init__(self, peer: Peer, number: int, credits: int = CREDITS) -> None:
        self._peer = peer
        self._number = number
        self._credits = credits
        self._clock = SystemClock()

    async def run(self, opening: asyncio.Semaphore, attached: asyncio.Event) -> None:
        """Attach, set `attached`, stay until cancelled."""
        # A connection of its own, as every worker on a machine of its own has.
        async with open_channel(self._peer, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = worker_service_pb2_grpc.WorkerServiceStub(channel)
            async with opening:
                opened = await self._open(stub)
                call = stub.Attach(metadata=self._peer.metadata)
                handle = worker_service_pb2.SessionHandle(
                    worker_id=opened.worker_id,
                    incarnation=opened.incarnation,
                    session_token=opened.session_token,
                )
                await call.write(Attach(session=handle, credits=self._credits))
                await call.read()
            attached.set()
            pulse = Pulse(self._clock.monotonic(), opened.heartbeat_seconds, TELEMETRY_SECONDS)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(call, pulse))
                group.create_task(self._beat(call, pulse))

    async def _open(
        self, stub: "worker_service_pb2_grpc.WorkerServiceAsyncStub"
    ) -> worker_service_pb2.CreateSessionResponse:
        request = worker_service_pb2.CreateSessionRequest(
            pool="local", slots=1, host="bench", request_id=f"idle-{self._number}"
        )
        return await stub.CreateSession(request, metadata=self._peer.metadata, timeout=CALL_SECONDS)

    async def _listen(
        self,
        call: "grpc.aio.StreamStreamCall[Attach, worker_service_pb2.AttachResponse]",
        pulse: Pulse,
    ) -> None:
        while (message := await call.read()) is not grpc.aio.EOF:
            assert isinstance(message, worker_service_pb2.AttachResponse)
            pulse.told(self._clock.monotonic(), message.heartbeat_seconds)

    async def _beat(
        self,
        call: "grpc.aio.StreamStreamCall[Attach, worker_service_pb2.AttachResponse]",
        pulse: Pulse,
    ) -> None:
        while True:
            now = self._clock.monotonic()
            await self._clock.sleep(min(1.0, max(0.0, pulse.next_at - now)))
            beat = pulse.due(self._clock.monotonic())
            if beat.is_due:
                message = Attach(credits=self._credits, state=common_pb2.WORKER_STATE_ACTIVE)
                if beat.with_telemetry:
                    message.telemetry.CopyFrom(sample())
                await call.write(message)


async def main(address: str, token: str, count: int, first: int) -> None:
    """Attach `count` workers, say so, and stay until told to stop."""
    peer = Peer(parse_addresses(address), token)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    opening = asyncio.Semaphore(OPENING_AT_ONCE)
    events = [asyncio.Event() for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(IdleWorker(peer, first + number).run(opening, attached))
            for number, attached in enumerate(events)
        ]
        for attached in events:
            await attached.wait()
        print(json.dumps({"ready": True}), flush=True)
        await stop.wait()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    watch_lifeline()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_text().strip(), int(sys.argv[3]), int(sys.argv[4])))
