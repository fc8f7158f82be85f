"""What one resource manager does for several pools, and what it makes of what providers and workers say."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.scaling.health import HealthBook, Verdict
from dtf.core.scaling.policy import ScalingPolicy
from dtf.ports.capacity import Instance, LaunchRequest, ProviderError
from dtf.resource_manager import nurse, pool, rehearsal
from dtf.resource_manager.managed_pool import ManagedPool
from dtf.resource_manager.process import ResourceManager, Shadow
from tests.integration.scripted_pool import WAIT_SECONDS, Crash, Decisions, ScriptedCoordinator, quick_policy
from tests.memory_provider import MemoryProvider

pytestmark = pytest.mark.resource_manager

HOLD = scaling_pb2.SCALING_ACTION_HOLD
OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN
REPLACE = scaling_pb2.SCALING_ACTION_REPLACE
TERMINATE = scaling_pb2.SCALING_ACTION_TERMINATE


class Site:
    """A log, a stream of decisions, and a coordinator."""

    def __init__(self, directory: Path) -> None:
        self.clock = SystemClock()
        self.log, self.scaling = MemoryLog(), MemoryRecords()
        self.coordinator = ScriptedCoordinator(self.log, self.clock)
        self.decisions = Decisions(self.scaling)
        self.directory = directory

    def provider(self) -> MemoryProvider:
        """One more provider."""
        return MemoryProvider(self.clock)

    @asynccontextmanager
    async def managing(
        self,
        *pools: ManagedPool,
        max_workers: int = 0,
        is_dry_run: bool = False,
        shadow: Shadow | None = None,
    ) -> AsyncIterator[ResourceManager]:
        """A resource manager at work; Crash ends it without a farewell."""
        manager = ResourceManager(
            pools,
            namespace="default",
            log=self.log,
            scaling=self.scaling,
            fleet=self.coordinator,
            clock=self.clock,
            state_dir=self.directory,
            max_workers=max_workers,
            is_dry_run=is_dry_run,
            shadow=shadow,
        )
        try:
            async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as tasks:
                tasks.create_task(manager.run())
                yield manager
                manager.stop()
        except* Crash:
            pass

    async def decision(
        self, action: "scaling_pb2.ScalingAction.ValueType", said: str
    ) -> scaling_pb2.ScalingDecision:
        """The next decision of a kind whose reason says so."""
        while said not in (decision := await self.decisions.until(action)).reason:
            pass
        return decision


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Looks, rounds and rehearsals come often."""
    monkeypatch.setattr(pool, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nurse, "HEALTH_SECONDS", 0.05)
    monkeypatch.setattr(rehearsal, "PACE_SECONDS", 0.05)
    return Site(tmp_path)


def policy_of(name: str, minimum: int, maximum: int) -> ScalingPolicy:
    return replace(quick_policy(minimum, maximum), pool=name)


async def test_each_pool_has_its_own_workers_and_provider(site: Site) -> None:
    near, far = site.provider(), site.provider()
    pools = (
        ManagedPool(policy_of("near", 1, 1), near),
        ManagedPool(policy_of("far", 2, 2), far, cpus=4, is_spot=True),
    )
    async with site.managing(*pools):
        await near.wait_for_running("near-1")
        await far.wait_for_running("far-1", "far-2")
        assert {request.cpus for request in far.requests} == {4}
        assert all(request.is_spot for request in far.requests)
        raise Crash
    async with site.managing(*pools) as manager:
        await manager.ready.wait()
        assert len(near.requests) + len(far.requests) == 3
    assert near.running == far.running == []


async def test_all_pools_together_stay_within_their_bound(site: Site) -> None:
    one, two = site.provider(), site.provider()
    pools = (ManagedPool(policy_of("one", 1, 9), one), ManagedPool(policy_of("two", 1, 9), two))
    async with site.managing(*pools, max_workers=4):
        await one.wait_for_running("one-1")
        await two.wait_for_running("two-1")
        await site.coordinator.submit(100, 10.0)
        await site.decision(HOLD, "all pools together leave")
        assert len(one.running) + len(two.running) <= 4


async def test_a_provider_that_does_not_answer_holds_up_its_own_pool_alone(site: Site) -> None:
    dumb, fine = site.provider(), site.provider()
    dumb.silence = "the control plane is away"
    pools = (ManagedPool(policy_of("dumb", 1, 1), dumb), ManagedPool(policy_of("fine", 1, 1), fine))
    async with site.managing(*pools) as manager:
        await fine.wait_for_running("fine-1")
        held = await site.decision(HOLD, "the provider does not answer: the control plane is away")
        assert held.pool == "dumb"
        await manager.ready.wait()
        assert dumb.requests == []
        dumb.silence = ""
        await dumb.wait_for_running("dumb-1")


async def test_a_worker_that_will_be_taken_away_is_drained_though_busy_and_replaced(site: Site) -> None:
    spot = site.provider()
    async with site.managing(ManagedPool(quick_policy(1, 2), spot)):
        await spot.wait_for_running("local-1")
        await site.coordinator.register("local-1")
        await site.coordinator.submit(1, 10.0)
        await site.coordinator.lease("local-1", 0)
        spot.interrupt("local-1", "is reclaimed in 120 s")
        replaced = await site.decision(REPLACE, "local-1 will be taken away: is reclaimed in 120 s")
        assert any(seen.HasField("interrupted") for seen in replaced.observations)
        await spot.wait_for_running("local-1", "local-2")
        assert site.coordinator.drained_busy == ["local-1"]
        assert spot.terminated == []
        raise Crash


