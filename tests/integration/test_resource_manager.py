"""The resource manager against a scripted log: in memory, and over a real broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.records import JetStreamRecords
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.policy import ScalingPolicy
from dtf.ports.event_log import EventLog, RecordStream
from dtf.ports.subjects import RecordKind
from dtf.resource_manager.fleet import DrainAnswer
from dtf.resource_manager.process import ResourceManager
from tests.integration.scripted_pool import (
    Crash,
    Decisions,
    ScriptedCoordinator,
    managing,
    quick_policy,
    read_decisions,
)
from tests.memory_provider import MemoryProvider

pytestmark = pytest.mark.resource_manager

HOLD = scaling_pb2.SCALING_ACTION_HOLD
OUT = scaling_pb2.SCALING_ACTION_SCALE_OUT
IN = scaling_pb2.SCALING_ACTION_SCALE_IN
REPLACE = scaling_pb2.SCALING_ACTION_REPLACE
TERMINATE = scaling_pb2.SCALING_ACTION_TERMINATE


class Pool:
    """Everything around one resource manager."""

    def __init__(self, log: EventLog, scaling: RecordStream, directory: Path, namespace: str) -> None:
        self.clock = SystemClock()
        self.log = log
        self.scaling = scaling
        self.namespace = namespace
        self.state_dir = directory
        self.provider = MemoryProvider(self.clock)
        self.coordinator = ScriptedCoordinator(log, self.clock)
        self.decisions = Decisions(scaling)

    def managed(self, policy: ScalingPolicy) -> AbstractAsyncContextManager[ResourceManager]:
        """A resource manager at work."""
        return managing(
            policy,
            log=self.log,
            scaling=self.scaling,
            provider=self.provider,
            fleet=self.coordinator,
            clock=self.clock,
            state_dir=self.state_dir,
            namespace=self.namespace,
        )


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Log and records in memory."""
    return Pool(MemoryLog(), MemoryRecords(), tmp_path, "default")


@pytest.fixture
async def broker_pool(
    event_log: JetStreamLog, nats_settings: object, namespace: str, tmp_path: Path, system_clock: SystemClock
) -> AsyncIterator[Pool]:
    """Log and records on a real broker."""
    scaling = await JetStreamRecords.open(nats_settings, RecordKind.SCALING, namespace, system_clock)  # type: ignore[arg-type]
    yield Pool(event_log, scaling, tmp_path, namespace)
    await scaling.close()


async def test_a_pool_grows_with_the_backlog_and_shrinks_when_idle(broker_pool: Pool) -> None:
    pool = broker_pool
    async with pool.managed(quick_policy(1, 3)):
        await pool.provider.wait_for_running("local-1")
        await pool.coordinator.register("local-1")
        await pool.coordinator.submit(6, 10.0)
        await pool.provider.wait_for_running("local-1", "local-2", "local-3")
        await pool.coordinator.lease("local-1", 0, 1)
        await pool.coordinator.lease("local-2", 2, 3)
        await pool.coordinator.lease("local-3", 4, 5)
        await pool.coordinator.register("local-2", "local-3")
        for worker, tasks in (("local-1", (0, 1)), ("local-2", (2, 3)), ("local-3", (4, 5))):
            await pool.coordinator.finish(worker, *tasks)
        gone: set[str] = set()
        while len(gone) < 2:
            for worker_id in (await pool.decisions.until(IN)).worker_ids:
                await pool.coordinator.leave(worker_id)
                gone.add(worker_id)
        (left,) = {"local-1", "local-2", "local-3"} - gone
        await pool.provider.wait_for_running(left)
    actions = [d.action for d in await read_decisions(pool.scaling) if d.action in (OUT, IN)]
    assert actions[:2] == [OUT, OUT] and set(actions[2:]) == {IN}
    assert pool.provider.running == []


async def test_a_decision_follows_the_events_that_cause_it(pool: Pool) -> None:
    async with pool.managed(quick_policy(1, 3)):
        await pool.coordinator.register("local-1")
        sequence = await pool.coordinator.submit(100, 1.0)
        decision = await pool.decisions.until(OUT)
        while decision.log_sequence < sequence:
            decision = await pool.decisions.until(OUT)
    assert decision.demand.queue_depth == 100
    assert decision.reason == "backlog 100.0 s of work for 1 worker, aim 2 s each"


async def test_a_busy_worker_is_not_taken_when_the_coordinator_refuses(pool: Pool) -> None:
    async with pool.managed(quick_policy(0, 2)):
        await pool.coordinator.submit(2, 10.0)
        await pool.provider.wait_for_running("local-1", "local-2")
        await pool.coordinator.register("local-1", "local-2")
        pool.coordinator.answer = DrainAnswer.REFUSED
        await pool.coordinator.finish_all()
        await pool.decisions.until(IN)
        await pool.decisions.until(IN)
        assert pool.provider.terminated == []
        assert len(pool.provider.running) == 2


