"""Messages that come twice, or from whom they should not."""

import asyncio
import random
import secrets

import grpc.aio
import nats.errors
from nats.aio.client import Client as NatsClient

from dtf.adapters.nats_configuration import read_credentials
from dtf.api.v1 import common_pb2, run_service_pb2
from dtf.client.client import Client
from dtf.ports.subjects import MESSAGE_ID_HEADER, event_subject
from tests.chaos.system import System
from tests.chaos.watch import LogWatch

CALL_SECONDS = 20.0


async def say_again(system: System, watch: LogWatch, draw: random.Random) -> str:
    """Republish old commits on the log's subject: with their ids, without, or altered."""
    count = draw.choice((1, 3, 8))
    chosen = [draw.choice(watch.recent) for _ in range(count)]
    ways = ["without an id", *draw.choices(("with its id", "without an id", "cut short"), k=count - 1)]
    user, password = read_credentials(system.broker.server.credentials_file)
    client = NatsClient()
    try:
        async with asyncio.timeout(CALL_SECONDS):
            await client.connect(
                system.broker.server.url, user=user, password=password, allow_reconnect=False
            )
            for stored, way in zip(chosen, ways, strict=True):
                headers = {MESSAGE_ID_HEADER: stored.message_id} if way == "with its id" else None
                payload = stored.payload[: len(stored.payload) // 2] if way == "cut short" else stored.payload
                await client.publish(event_subject("default"), payload, headers=headers)
            await client.flush()
    except (nats.errors.Error, OSError, TimeoutError) as error:
        return f"a stranger could not speak: {error}"
    finally:
        await client.close()
    return f"a stranger said {count} old commits again: {', '.join(ways)}"


async def send_twice(system: System, draw: random.Random) -> str:
    """Create one run twice at once, and send the same batches on two streams at once."""
    async with system.client() as client:
        request = run_service_pb2.CreateRunRequest(
            suite="chaos-twice",
            request_id=secrets.token_hex(16),
            owner="chaos",
            templates=[common_pb2.TaskTemplate(command=common_pb2.CommandSpec(argv=["true"]))],
        )
        try:
            async with asyncio.timeout(CALL_SECONDS):
                one, other = await asyncio.gather(_create(client, request), _create(client, request))
                assert one == other, f"one request made two runs, {one} and {other}"
                answers = list(await asyncio.gather(_submit(client, one), _submit(client, one)))
                if draw.random() < 0.5:
                    answers.append(await _submit(client, one))
                assert all(answer == answers[0] for answer in answers), f"one batch was answered as {answers}"
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            return f"requests sent twice did not get through: {error}".partition("\n")[0]
    return f"run {one} created twice, its batches sent {len(answers)} times"


async def _create(client: Client, request: run_service_pb2.CreateRunRequest) -> str:
    response = await client.runs.CreateRun(request, metadata=client.metadata, wait_for_ready=True)
    return response.run.run_id


async def _submit(client: Client, run_id: str) -> list[tuple[int, int]]:
    requests = [
        run_service_pb2.SubmitTasksRequest(
            run_id=run_id,
            tasks=[common_pb2.TaskSpec(name=f"{batch}-{index}", payload="[]") for index in range(2)],
            batch=batch,
            seal=batch == 2,
        )
        for batch in (1, 2)
    ]
    call = client.runs.SubmitTasks(iter(requests), metadata=client.metadata, wait_for_ready=True)
    return [(response.batch, response.first_task) async for response in call]
