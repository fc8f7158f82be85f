"""A resource manager that is killed at any of its steps leaves no orphan and launches nothing twice.

A life: the pool grows at a backlog, shrinks when idle, one worker dies and is replaced, and the manager
is told to stop. Every step that leaves the process (a call of the provider or the coordinator, a
publication, a save) is counted by its kind, before and after; for each of them one life is led in which
the manager dies there, and a new one takes over. The world goes on meanwhile: workers register, drain,
leave. A step is the first, second, … of its kind: the kinds interleave by chance from life to life.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from dtf.adapters.memory_log import MemoryLog, MemoryRecords
from dtf.adapters.system_clock import SystemClock
from dtf.ports.capacity import Instance, LaunchRequest
from dtf.resource_manager.fleet import DrainAnswer
from dtf.resource_manager.managed_pool import ManagedPool
from dtf.resource_manager.process import ResourceManager
from dtf.resource_manager.state_file import ManagerState, StateFile
from tests.integration.scripted_pool import (
    WAIT_SECONDS,
    Crash,
    ScriptedCoordinator,
    quick_policy,
    read_decisions,
)
from tests.memory_provider import MemoryProvider

pytestmark = pytest.mark.resource_manager

LIVES_AT_ONCE = 20


Step = tuple[str, int]
"""A kind of step ("before drain"), and the number of it among its kind, from 1."""


class Fate:
    """Counts the steps, and kills at one of them."""

    def __init__(self, fatal: Step | None) -> None:
        self.steps: Counter[str] = Counter()
        self._fatal = fatal
        self.is_dead = False

    def step(self, kind: str) -> None:
        """Raises Crash at the fatal step, and ever after until the manager is born anew."""
        self.steps[kind] += 1
        if (kind, self.steps[kind]) == self._fatal:
            self.is_dead = True
        if self.is_dead:
            raise Crash


class MortalProvider:
    """The provider as a manager that may die sees it."""

    def __init__(self, provider: MemoryProvider, fate: Fate) -> None:
        self._provider = provider
        self._fate = fate

    async def launch(self, request: LaunchRequest) -> Instance:
        self._fate.step("before launch")
        instance = await self._provider.launch(request)
        self._fate.step("after launch")
        return instance

    async def list_instances(self) -> Sequence[Instance]:
        self._fate.step("before list")
        return await self._provider.list_instances()

    async def terminate(self, launch_id: str, grace_seconds: float) -> None:
        self._fate.step("before terminate")
        await self._provider.terminate(launch_id, grace_seconds)
        self._fate.step("after terminate")

    async def forget(self, launch_id: str) -> None:
        self._fate.step("before forget")
        await self._provider.forget(launch_id)
        self._fate.step("after forget")

    async def exits(self) -> AsyncIterator[Instance]:
        async for instance in self._provider.exits():
            self._fate.step("after exit")
            yield instance

    async def close(self) -> None:
        pass


class MortalCoordinator(ScriptedCoordinator):
    """The coordinator as a manager that may die sees it."""

    fate: Fate

    async def drain_idle(self, worker_id: str, reason: str) -> DrainAnswer:
        self.fate.step("before drain")
        answer = await super().drain_idle(worker_id, reason)
        self.fate.step("after drain")
        return answer

    async def report_lost(self, worker_id: str, incarnation: int, reason: str) -> bool:
        self.fate.step("before report")
        return await super().report_lost(worker_id, incarnation, reason)


class MortalRecords(MemoryRecords):
    """The stream of decisions as a manager that may die sees it."""

    fate: Fate

    async def publish(self, subject: str, payload: bytes, message_id: str | None = None) -> int:
        self.fate.step("before publish")
        sequence = await super().publish(subject, payload, message_id)
        self.fate.step("after publish")
        return sequence


class World:
    """One life of a pool, and everything around its managers."""

    def __init__(self, directory: Path, fatal: Step | None) -> None:
        self.clock = SystemClock()
        self.fate = Fate(fatal)
        self.log = MemoryLog()
        self.records = MortalRecords()
        self.records.fate = self.fate
        self.coordinator = MortalCoordinator(self.log, self.clock)
        self.coordinator.fate = self.fate
        self.provider = MemoryProvider(self.clock)
        self._directory = directory
        self._registered: set[str] = set()
        self._gone: set[str] = set()
        self._manager: ResourceManager | None = None
        self.births = 0

    async def live(self) -> None:
        """The life. What must hold is asserted as it goes."""
        async with asyncio.timeout(2 * WAIT_SECONDS), asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._keep_a_manager())
            workers = tasks.create_task(self._run_workers())
            await self.coordinator.submit(6, 10.0)
            await self._until_running(3)
            await self.coordinator.finish_all()
            await self._until_running(1)
            (only,) = self.provider.running
            await self.provider.end(only, "was killed by signal 9")
            await self._until_running(1)
            assert self.provider.running != [only]
            self._stop()
            await keeping
            workers.cancel()
        assert self.provider.running == []
        launched = [request.launch_id for request in self.provider.requests]
        assert sorted(set(launched)) == sorted(launched)
        decisions = await read_decisions(self.records)
        asked = [launch_id for decision in decisions for launch_id in decision.launch_ids if decision.desired]
        assert sorted(set(asked)) == sorted(asked)
        assert set(launched) <= set(asked)

    async def _keep_a_manager(self) -> None:
        while self.births < 3:
            self.births += 1
            self.fate.is_dead = False
            self._manager = ResourceManager(
                [ManagedPool(quick_policy(1, 3), MortalProvider(self.provider, self.fate))],
                namespace="default",
                log=self.log,
                scaling=self.records,
                fleet=self.coordinator,
                clock=self.clock,
                state_dir=self._directory,
            )
            if self._is_stopping:
                self._manager.stop()
            has_died = False
            try:
                await self._manager.run()
            except* Crash:
                has_died = True
            if not has_died:
                return
        raise AssertionError("a manager died of something else than its fate")

    _is_stopping = False

    def _stop(self) -> None:
        self._is_stopping = True
        assert self._manager is not None
        self._manager.stop()

    async def _run_workers(self) -> None:
        """Workers register; one that was told to drain leaves, and its process stays until it is ended."""
        while True:
            for launch_id in self.provider.running:
                if launch_id not in self._registered:
                    self._registered.add(launch_id)
                    await self.coordinator.register(launch_id)
            for worker_id in set(self.coordinator.drain_requests) - self._gone:
                self._gone.add(worker_id)
                await self.coordinator.leave(worker_id)
            await self.clock.sleep(0.005)

    async def _until_running(self, count: int) -> None:
        while not (len(self.provider.running) == count and set(self.provider.running) <= self._registered):
            await self.clock.sleep(0.005)


@pytest.fixture
def saves_are_steps(monkeypatch: pytest.MonkeyPatch) -> dict[Path, Fate]:
    """Has each save counted, by the directory it goes to."""
    fates: dict[Path, Fate] = {}
    save = StateFile.save

    async def counted(file: StateFile, state: ManagerState) -> None:
        fate = fates[file.path.parent]
        fate.step("before save")
        await save(file, state)
        fate.step("after save")

    monkeypatch.setattr(StateFile, "save", counted)
    return fates


async def test_killed_at_any_step_it_leaves_no_orphan_and_launches_nothing_twice(
    tmp_path: Path, saves_are_steps: dict[Path, Fate]
) -> None:
    async def live(fatal: Step | None) -> World:
        directory = tmp_path / ("whole" if fatal is None else f"{fatal[0]} {fatal[1]}")
        directory.mkdir()
        world = World(directory, fatal)
        saves_are_steps[directory] = world.fate
        try:
            await world.live()
        except BaseException as error:
            error.add_note(f"killed at step {fatal}")
            raise
        return world

    whole = await live(None)
    assert whole.births == 1
    turns = asyncio.Semaphore(LIVES_AT_ONCE)

    async def in_turn(fatal: Step) -> World:
        async with turns:
            return await live(fatal)

    steps = [(kind, number) for kind, count in whole.fate.steps.items() for number in range(1, count + 1)]
    assert len(steps) > 40, whole.fate.steps
    lives = await asyncio.gather(*(in_turn(fatal) for fatal in steps))
    deaths = {kind for (kind, _), world in zip(steps, lives, strict=True) if world.births == 2}
    assert {"before launch", "after launch", "before save", "after save", "before publish"} <= deaths
    assert {"before drain", "after drain", "before terminate"} <= deaths
