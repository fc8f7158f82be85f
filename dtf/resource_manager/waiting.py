"""Waiting for an event or a moment, whichever comes first."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from dtf.ports.clock import Clock


async def wait_until(event: asyncio.Event, at_ns: int | None, clock: Clock) -> None:
    """Return when `event` is set or the clock's wall time has reached `at_ns` (None: never)."""
    if at_ns is None:
        await event.wait()
        return
    done = asyncio.Event()
    seconds = max(0.0, (at_ns - clock.now_ns()) / 1e9)
    async with asyncio.TaskGroup() as tasks:
        waiters = [
            tasks.create_task(_then_set(event.wait(), done)),
            tasks.create_task(_then_set(clock.sleep(seconds), done)),
        ]
        await done.wait()
        for waiter in waiters:
            waiter.cancel()


async def _then_set(first: Coroutine[Any, Any, object], done: asyncio.Event) -> None:
    await first
    done.set()
