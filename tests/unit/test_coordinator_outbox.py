"""What a worker is told: mere acknowledgements wait for company, leases do not."""

import asyncio

from dtf.coordinator.session import ACKNOWLEDGE_SECONDS, Outbox
from dtf.core.fleet.worker import Worker
from dtf.core.run.state import State

PATIENCE_SECONDS = 30.0


def told() -> tuple[Outbox, State]:
    """An outbox that has said its first word."""
    state = State()
    state.workers["w"] = Worker("w")
    outbox = Outbox("w")
    assert outbox.take(state) is not None
    assert outbox.take(state) is None
    return outbox, state


async def test_a_mere_acknowledgement_is_told_by_itself_after_a_moment() -> None:
    outbox, state = told()
    outbox.acknowledge(3)
    outbox.acknowledge(4)
    assert not outbox.wake.is_set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await outbox.wake.wait()
    response = outbox.take(state)
    assert response is not None
    assert response.acknowledged_sequence == 4


async def test_an_acknowledgement_goes_with_what_is_told_before_its_time_and_wakes_nobody_then() -> None:
    outbox, state = told()
    outbox.acknowledge(3)
    outbox.cancelled.append(7)
    response = outbox.take(state)
    assert response is not None
    assert (response.acknowledged_sequence, list(response.cancelled_fences)) == (3, [7])
    is_past = asyncio.Event()
    asyncio.get_running_loop().call_later(2 * ACKNOWLEDGE_SECONDS, is_past.set)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await is_past.wait()
    assert not outbox.wake.is_set()
