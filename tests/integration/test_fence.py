"""Whoever else writes to the log's subject, at whatever moment: no stale commit lands."""

from collections.abc import AsyncIterator

from bench.fence_trial import Trial, try_fence
from dtf.adapters.nats_server import NatsServer

LEAST_TRIALS, MOST_TRIALS = 25, 300
"""Whether others hit the writer is a matter of moments: it is tried until enough of them did."""


async def trials(server: NatsServer, namespace: str, *, is_chained: bool) -> AsyncIterator[Trial]:
    for seed in range(MOST_TRIALS):
        yield await try_fence(server, f"{namespace}-{seed}", seed, is_chained=is_chained)


async def test_under_the_chain_nothing_lands_after_a_strangers_message_or_a_new_leader(
    nats_server: NatsServer, namespace: str
) -> None:
    found: list[Trial] = []
    async for trial in trials(nats_server, namespace, is_chained=True):
        found.append(trial)
        if len(found) >= LEAST_TRIALS and sum(trial.was_hit for trial in found) >= 5:
            break
    assert sum(trial.was_hit for trial in found) >= 5
    assert sum(trial.strangers for trial in found) >= len(found)
    assert [trial.stale for trial in found] == [0 for _ in found]


async def test_the_same_seeds_show_why_an_expected_sequence_alone_is_no_fence(
    nats_server: NatsServer, namespace: str
) -> None:
    async for trial in trials(nats_server, namespace, is_chained=False):
        if trial.stale_acknowledged:
            return
    raise AssertionError("no stale commit was acknowledged")
