"""The process: follows the log, decides, and has the provider and the coordinator carry it out.

    log ──▶ LogReader ──▶ projection ─┐
    provider ──exits──▶ ledger ───────┴─▶ decide ─▶ save ─▶ publish · launch · drain · terminate

A decision is on disk before anything is asked of anyone, and every launch has an identity, so a
kill -9 between any two steps neither forgets nor doubles: the next start asks again for the
launches that the provider does not know, and publishes what was not acknowledged under the same id.

Workers are the resource manager's: when it is stopped in good order it ends them (unless told
otherwise), when it is killed they go on and are taken up again.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy
from dtf.ports.capacity import CapacityProvider, Instance, InstanceState, LaunchRequest, ProviderError
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, RecordStream
from dtf.resource_manager.announcer import Announcer
from dtf.resource_manager.fleet import DrainAnswer, Fleet
from dtf.resource_manager.log_reader import LogReader
from dtf.resource_manager.numbers import recover_numbers
from dtf.resource_manager.state_file import ManagerState, StateFile
from dtf.resource_manager.waiting import wait_until
from dtf.settings.model import PoolSettings

DECISION_INTERVAL_SECONDS = 0.01
"""Decisions are at least so far apart: commits come in hundreds a second, workers in seconds."""
SAVE_AFTER_COMMITS = 2000
"""The projection is saved at least this often; a restart folds what came since in some 20 ms."""
TERMINATE_GRACE_SECONDS = 5.0
STOP_GRACE_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 10.0
PUBLISH_TIMEOUT_SECONDS = 2.0

_log = logging.getLogger("dtf.resource_manager")


def resolve_policy(settings: PoolSettings, processors: int) -> ScalingPolicy:
    """The settings with every default filled in."""
    most = settings.max_workers or max(2, processors)
    return ScalingPolicy(
        pool=settings.name,
        min_workers=settings.min_workers,
        max_workers=max(most, settings.min_workers),
        slots=settings.slots,
        labels=dict(settings.labels),
        backlog_aim_seconds=settings.backlog_aim_seconds,
        scale_in_idle_seconds=settings.scale_in_idle_seconds,
        scale_out_cooldown_seconds=settings.scale_out_cooldown_seconds,
        scale_in_cooldown_seconds=settings.scale_in_cooldown_seconds,
    )


class ResourceManager:
    """Keeps one pool. `run` serves until `stop` is called."""

    def __init__(
        self,
        policy: ScalingPolicy,
        *,
        namespace: str,
        log: EventLog,
        scaling: RecordStream,
        provider: CapacityProvider,
        fleet: Fleet,
        clock: Clock,
        state_dir: Path,
        leaves_workers: bool = False,
    ) -> None:
        self._policy = policy
        self._namespace = namespace
        self._scaling = scaling
        self._event_log = log
        self._provider = provider
        self._fleet = fleet
        self._clock = clock
        self._file = StateFile(state_dir, policy.pool)
        self._leaves_workers = leaves_workers
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._unsaved_commits = 0
        self._state = ManagerState(PoolLedger(policy.pool))
        self.ready = asyncio.Event()
        """Set once the pool is looked after."""

    def stop(self) -> None:
        """Let `run` return in good order."""
        self._stopping.set()

    async def run(self) -> None:
        """Look after the pool. Raises ChainBroken when the log is not one chain any more."""
        await self._load()
        reader = LogReader(self._event_log, self._state, self._clock)
        self._announcer = Announcer(self._scaling, self._namespace, self._state, self._clock)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            serving = tasks.create_task(self._serve(reader))
            await self._stopping.wait()
            serving.cancel()
        await self._shut_down()

    @property
    def _ledger(self) -> PoolLedger:
        return self._state.ledger

    async def _serve(self, reader: LogReader) -> None:
        await reader.catch_up()
        await self._reconcile()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(reader.follow(self._folded))
            tasks.create_task(self._hear_exits())
            tasks.create_task(self._announcer.run())
            tasks.create_task(self._decide_forever())

    async def _load(self) -> None:
        saved = await asyncio.to_thread(self._file.load)
        if saved is not None:
            self._state = saved
            return
        await recover_numbers(self._ledger, self._scaling)

    async def _reconcile(self) -> None:
        """Learn from the provider what became of the launches while nobody watched."""
        known = {instance.launch_id: instance for instance in await self._provider.list_instances()}
        self._ledger.sync(self._state.projection, self._clock.now_ns())
        for instance in known.values():
            if instance.state is InstanceState.RUNNING:
                self._adopted(instance)
            else:
                self._exited(instance)
        for launch in list(self._ledger.launches.values()):
            if launch.launch_id in known:
                continue
            if launch.is_registered:
                self._observe_exit(launch.launch_id, "is gone", is_clean=self._has_left(launch.launch_id))
            else:
                await self._launch(launch.launch_id)
        await self._save()
        for instance in known.values():
            await self._provider.forget(instance.launch_id)
            if instance.state is InstanceState.EXITED:
                self._tasks.create_task(self._report_lost(instance))

    def _folded(self, count: int) -> None:
        self._unsaved_commits += count
        self._changed.set()

    async def _hear_exits(self) -> None:
        exits: AsyncIterator[Instance] = self._provider.exits()
        async for instance in exits:
            _log.info("%s (%s) %s", instance.launch_id, instance.handle, instance.reason)
            self._exited(instance)
            await self._save()
            await self._provider.forget(instance.launch_id)
            self._tasks.create_task(self._report_lost(instance))
            self._changed.set()

    def _exited(self, instance: Instance) -> None:
        is_clean = instance.is_clean or self._has_left(instance.launch_id)
        self._observe_exit(instance.launch_id, instance.reason, is_clean=is_clean)

    def _observe_exit(
        self, launch_id: str, reason: str, *, is_clean: bool, is_dismissed: bool = False
    ) -> None:
        exited = scaling_pb2.LaunchExited(
            launch_id=launch_id, reason=reason, is_clean=is_clean, is_dismissed=is_dismissed
        )
        self._observe(scaling_pb2.Observation(exited=exited))

    def _adopted(self, instance: Instance) -> None:
        adopted = scaling_pb2.LaunchAdopted(
            launch_id=instance.launch_id, launched_unix_nanos=instance.launched_at_ns
        )
        if instance.launch_id not in self._ledger.launches:
            self._observe(scaling_pb2.Observation(adopted=adopted))

    def _observe(self, seen: scaling_pb2.Observation) -> None:
        seen.now_unix_nanos = self._clock.now_ns()
        self._state.observe(seen)

    def _has_left(self, launch_id: str) -> bool:
        """Whether the log says that the worker was going or has gone by itself."""
        projection = self._state.projection
        if launch_id in projection.gone:
            return projection.gone[launch_id].departure == "left"
        return any(w.is_draining for w in projection.workers.values() if w.launch_id == launch_id)

    async def _decide_forever(self) -> None:
        while True:
            self._changed.clear()
            wake_at_ns = await self._decide()
            self.ready.set()
            if self._unsaved_commits >= SAVE_AFTER_COMMITS:
                await self._save()
            await self._clock.sleep(DECISION_INTERVAL_SECONDS)
            await wait_until(self._changed, wake_at_ns, self._clock)

    async def _decide(self) -> int | None:
        """Decide until there is nothing more to do now; return when time alone may bring more."""
        while True:
            # The log's time may be ahead of ours by the skew between two machines.
            now_ns = max(self._clock.now_ns(), self._state.projection.last_ns)
            self._ledger.sync(self._state.projection, now_ns)
            plan = decide_scaling(self._state.projection, self._ledger, self._policy, now_ns)
            if plan.decision is None:
                return plan.wake_at_ns
            self._ledger.record(plan.decision, plan.hold_kind)
            plan.decision.observations.extend(self._state.take_observations())
            self._announcer.announce(plan.decision)
            await self._save()
            await self._carry_out(plan.decision)
            if plan.decision.action == scaling_pb2.SCALING_ACTION_HOLD:
                return plan.wake_at_ns

    async def _carry_out(self, decision: scaling_pb2.ScalingDecision) -> None:
        action = scaling_pb2.ScalingAction.Name(decision.action).removeprefix("SCALING_ACTION_").lower()
        _log.info("%s %s, %d wanted: %s", decision.decision_id, action, decision.desired, decision.reason)
        match decision.action:
            case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
                for launch_id in decision.launch_ids:
                    await self._launch(launch_id)
            case scaling_pb2.SCALING_ACTION_SCALE_IN:
                for worker_id in decision.worker_ids:
                    self._tasks.create_task(self._drain(worker_id, decision.reason))
            case scaling_pb2.SCALING_ACTION_TERMINATE:
                for launch_id in decision.launch_ids:
                    await self._provider.terminate(launch_id, TERMINATE_GRACE_SECONDS)
            case _:
                pass  # a hold asks nothing of anyone

    async def _launch(self, launch_id: str) -> None:
        request = LaunchRequest(launch_id, self._policy.pool, self._policy.slots, self._policy.labels)
        try:
            instance = await self._provider.launch(request)
        except ProviderError as error:
            _log.error("%s could not be launched: %s", launch_id, error)
            failed = scaling_pb2.LaunchFailed(launch_id=launch_id, reason=str(error))
            self._observe(scaling_pb2.Observation(failed=failed))
            return
        _log.info("%s launched as %s", launch_id, instance.handle)

    async def _drain(self, worker_id: str, reason: str) -> None:
        answer = await self._fleet.drain_idle(worker_id, reason)
        if answer is DrainAnswer.REFUSED:
            self._observe(scaling_pb2.Observation(drain_refused_worker_id=worker_id))
            self._changed.set()
        if answer is not DrainAnswer.DRAINING:
            _log.info("%s was not drained: %s", worker_id, answer.value)

    async def _report_lost(self, instance: Instance) -> None:
        """Tell the coordinator of a worker that its log still takes for alive, so that nothing waits for a lease.

        Whoever is not heard here is lost all the same when its leases expire.
        """
        for worker in list(self._state.projection.workers.values()):
            if worker.launch_id == instance.launch_id and not instance.is_clean:
                reason = f"worker {worker.worker_id} {instance.reason}"
                if not await self._fleet.report_lost(worker.worker_id, worker.incarnation, reason):
                    _log.info("the coordinator did not hear that %s", reason)

    async def _save(self) -> None:
        self._unsaved_commits = 0
        await self._file.save(self._state)

    async def _shut_down(self) -> None:
        if self._ledger.launches and not self._leaves_workers:
            self._announcer.announce(self._record_end())
            await self._end_workers()
        await self._announcer.publish_rest(PUBLISH_TIMEOUT_SECONDS)
        await self._save()

    def _record_end(self) -> scaling_pb2.ScalingDecision:
        decision = scaling_pb2.ScalingDecision(
            decision_id=self._ledger.decision_id(),
            now_unix_nanos=self._clock.now_ns(),
            pool=self._policy.pool,
            action=scaling_pb2.SCALING_ACTION_TERMINATE,
            launch_ids=list(self._ledger.launches),
            log_sequence=self._state.projection.last_sequence,
            reason="the resource manager was told to stop",
            observations=self._state.take_observations(),
        )
        self._ledger.record(decision)
        return decision

    async def _end_workers(self) -> None:
        """End every worker and wait for it, so that nothing is left when this returns."""
        for launch_id in list(self._ledger.launches):
            await self._provider.terminate(launch_id, STOP_GRACE_SECONDS)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await self._await_exits()
        except TimeoutError:
            _log.error("%s did not end", ", ".join(self._ledger.launches))

    async def _await_exits(self) -> None:
        known = {instance.launch_id: instance for instance in await self._provider.list_instances()}
        for launch_id in list(self._ledger.launches):
            if launch_id not in known:
                del self._ledger.launches[launch_id]  # decided, and not asked for any more
            elif known[launch_id].state is InstanceState.EXITED:
                await self._forget(known[launch_id])
        exits = aiter(self._provider.exits())
        while self._ledger.launches:
            await self._forget(await anext(exits))

    async def _forget(self, instance: Instance) -> None:
        self._observe_exit(instance.launch_id, instance.reason, is_clean=instance.is_clean, is_dismissed=True)
        await self._provider.forget(instance.launch_id)
