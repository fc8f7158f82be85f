"""Deciding without authority: a dry run, or a candidate policy that follows as a shadow.

A rehearsal sees what the pool's keeper sees, asks nobody for anything, and publishes what it would do,
marked as such (ScalingDecision.rehearsal), whenever that is something else than it said last. A shadow
says now and then, and at the end, what the pool would have come to by it: the demand that the log told
of meanwhile, replayed in virtual time (`dtf.core.simulation.scaling`), against what was observed.
"""

import asyncio
import logging
from collections.abc import Callable

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.scaling import snapshot
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.recorded import DemandReader, RecordedDemand
from dtf.core.simulation.scaling.regret import Regret, observed_outcome, regret
from dtf.core.simulation.scaling.shipped import ShippedPolicy
from dtf.core.simulation.scaling.simulator import SimulationStuck, simulate
from dtf.ports.clock import Clock
from dtf.resource_manager.announcer import Announcer
from dtf.resource_manager.state_file import ManagerState

PACE_SECONDS = 1.0
REGRET_SECONDS = 60.0
MOST_TASKS = 200_000
"""Tasks that a shadow's regret looks back on; then it begins anew."""
DRY_RUN = "dry-run"

_log = logging.getLogger("dtf.resource_manager")


class Rehearsal:
    """What one policy would do. `serve` runs until it is cancelled; with the pool's ledger it is a shadow."""

    def __init__(
        self,
        name: str,
        policy: ScalingPolicy,
        *,
        state: ManagerState,
        announcer: Announcer,
        clock: Clock,
        ledger: Callable[[], PoolLedger] | None = None,
    ) -> None:
        self.name = name
        self._policy = policy
        self._state = state
        self._announcer = announcer
        self._clock = clock
        self._ledger = ledger
        self._said: tuple[int, int, str] | None = None
        self._reader = DemandReader(name)
        self._decided: list[scaling_pb2.ScalingDecision] = []
        self._task_count = 0

    def take(self, sequence: int, message_id: str, commit: events_pb2.Commit) -> None:
        """A commit was folded."""
        if self._ledger is None:
            return
        submitted = sum(len(event.tasks_submitted.names) for event in commit.events)
        if self._task_count + submitted > MOST_TASKS:
            self._reader, self._decided, self._task_count = DemandReader(self.name), [], 0
        self._task_count += submitted
        self._reader.take(sequence, message_id, commit)

    def carried_out(self, decision: scaling_pb2.ScalingDecision) -> None:
        """A keeper decided."""
        if decision.pool == self._policy.pool:
            self._decided.append(decision)

    async def serve(self) -> None:
        """Say what it would do as it changes, and what it would have come to now and then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._decide_forever())
            if self._ledger is not None:
                tasks.create_task(self._look_back_forever())

    async def _decide_forever(self) -> None:
        while True:
            self.decide()
            await self._clock.sleep(PACE_SECONDS)

    def decide(self) -> None:
        """Publish what it would do now, if that is something else than last."""
        now_ns = max(self._clock.now_ns(), self._state.projection.last_ns)
        ledger = self._copy(now_ns)
        plan = decide_scaling(self._state.projection, ledger, self._policy, now_ns)
        decision = plan.decision
        if decision is None or self._said == _gist(decision):
            return
        self._said = _gist(decision)
        self._publish(decision, now_ns)

    async def look_back(self) -> Regret | None:
        """What following the pool's policy rather than this one has cost until now; None: nothing ended yet."""
        demand = self._reader.finish()
        if self._ledger is None or not len(demand.trace):
            return None
        ledger = self._ledger()
        found = await asyncio.to_thread(self._simulate, demand, list(self._decided), ledger.startup_seconds)
        if found is not None:
            said = scaling_pb2.ScalingDecision(
                pool=self._policy.pool,
                action=scaling_pb2.SCALING_ACTION_HOLD,
                log_sequence=self._state.projection.last_sequence,
                reason=f"regret over {len(demand.trace)} tasks: {found.verdict}",
            )
            _log.info("shadow %s: %s", self.name, said.reason)
            self._publish(said, self._clock.now_ns())
        return found

    async def _look_back_forever(self) -> None:
        while True:
            await self._clock.sleep(REGRET_SECONDS)
            await self.look_back()

    def _simulate(
        self, demand: RecordedDemand, decided: list[scaling_pb2.ScalingDecision], startup: float
    ) -> Regret | None:
        policy = self._policy
        shape = PoolShape(
            min_workers=policy.min_workers,
            max_workers=policy.max_workers,
            startup_seconds=startup,
            slots=policy.slots,
            price=policy.price_per_hour,
        )
        try:
            candidate = simulate(demand.trace, shape, ShippedPolicy(self.name, policy))
        except SimulationStuck as error:
            _log.warning("shadow %s: %s", self.name, error)
            return None
        observed = observed_outcome(demand, decided, startup_seconds=startup, price=policy.price_per_hour)
        return regret(observed, candidate)

    def _publish(self, decision: scaling_pb2.ScalingDecision, now_ns: int) -> None:
        decision.rehearsal = self.name
        decision.now_unix_nanos = now_ns
        decision.decision_id = f"{self._policy.pool}/{self.name}@{now_ns}"
        self._announcer.announce(decision)

    def _copy(self, now_ns: int) -> PoolLedger:
        """The pool's ledger, to be thrown away; of a dry run, one that has launched what is there."""
        if self._ledger is not None:
            copied = snapshot.decode(snapshot.encode(self._ledger()), PoolLedger)
            assert copied is not None
            return copied
        ledger = PoolLedger(self._policy.pool)
        for worker in self._state.projection.workers.values():
            if worker.pool == self._policy.pool and worker.launch_id:
                ledger.adopt(worker.launch_id, worker.registered_at_ns)
        ledger.sync(self._state.projection, now_ns)
        ledger.startups.clear()
        return ledger


def _gist(decision: scaling_pb2.ScalingDecision) -> tuple[int, int, str]:
    is_hold = decision.action == scaling_pb2.SCALING_ACTION_HOLD
    return decision.action, decision.desired, "" if is_hold else " ".join(decision.worker_ids)