async def test_a_worker_that_vanished_behind_our_back_is_replaced(site: Site) -> None:
    provider = site.provider()
    async with site.managing(ManagedPool(quick_policy(1, 1), provider)):
        await provider.wait_for_running("local-1")
        await site.coordinator.register("local-1")
        provider.lose("local-1")
        replaced = await site.decision(REPLACE, "local-1 is gone")
        assert replaced.launch_ids == ["local-2"]


async def test_a_launch_that_failed_and_is_there_all_the_same_is_taken_up(site: Site) -> None:
    class Stammering(MemoryProvider):
        async def launch(self, request: LaunchRequest) -> Instance:
            instance = await super().launch(request)
            if request.launch_id == "local-1":
                raise ProviderError("no answer within 20 s")
            return instance

    provider = Stammering(site.clock)
    async with site.managing(ManagedPool(quick_policy(1, 1), provider)):
        await provider.wait_for_requests(1)
        await site.decision(HOLD, "")
        await site.clock.sleep(1.5)  # past the first back-off: whoever did not look would launch again
        assert provider.running == ["local-1"]
    assert provider.running == []


async def test_a_full_quota_is_not_asked_again_soon(site: Site) -> None:
    provider = site.provider()
    provider.quota = "vCPU limit of 8 is used up"
    async with site.managing(ManagedPool(quick_policy(1, 1), provider)):
        held = await site.decision(HOLD, "vCPU limit of 8 is used up")
        assert re.search(r"next try in (60|5\d) s", held.reason), held.reason


async def test_a_dry_run_says_what_it_would_do_and_asks_nobody(site: Site) -> None:
    provider = site.provider()
    async with site.managing(ManagedPool(quick_policy(1, 3), provider), is_dry_run=True) as manager:
        await manager.ready.wait()
        await site.coordinator.submit(100, 1.0)
        decision = await site.decisions.until(OUT)
        while decision.desired != 3:
            decision = await site.decisions.until(OUT)
        assert decision.rehearsal == "dry-run"
    assert provider.requests == [] and site.coordinator.drain_requests == []
    assert list(site.directory.iterdir()) == []


async def test_a_shadow_decides_beside_the_pools_policy_without_authority(site: Site) -> None:
    provider = site.provider()
    shadow = Shadow("bold", quick_policy(4, 4))
    async with site.managing(ManagedPool(quick_policy(1, 1), provider), shadow=shadow):
        await provider.wait_for_running("local-1")
        await site.coordinator.register("local-1")
        await site.coordinator.submit(2, 0.1)
        await site.coordinator.lease("local-1", 0, 1)
        await site.coordinator.finish("local-1", 0, 1)
        decision = await site.decisions.until(OUT)
        while decision.rehearsal != "bold":
            decision = await site.decisions.until(OUT)
        assert decision.desired == 4
    looked_back = await site.decision(HOLD, "regret over 2 tasks")
    assert looked_back.rehearsal == "bold"
    assert [request.launch_id for request in provider.requests] == ["local-1"]


async def test_a_sick_worker_is_tried_again_after_its_probation_and_ended_the_second_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    sick: Sequence[Verdict] = [Verdict("local-2", "its cases take 9 times what they do elsewhere", 2.0)]
    monkeypatch.setattr(HealthBook, "verdicts", lambda book, pool, now_ns: list(sick))
    provider = site.provider()
    watched = ManagedPool(quick_policy(3, 3), provider, probation_seconds=0.3)
    async with site.managing(watched):
        await provider.wait_for_running("local-1", "local-2", "local-3")
        await site.coordinator.register("local-1", "local-2", "local-3")
        replaced = await site.decisions.until(REPLACE)
        assert replaced.reason == "local-2 was quarantined: its cases take 9 times what they do elsewhere"
        ended = await site.decision(TERMINATE, "local-2 was quarantined 2 times")
        assert list(ended.launch_ids) == ["local-2"]
        while "local-2" in provider.running:
            await site.clock.sleep(0.01)
    kinds = [event.WhichOneof("event") async for event in events_of(site.log)]
    assert kinds.count("worker_quarantined") == 2
    assert kinds.count("worker_released") == 1


async def events_of(log: MemoryLog) -> AsyncIterator[events_pb2.Event]:
    async for batch in log.read(0):
        for stored in batch:
            for event in events_pb2.Commit.FromString(stored.payload).events:
                yield event


async def test_many_sick_at_once_are_no_matter_of_single_workers(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sick = [Verdict(f"local-{number}", "everything fails", 2.0) for number in (1, 2, 3)]
    monkeypatch.setattr(HealthBook, "verdicts", lambda book, pool, now_ns: list(sick))
    provider = site.provider()
    async with site.managing(ManagedPool(quick_policy(3, 3), provider)):
        await provider.wait_for_running("local-1", "local-2", "local-3")
        await site.coordinator.register("local-1", "local-2", "local-3")
        while "3 of 3 workers look sick at once" not in caplog.text:
            await site.clock.sleep(0.01)
    kinds = [event.WhichOneof("event") async for event in events_of(site.log)]
    assert "worker_quarantined" not in kinds


async def test_a_worker_that_was_missed_for_a_while_and_is_there_is_no_orphan(site: Site) -> None:
    provider = site.provider()
    async with site.managing(ManagedPool(quick_policy(1, 1), provider)):
        await provider.wait_for_running("local-1")
        await site.coordinator.register("local-1")
        hidden = provider.lose("local-1")
        await site.decision(REPLACE, "local-1 is gone")
        provider.find(hidden)
        await provider.wait_for_running("local-1", "local-2")
        await site.coordinator.register("local-2")
        (worker_id,) = (await site.decisions.until(IN)).worker_ids  # one of the two is too many
        await site.coordinator.leave(worker_id)
        await site.decision(TERMINATE, f"{worker_id} left")
        while len(provider.running) != 1:
            await site.clock.sleep(0.01)