async def test_a_worker_that_dies_is_replaced(pool: Pool) -> None:
    async with pool.managed(quick_policy(2, 2)):
        await pool.coordinator.register("local-1", "local-2")
        await pool.provider.end("local-2", "was killed by signal 9")
        decision = await pool.decisions.until(REPLACE)
        assert "local-2 was killed by signal 9" in decision.reason
        await pool.provider.wait_for_running("local-1", "local-3")


async def test_a_provider_that_cannot_launch_is_tried_again_and_the_hold_says_why(pool: Pool) -> None:
    pool.provider.failure = "no processes left"
    async with pool.managed(quick_policy(1, 1)):
        hold = await pool.decisions.until(HOLD)
        assert "no processes left" in hold.reason
        pool.provider.failure = ""
        await pool.provider.wait_for_requests(1)


async def test_after_a_kill_the_pool_is_taken_up_where_it_was(broker_pool: Pool) -> None:
    pool = broker_pool
    async with pool.managed(quick_policy(2, 4)):
        await pool.coordinator.register("local-1", "local-2")
        await pool.coordinator.submit(100, 1.0)
        await pool.provider.wait_for_running("local-1", "local-2", "local-3", "local-4")
        raise Crash
    await pool.coordinator.register("local-3", "local-4")
    async with pool.managed(quick_policy(2, 4)):
        assert len(pool.provider.requests) == 4
        assert len(pool.provider.running) == 4
        raise Crash
    ids = [decision.decision_id for decision in await read_decisions(pool.scaling)]
    assert len(ids) == len(set(ids))


async def test_a_launch_decided_but_never_asked_for_is_made_after_the_restart(pool: Pool) -> None:
    asked = asyncio.Event()

    class Dying(MemoryProvider):
        async def launch(self, request):  # type: ignore[no-untyped-def]
            asked.set()
            await asyncio.Event().wait()

    provider, pool.provider = pool.provider, Dying(pool.clock)
    async with asyncio.TaskGroup() as tasks:
        managing = tasks.create_task(_until_ready(pool))
        await asked.wait()
        managing.cancel()
    pool.provider = provider
    async with pool.managed(quick_policy(1, 1)):
        assert [request.launch_id for request in provider.requests] == ["local-1"]
        raise Crash


async def _until_ready(pool: Pool) -> None:
    async with pool.managed(quick_policy(1, 1)):
        raise AssertionError("it cannot become ready")


async def test_a_worker_that_died_while_nobody_watched_is_replaced_after_the_restart(pool: Pool) -> None:
    async with pool.managed(quick_policy(1, 1)):
        await pool.coordinator.register("local-1")
        raise Crash
    await pool.provider.end("local-1", "was killed by signal 9")
    async with pool.managed(quick_policy(1, 1)):
        await pool.provider.wait_for_running("local-2")
        raise Crash


async def test_without_its_state_file_no_identity_is_used_twice(pool: Pool) -> None:
    async with pool.managed(quick_policy(2, 2)):
        await pool.decisions.until(OUT)
    (pool.state_dir / "pools.state").unlink()
    async with pool.managed(quick_policy(2, 2)):
        assert sorted(pool.provider.running) == ["local-3", "local-4"]
        raise Crash
    ids = [decision.decision_id for decision in await read_decisions(pool.scaling)]
    assert len(ids) == len(set(ids)) and len(ids) >= 3


async def test_another_log_under_the_same_state_is_read_from_its_beginning(
    pool: Pool, tmp_path: Path
) -> None:
    async with pool.managed(quick_policy(0, 2)):
        await pool.coordinator.submit(100, 1.0)
        await pool.provider.wait_for_running("local-1", "local-2")
        raise Crash
    other = Pool(MemoryLog(), MemoryRecords(), tmp_path, "default")
    other.provider = pool.provider
    await other.coordinator.register("local-1", "local-2")
    async with other.managed(quick_policy(0, 2)):
        idle = await other.decisions.until(IN)
        assert sorted(idle.worker_ids) == ["local-1", "local-2"]
        assert idle.demand.queue_depth == 0
        raise Crash


async def test_told_to_stop_it_ends_its_workers_and_says_so(pool: Pool) -> None:
    async with pool.managed(quick_policy(2, 2)):
        await pool.coordinator.register("local-1", "local-2")
    assert pool.provider.running == []
    last = (await read_decisions(pool.scaling))[-1]
    assert last.action == TERMINATE
    assert last.reason == "the resource manager was told to stop"


async def test_a_strangers_message_on_the_log_changes_nothing(pool: Pool) -> None:
    async with pool.managed(quick_policy(1, 3)):
        await pool.coordinator.register("local-1")
        assert isinstance(pool.log, MemoryLog)
        pool.log.inject(b"\xff\xfenot a commit", "deadbeef")
        pool.coordinator.unchain()
        await pool.coordinator.submit(100, 1.0)
        await pool.provider.wait_for_running("local-1", "local-2", "local-3")
        raise Crash
