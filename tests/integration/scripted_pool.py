"""A log that a script writes as the coordinator would, and a resource manager that lives by it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dtf.api.v1 import common_pb2, events_pb2, scaling_pb2
from dtf.core.scaling.policy import ScalingPolicy
from dtf.ports.capacity import CapacityProvider
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream
from dtf.resource_manager.fleet import DrainAnswer
from dtf.resource_manager.managed_pool import ManagedPool
from dtf.resource_manager.process import ResourceManager

WAIT_SECONDS = 90.0
"""Far above what anything takes on a machine that does something else too."""


class ScriptedCoordinator:
    """Appends events, chained, one a commit; drains idle workers when asked, as the real one does."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self.answer = DrainAnswer.DRAINING
        self.drain_requests: list[str] = []
        self.drained_busy: list[str] = []
        self._log = log
        self._clock = clock
        self._last_id = ""
        self._count = 0
        self._is_fenced = True
        self._leases: dict[str, int] = {}

    async def tell(self, *events: events_pb2.Event) -> int:
        """Commit `events` together; return the sequence."""
        self._count += 1
        commit = events_pb2.Commit(
            commit_id=b"scripted" + self._count.to_bytes(8, "big"),
            epoch=1,
            prev_hash=bytes.fromhex(self._last_id),
            now_unix_nanos=self._clock.now_ns(),
            events=events,
        )
        payload = commit.SerializeToString()
        previous, self._last_id = self._last_id, hashlib.sha256(payload).hexdigest()
        return await self._log.append(
            payload,
            message_id=self._last_id,
            previous_message_id=previous if self._is_fenced else None,
            expected_last_sequence=None,
            headers={},
        )

    async def register(self, *launch_ids: str) -> None:
        """Launched workers open their sessions."""
        registered = [
            events_pb2.WorkerRegistered(
                worker_id=name,
                incarnation=1,
                pool="local",
                slots=1,
                launch_id=name,
                resources=common_pb2.Resources(cpus=2, memory_bytes=2**32),
            )
            for name in launch_ids
        ]
        await self.tell(*(events_pb2.Event(worker_registered=event) for event in registered))

    async def submit(self, count: int, seconds: float) -> int:
        """A run of `count` commands of a known duration."""
        template = common_pb2.TaskTemplate(command=common_pb2.CommandSpec(argv=["true"]))
        return await self.tell(
            events_pb2.Event(run_created=events_pb2.RunCreated(run_id="r1", suite="s", templates=[template])),
            events_pb2.Event(
                tasks_submitted=events_pb2.TasksSubmitted(
                    run_id="r1", names=[f"t{k}" for k in range(count)], expected_seconds=[seconds] * count
                )
            ),
        )

    async def lease(self, worker_id: str, *tasks: int) -> int:
        """Tasks are handed out."""
        self._leases[worker_id] = self._leases.get(worker_id, 0) + len(tasks)
        granted = events_pb2.LeasesGranted(
            run_id="r1", worker_id=worker_id, incarnation=1, tasks=tasks, first_fence=min(tasks) + 1
        )
        return await self.tell(events_pb2.Event(leases_granted=granted))

    async def finish(self, worker_id: str, *tasks: int) -> int:
        """Tasks pass."""
        self._leases[worker_id] -= len(tasks)
        accepted = events_pb2.ResultsAccepted(
            run_id="r1",
            worker_id=worker_id,
            tasks=tasks,
            fences=[task + 1 for task in tasks],
            durations_seconds=[0.1] * len(tasks),
            all_completed=True,
        )
        return await self.tell(events_pb2.Event(results_accepted=accepted))

    async def finish_all(self) -> int:
        """The run ends."""
        return await self.tell(events_pb2.Event(run_finished=events_pb2.RunFinished(run_id="r1")))

    def unchain(self) -> None:
        """Append past what a stranger wrote."""
        self._is_fenced = False

    async def leave(self, worker_id: str) -> int:
        """A worker closes its session."""
        left = events_pb2.WorkerLeft(worker_id=worker_id, incarnation=1, reason="drained")
        return await self.tell(events_pb2.Event(worker_left=left))

    async def drain_idle(self, worker_id: str, reason: str) -> DrainAnswer:
        """The Fleet port: refuses a worker that holds a lease."""
        self.drain_requests.append(worker_id)
        if self.answer is not DrainAnswer.DRAINING:
            return self.answer
        if self._leases.get(worker_id):
            return DrainAnswer.REFUSED
        drained = events_pb2.WorkerDrainRequested(worker_id=worker_id, requested_by="rm", reason=reason)
        await self.tell(events_pb2.Event(worker_drain_requested=drained))
        return DrainAnswer.DRAINING

    async def drain(self, worker_id: str, reason: str) -> DrainAnswer:
        """The Fleet port: drains whatever it holds."""
        self.drained_busy.append(worker_id)
        drained = events_pb2.WorkerDrainRequested(worker_id=worker_id, requested_by="rm", reason=reason)
        await self.tell(events_pb2.Event(worker_drain_requested=drained))
        return DrainAnswer.DRAINING

    async def quarantine(self, worker_id: str, reason: str) -> bool:
        """The Fleet port: it is quarantined at once."""
        sick = events_pb2.WorkerQuarantined(worker_id=worker_id, requested_by="rm", reason=reason)
        await self.tell(events_pb2.Event(worker_quarantined=sick))
        return True

    async def release(self, worker_id: str) -> bool:
        """The Fleet port: it works again at once."""
        released = events_pb2.WorkerReleased(worker_id=worker_id, requested_by="rm")
        await self.tell(events_pb2.Event(worker_released=released))
        return True

    async def report_lost(self, worker_id: str, incarnation: int, reason: str) -> bool:
        """The Fleet port: the worker is lost at once."""
        lost = events_pb2.WorkerLost(worker_id=worker_id, incarnation=incarnation, reason=reason)
        await self.tell(events_pb2.Event(worker_lost=lost))
        return True

    async def close(self) -> None:
        """Nothing is held."""


