"""What a client does when the coordinator has too much at once: the same call again, when it was told to."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from dtf.rpc.errors import parse

PATIENCE_SECONDS = 60.0
"""After this a call that stays refused is its caller's affair: somebody waits for the answer."""

Answer = TypeVar("Answer")


def pause_after(error: grpc.RpcError) -> float:
    """Seconds after which the call may be made again; 0: the coordinator did not say that it may.

    About what it said, so that those it refused together do not come back together.
    """
    return parse(error).retry_after_seconds * random.uniform(0.5, 1.5)


async def call_when_taken(
    call: Callable[[], Awaitable[Answer]], patience_seconds: float = PATIENCE_SECONDS
) -> Answer:
    """The answer of a call that may be repeated. Raises its last refusal once patience is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_seconds
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            pause = pause_after(error)
            if not pause or loop.time() + pause > deadline:
                raise
        await rest(pause)


async def rest(seconds: float) -> None:
    """Wait."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
