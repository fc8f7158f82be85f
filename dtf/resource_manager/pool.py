"""One pool: decides, and has its provider and the coordinator carry it out.

    provider ──exits──▶ ledger ──▶ decide ─▶ save ─▶ publish · launch · drain · terminate

A decision is on disk before anything is asked of anyone, and every launch has an identity, so a
kill -9 between any two steps neither forgets nor doubles: the next start asks again for the
launches that the provider does not know, ends again what was to be ended, and publishes what was
not acknowledged under the same id.

While the provider does not answer, the pool stays as it is; the others are not concerned.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.measure import measure
from dtf.ports.capacity import (
    Instance,
    InstanceState,
    ProviderError,
    QuotaExceeded,
)
from dtf.resource_manager.fleet import DrainAnswer
from dtf.resource_manager.hearing import Hearing
from dtf.resource_manager.managed_pool import ManagedPool, Office
from dtf.resource_manager.meters import PoolMeters
from dtf.resource_manager.nurse import Nurse
from dtf.resource_manager.waiting import wait_until

DECISION_INTERVAL_SECONDS = 0.01
"""Decisions are at least so far apart: commits come in hundreds a second, workers in seconds."""
LOOK_SECONDS = 5.0
"""How often the provider's list is read: for what it will take away, and for what neither side told of."""
LAUNCHES_AT_ONCE = 16
TERMINATE_GRACE_SECONDS = 5.0
STOP_GRACE_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between attempts while the provider does not answer."""

_log = logging.getLogger("dtf.resource_manager")


class PoolKeeper:
    """Looks after one pool. `serve` runs until it is cancelled."""

    def __init__(self, pool: ManagedPool, office: Office) -> None:
        self.name = pool.policy.pool
        self.meters = PoolMeters()
        self.ready = asyncio.Event()
        """Set once the pool is looked after, or its provider has been found not to answer."""
        self._pool = pool
        self._policy = pool.policy
        self._provider = pool.provider
        self._office = office
        self._clock = office.clock
        self._state = office.state
        self._changed = asyncio.Event()
        self._launching: set[str] = set()
        self._interrupted: set[str] = set()
        self._hearing = Hearing(self.name, office.state, office.clock)
        self._counted = {launch.launch_id for launch in self.ledger.launches.values() if launch.is_registered}
        self._nurse = Nurse(
            self.name,
            pool.quarantine_ratio,
            pool.probation_seconds,
            state=office.state,
            fleet=office.fleet,
            clock=office.clock,
            save=office.save,
            meters=self.meters,
            end=self._end_sick,
        )

    @property
    def ledger(self) -> PoolLedger:
        """What was done and what became of it."""
        return self._state.pools[self.name].ledger

    def wake(self) -> None:
        """Something has changed that may change what is decided."""
        self._changed.set()

    async def serve(self) -> None:
        """Look after the pool; the log has been read to its end."""
        await self._patiently("start", self._pool.start)
        await self._patiently("list", self._reconcile)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear_exits())
            tasks.create_task(self._look_forever())
            tasks.create_task(self._decide_forever())
            if self._pool.quarantine_ratio > 0:
                tasks.create_task(self._nurse.serve())

    def measure(self) -> None:
        """Bring the figures up to date."""
        projection, now_ns = self._state.projection, self._clock.now_ns()
        measured = measure(
            projection, self.ledger, self._policy, now_ns, self._office.allocate(self.name, now_ns)
        )
        self.meters.measured(measured.staff, measured.awaited, measured.queued, measured.backlog_seconds)
        for launch in self.ledger.launches.values():
            worker = projection.workers.get(launch.worker_id)
            if worker is not None and launch.launch_id not in self._counted:
                self._counted.add(launch.launch_id)
                self.meters.started((worker.registered_at_ns - launch.requested_at_ns) / 1e9)
        self._counted &= self.ledger.launches.keys()

    # -- what the provider says

    async def _reconcile(self) -> None:
        """Learn from the provider what became of the launches while nobody watched."""
        known = {instance.launch_id: instance for instance in await self._provider.list_instances()}
        self.ledger.sync(self._state.projection, self._clock.now_ns())
        for instance in known.values():
            self._hearing.take_in(instance)
        for launch in list(self.ledger.launches.values()):
            if launch.launch_id in known:
                continue
            if launch.is_registered or launch.is_stopping:
                self._hearing.observe_exit(
                    launch.launch_id, "is gone", is_clean=self._hearing.has_left(launch.launch_id)
                )
            else:
                await self._launch(launch.launch_id)
        await self._office.save()
        for instance in known.values():
            await self._after(instance)

    async def _look_forever(self) -> None:
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self._look(await self._provider.list_instances())
            except ProviderError as error:
                self._failed("list", error)

    async def _look(self, instances: Sequence[Instance]) -> None:
        """Take in what neither an exit nor an answer has told of."""
        listed = {instance.launch_id for instance in instances}
        before = len(self._state.pools[self.name].observations)
        for instance in instances:
            self._hearing.take_in(instance)
        for launch_id in self._hearing.missing(listed, self._launching):
            self._hearing.observe_exit(launch_id, "is gone", is_clean=self._hearing.has_left(launch_id))
        if len(self._state.pools[self.name].observations) != before:
            await self._office.save()
            self._office.wake_all()
        for instance in instances:
            await self._after(instance)
            if instance.interruption and instance.state is InstanceState.RUNNING:
                self._interruption(instance)

    async def _after(self, instance: Instance) -> None:
        """What is left to do about an instance once its state is saved."""
        if instance.state is InstanceState.EXITED:
            await self._provider.forget(instance.launch_id)
            self._office.tasks.create_task(self._report_lost(instance))
            return
        launch = self.ledger.launches.get(instance.launch_id)
        if launch is not None and launch.is_stopping:
            await self._terminate(instance.launch_id)

    def _interruption(self, instance: Instance) -> None:
        """The provider will take it away: it takes nothing new, and a replacement comes for it."""
        self._interrupted &= self.ledger.launches.keys()
        if instance.launch_id in self._interrupted:
            return
        self._interrupted.add(instance.launch_id)
        _log.warning("%s (%s): %s", instance.launch_id, instance.handle, instance.interruption)
        interrupted = scaling_pb2.LaunchInterrupted(
            launch_id=instance.launch_id, reason=instance.interruption
        )
        self._hearing.observe(scaling_pb2.Observation(interrupted=interrupted))
        for worker in self._state.projection.workers.values():
            if worker.launch_id == instance.launch_id and not worker.is_draining:
                self._office.tasks.create_task(
                    self._drain_interrupted(worker.worker_id, instance.launch_id, instance.interruption)
                )

    async def _drain_interrupted(self, worker_id: str, launch_id: str, why: str) -> None:
        if await self._office.fleet.drain(worker_id, why) is not DrainAnswer.DRAINING:
            self._interrupted.discard(launch_id)  # asked again with the next look

    async def _hear_exits(self) -> None:
        while True:
            try:
                async for instance in self._provider.exits():
                    await self._hear_exit(instance)
            except ProviderError as error:
                self._failed("watch", error)
                await self._clock.sleep(LOOK_SECONDS)

    async def _hear_exit(self, instance: Instance) -> None:
        _log.info("%s (%s) %s", instance.launch_id, instance.handle, instance.reason)
        self._hearing.exited(instance)
        await self._office.save()
        await self._after(instance)
        self._office.wake_all()

    async def _report_lost(self, instance: Instance) -> None:
        """Tell the coordinator of a worker that its log still takes for alive, so that nothing waits for a lease.

        Whoever is not heard here is lost all the same when its leases expire.
        """
        for worker in list(self._state.projection.workers.values()):
            if worker.launch_id == instance.launch_id and not instance.is_clean:
                reason = f"worker {worker.worker_id} {instance.reason}"
                if not await self._office.fleet.report_lost(worker.worker_id, worker.incarnation, reason):
                    _log.info("the coordinator did not hear that %s", reason)

    # -- what is decided

    async def _decide_forever(self) -> None:
        while True:
            self._changed.clear()
            wake_at_ns = await self._decide()
            self.ready.set()
            await self._clock.sleep(DECISION_INTERVAL_SECONDS)
            await wait_until(self._changed, wake_at_ns, self._clock)

    async def _decide(self) -> int | None:
        """Decide until there is nothing more to do now; return when time alone may bring more."""
        while True:
            # The log's time may be ahead of ours by the skew between two machines.
            now_ns = max(self._clock.now_ns(), self._state.projection.last_ns)
            self.ledger.sync(self._state.projection, now_ns)
            allocation = self._office.allocate(self.name, now_ns)
            plan = decide_scaling(
                self._state.projection,
                self.ledger,
                self._policy,
                now_ns,
                allocation=allocation,
                telemetry=self._office.telemetry(self.name, now_ns),
            )
            if plan.decision is None:
                return plan.wake_at_ns
            plan.decision.observations.extend(self._state.pools[self.name].take_observations())
            await self._settle(plan.decision, plan.hold_kind)
            if plan.decision.action == scaling_pb2.SCALING_ACTION_HOLD:
                return plan.wake_at_ns

    async def _carry_out(self, decision: scaling_pb2.ScalingDecision) -> None:
        action = scaling_pb2.ScalingAction.Name(decision.action).removeprefix("SCALING_ACTION_").lower()
        _log.info("%s %s, %d wanted: %s", decision.decision_id, action, decision.desired, decision.reason)
        match decision.action:
            case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
                await self._launch_all(decision.launch_ids)
            case scaling_pb2.SCALING_ACTION_SCALE_IN:
                for worker_id in decision.worker_ids:
                    self._office.tasks.create_task(self._drain(worker_id, decision.reason))
            case scaling_pb2.SCALING_ACTION_TERMINATE:
                for launch_id in decision.launch_ids:
                    await self._terminate(launch_id)
            case _:
                pass  # a hold asks nothing of anyone

    async def _launch_all(self, launch_ids: Iterable[str]) -> None:
        """Some at once: an answer of a cloud takes seconds."""
        turns = asyncio.Semaphore(LAUNCHES_AT_ONCE)

        async def launch(launch_id: str) -> None:
            async with turns:
                await self._launch(launch_id)

        async with asyncio.TaskGroup() as tasks:
            for launch_id in launch_ids:
                tasks.create_task(launch(launch_id))

    async def _launch(self, launch_id: str) -> None:
        self._launching.add(launch_id)
        try:
            instance = await self._provider.launch(self._pool.request(launch_id))
        except ProviderError as error:
            self._failed("launch", error)
            failed = scaling_pb2.LaunchFailed(
                launch_id=launch_id, reason=str(error), is_quota=isinstance(error, QuotaExceeded)
            )
            self._hearing.observe(scaling_pb2.Observation(failed=failed))
            self._office.wake_all()
            return
        finally:
            self._launching.discard(launch_id)
        _log.info("%s launched as %s", launch_id, instance.handle)

    async def _terminate(self, launch_id: str) -> None:
        """Have the provider end it; what it does not hear now, it is asked again with the next look."""
        try:
            await self._provider.terminate(launch_id, TERMINATE_GRACE_SECONDS)
        except ProviderError as error:
            self._failed("terminate", error)

    async def _drain(self, worker_id: str, reason: str) -> None:
        answer = await self._office.fleet.drain_idle(worker_id, reason)
        if answer is DrainAnswer.REFUSED:
            self._hearing.observe(scaling_pb2.Observation(drain_refused_worker_id=worker_id))
            self._changed.set()
        if answer is not DrainAnswer.DRAINING:
            _log.info("%s was not drained: %s", worker_id, answer.value)

    def _failed(self, operation: str, error: ProviderError) -> None:
        self.meters.provider_errors[operation] += 1
        _log.error("pool %s: the provider did not %s: %s", self.name, operation, error)

    async def _patiently(self, operation: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do `step` again until the provider answers."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await step()
            except ProviderError as error:
                self._failed(operation, error)
                await self._tell_waiting(str(error))
                self.ready.set()
                await self._clock.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _tell_waiting(self, fault: str) -> None:
        """Say in a decision that nothing is done, once for each reason."""
        if self.ledger.hold_kind == fault:
            return
        held = self._decision(scaling_pb2.SCALING_ACTION_HOLD, f"the provider does not answer: {fault}")
        await self._settle(held, fault)

    def _decision(
        self, action: "scaling_pb2.ScalingAction.ValueType", reason: str
    ) -> scaling_pb2.ScalingDecision:
        return scaling_pb2.ScalingDecision(
            decision_id=self.ledger.decision_id(),
            now_unix_nanos=self._clock.now_ns(),
            pool=self.name,
            action=action,
            log_sequence=self._state.projection.last_sequence,
            reason=reason,
            observations=self._state.pools[self.name].take_observations(),
        )

    async def _end_sick(self, launch_id: str, worker_id: str, reason: str) -> None:
        """End a quarantined worker for good."""
        launch = self.ledger.launches.get(launch_id)
        if launch is None or launch.is_stopping:
            return
        decision = self._decision(scaling_pb2.SCALING_ACTION_TERMINATE, reason)
        decision.launch_ids.append(launch_id)
        decision.worker_ids.append(worker_id)
        await self._settle(decision)

    async def _settle(self, decision: scaling_pb2.ScalingDecision, hold_kind: str = "") -> None:
        """Record, publish and carry out."""
        self.ledger.record(decision, hold_kind)
        self._office.announce(decision)
        self.meters.decided(decision)
        await self._office.save()
        await self._carry_out(decision)

    # -- the end

    async def end(self) -> None:
        """End every worker and wait for it, so that nothing is left when this returns."""
        if not self.ledger.launches:
            return
        self._office.announce(self._record_end())
        await self._office.save()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                for launch_id in list(self.ledger.launches):
                    await self._provider.terminate(launch_id, STOP_GRACE_SECONDS)
                await self._await_exits()
        except TimeoutError:
            _log.error("%s did not end", ", ".join(self.ledger.launches))
        except ProviderError as error:
            self._failed("terminate", error)

    def _record_end(self) -> scaling_pb2.ScalingDecision:
        decision = self._decision(
            scaling_pb2.SCALING_ACTION_TERMINATE, "the resource manager was told to stop"
        )
        decision.launch_ids.extend(self.ledger.launches)
        self.ledger.record(decision)
        return decision

    async def _await_exits(self) -> None:
        known = {instance.launch_id: instance for instance in await self._provider.list_instances()}
        for launch_id in list(self.ledger.launches):
            if launch_id not in known:
                del self.ledger.launches[launch_id]  # decided, and not asked for any more
            elif known[launch_id].state is InstanceState.EXITED:
                await self._forget(known[launch_id])
        exits = aiter(self._provider.exits())
        while self.ledger.launches:
            await self._forget(await anext(exits))

    async def _forget(self, instance: Instance) -> None:
        self._hearing.observe_exit(
            instance.launch_id, instance.reason, is_clean=instance.is_clean, is_dismissed=True
        )
        await self._provider.forget(instance.launch_id)
