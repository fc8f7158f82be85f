"""Watchers of one run, many in one process, over real connections.

    python -m bench.watchers ADDRESS TOKEN_FILE RUN COUNT KEEN

The first KEEN of COUNT read as fast as they can; the others read one message and then nothing. Says
{"ready": true} when all are attached, reads one line, and then, when the keen ones have heard the
run end, how many bytes and messages each of them got.
"""

import asyncio
import json
import sys
from pathlib import Path

import grpc.aio

from dtf.api.v1 import run_service_pb2
from dtf.cli.lifeline import watch_lifeline
from dtf.rpc.channel import Peer, open_channel, parse_addresses

METHOD = "/dtf.api.v1.RunService/WatchRun"
STREAMS_A_CONNECTION = 10


async def watch(
    channel: grpc.aio.Channel, peer: Peer, run_id: str, is_keen: bool, attached: asyncio.Event
) -> tuple[int, int]:
    """Bytes and messages of one watcher; it does not parse them: its cost is not what is measured."""
    method = channel.unary_stream(
        METHOD,
        request_serializer=run_service_pb2.WatchRunRequest.SerializeToString,
        response_deserializer=bytes,
    )
    call = method(run_service_pb2.WatchRunRequest(run_id=run_id), metadata=peer.metadata)
    size = count = 0
    while True:
        data = await call.read()
        if data is grpc.aio.EOF:
            return size, count
        assert isinstance(data, bytes)
        size, count = size + len(data), count + 1
        attached.set()
        if not is_keen:
            await asyncio.Event().wait()


async def main(address: str, token: str, run_id: str, count: int, keen: int) -> None:
    """Attach, say so, watch to the end."""
    peer = Peer(parse_addresses(address), token)
    local = [("grpc.use_local_subchannel_pool", 1)]
    channels = [open_channel(peer, local) for _ in range(1 + count // STREAMS_A_CONNECTION)]
    attached = [asyncio.Event() for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        watches = [
            group.create_task(
                watch(channels[number % len(channels)], peer, run_id, number < keen, attached[number])
            )
            for number in range(count)
        ]
        for event in attached:
            await event.wait()
        print(json.dumps({"ready": True}), flush=True)
        heard = [await task for task in watches[:keen]]
        for task in watches[keen:]:
            task.cancel()
    print(json.dumps(heard), flush=True)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    watch_lifeline()
    asyncio.run(
        main(
            sys.argv[1],
            Path(sys.argv[2]).read_text().strip(),
            sys.argv[3],
            int(sys.argv[4]),
            int(sys.argv[5]),
        )
    )