class Decisions:
    """What was published, as it appears."""

    def __init__(self, scaling: RecordStream) -> None:
        self.seen: list[scaling_pb2.ScalingDecision] = []
        self._batches = aiter(scaling.follow(0))
        self._cursor = 0

    async def until(self, action: "scaling_pb2.ScalingAction.ValueType") -> scaling_pb2.ScalingDecision:
        """The next decision of this kind, passing over others."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                while self._cursor < len(self.seen):
                    decision = self.seen[self._cursor]
                    self._cursor += 1
                    if decision.action == action:
                        return decision
                for stored in await anext(self._batches):
                    self.seen.append(scaling_pb2.ScalingDecision.FromString(stored.payload))


async def read_decisions(scaling: RecordStream) -> list[scaling_pb2.ScalingDecision]:
    """Every decision stored."""
    decisions = []
    async for batch in scaling.read(0):
        decisions += [scaling_pb2.ScalingDecision.FromString(message.payload) for message in batch]
    return decisions


def quick_policy(minimum: int = 1, maximum: int = 4, **pace: float) -> ScalingPolicy:
    """Bounds for a test, and a pace that does not keep it waiting."""
    quick = {
        "backlog_aim_seconds": 2.0,
        "scale_in_idle_seconds": 0.05,
        "scale_out_cooldown_seconds": 0.0,
        "scale_in_cooldown_seconds": 0.0,
    }
    return ScalingPolicy("local", minimum, maximum, 1, **{**quick, **pace})  # type: ignore[arg-type]


class Crash(Exception):
    """kill -9, as seen from inside: nothing is done after it."""


@asynccontextmanager
async def managing(
    policy: ScalingPolicy,
    *,
    log: EventLog,
    scaling: RecordStream,
    provider: CapacityProvider,
    fleet: ScriptedCoordinator,
    clock: Clock,
    state_dir: Path,
    namespace: str = "default",
) -> AsyncIterator[ResourceManager]:
    """A resource manager at work; raising Crash in the body ends it without any farewell."""
    manager = ResourceManager(
        [ManagedPool(policy, provider)],
        namespace=namespace,
        log=log,
        scaling=scaling,
        fleet=fleet,
        clock=clock,
        state_dir=state_dir,
    )
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(manager.run())
            async with asyncio.timeout(WAIT_SECONDS):
                await manager.ready.wait()
            yield manager
            manager.stop()
    except* Crash:
        pass
