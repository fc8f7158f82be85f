"""Whoever else writes to the log's subject, at whatever moment: no stale commit lands."""

from bench.fence_trial import Trial, try_fence
from dtf.adapters.nats_server import NatsServer

SEEDS = range(25)


async def trials(server: NatsServer, namespace: str, *, is_chained: bool) -> list[Trial]:
    return [await try_fence(server, f"{namespace}-{seed}", seed, is_chained=is_chained) for seed in SEEDS]


async def test_under_the_chain_nothing_lands_after_a_strangers_message_or_a_new_leader(
    nats_server: NatsServer, namespace: str
) -> None:
    found = await trials(nats_server, namespace, is_chained=True)
    assert sum(trial.was_hit for trial in found) >= 5
    assert sum(trial.strangers for trial in found) >= len(SEEDS)
    assert [trial.stale for trial in found] == [0 for _ in SEEDS]


async def test_the_same_seeds_show_why_an_expected_sequence_alone_is_no_fence(
    nats_server: NatsServer, namespace: str
) -> None:
    found = await trials(nats_server, namespace, is_chained=False)
    assert sum(trial.stale_acknowledged for trial in found) > 0
