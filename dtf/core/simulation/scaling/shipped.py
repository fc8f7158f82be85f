"""The policy that ships: the very decisions of the resource manager, on a projection that the simulation feeds.

`decide_scaling` gets a DemandProjection and a PoolLedger as in the process; only the commits are left
out: what they would have changed is changed here, task by task, at a fraction of their cost.
"""

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.backlog import RunBacklog, TemplateLoad, Work
from dtf.core.scaling.decide import decide_scaling
from dtf.core.scaling.demand import DemandProjection, WorkerView
from dtf.core.scaling.durations import Kind, suite_durations
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS
from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.simulated_worker import SimulatedWorker
from dtf.core.simulation.scaling.simulator import SimulatedPool

START_NS = 1_700_000_000 * NANOS
"""The simulation's zero: ledgers and meters take 0 for "never"."""
PACE_SECONDS = 1.0
"""The process decides up to a hundred times a second; a pool whose workers take seconds to start gains nothing by it."""
RELAXED = 5.0
"""Times the pace: a task that ended wants no worker, and who is idle goes by the decision's own timer."""
LARGE_TRACE = 100_000
LARGE_PACE_SECONDS = 20.0
"""The pace on traces of more tasks than that: a month by the minute is replayed in about a minute, not in five."""
RUN = SUITE = "trace"
_UNKNOWN = Work(1, 0.0, 1, 1)
"""A task of which nothing is known."""


class ShippedPolicy(Listener):
    """A policy of ours; `default` is the one that a pool has if nothing is set."""

    def __init__(self, name: str, policy: ScalingPolicy, pace_seconds: float = PACE_SECONDS) -> None:
        self.name = name
        self.pace_seconds = pace_seconds
        self.relaxed_seconds = RELAXED * pace_seconds
        self._policy = policy
        self._projection = DemandProjection()
        self._ledger = PoolLedger(policy.pool)
        self._load = TemplateLoad(Kind.COMMAND, "", {}, 0.0, 0, 0)
        self._projection.runs[RUN] = RunBacklog(SUITE, [self._load])
        self._traffic = self._projection.traffic_of(self._load)
        self._durations = suite_durations(self._projection.suites, SUITE)
        self._workers: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._busy_count = 0
        self._counted_ns = START_NS
        self._is_fleet_changed = True

    def begin(self, pool: SimulatedPool) -> None:
        """The workers of the pool's minimum are adopted, as after a restart of the process."""
        now_ns = _instant(pool)
        if len(pool.trace) > LARGE_TRACE:
            self.pace_seconds = max(self.pace_seconds, LARGE_PACE_SECONDS)
            self.relaxed_seconds = RELAXED * self.pace_seconds
        for worker in pool.workers.values():
            launch_id = self._ledger.launch_ids(1)[0]
            self._ledger.adopt(launch_id, now_ns)
            self._know(worker, launch_id)

    def submitted(self, pool: SimulatedPool, task: int) -> None:
        """A TasksSubmitted of one task."""
        now_ns = _instant(pool)
        self._load.queued.add(self._work(pool, task))
        self._projection.arrivals.add(now_ns, 1)
        free = len(self._projection.workers) * pool.shape.slots - self._traffic.tasks
        self._traffic.arrived(now_ns, 1, free)

    def started(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """A LeasesGranted of one lease."""
        work, now_ns = self._work(pool, task), _instant(pool)
        self._load.queued.subtract(work)
        self._load.leased.add(work)
        view = self._projection.workers[self._workers[worker.number]]
        if not view.lease_count:
            self._count_busy(now_ns)
            self._busy_count += 1
        view.lease_count += 1
        self._traffic.started(now_ns, 1, len(self._projection.workers) * pool.shape.slots)

    def finished(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """A ResultsAccepted of one result."""
        now_ns = _instant(pool)
        self._load.leased.subtract(self._work(pool, task))
        self._projection.finished.add(now_ns, 1)
        self._traffic.ended(now_ns, 1)
        self._durations.learn(Kind.COMMAND, (pool.trace.durations[task],))
        view = self._projection.workers[self._workers[worker.number]]
        view.lease_count -= 1
        if not view.lease_count:
            self._count_busy(now_ns)
            self._busy_count -= 1
            view.idle_since_ns = now_ns

    def ready(self, pool: SimulatedPool, worker: SimulatedWorker) -> None:
        """A WorkerRegistered."""
        launch_id = self._workers[worker.number]
        now_ns = _instant(pool)
        self._projection.workers[launch_id] = WorkerView(
            worker_id=launch_id,
            incarnation=1,
            pool=self._policy.pool,
            labels={},
            cpus=pool.shape.cpus,
            memory_bytes=0,
            gpus=0,
            slots=pool.shape.slots,
            launch_id=launch_id,
            registered_at_ns=now_ns,
            idle_since_ns=now_ns,
        )
        self._fleet_changed()

    def decide(self, pool: SimulatedPool) -> float:
        """Decide until there is nothing more to do now, as the process does."""
        now_ns = _instant(pool)
        while True:
            if self._is_fleet_changed:
                self._ledger.sync(self._projection, now_ns)
                self._is_fleet_changed = False
            plan = decide_scaling(self._projection, self._ledger, self._policy, now_ns)
            if plan.decision is not None:
                self._ledger.record(plan.decision, plan.hold_kind)
                self._carry_out(pool, plan.decision, now_ns)
            if plan.decision is None or plan.decision.action == scaling_pb2.SCALING_ACTION_HOLD:
                if plan.wake_at_ns is None:
                    return float("inf")
                return max((plan.wake_at_ns - START_NS) / NANOS, pool.now + self.pace_seconds)

    def _carry_out(self, pool: SimulatedPool, decision: scaling_pb2.ScalingDecision, now_ns: int) -> None:
        match decision.action:
            case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
                launched = pool.launch(len(decision.launch_ids))
                for worker, launch_id in zip(launched, decision.launch_ids, strict=True):
                    self._know(worker, launch_id)
            case scaling_pb2.SCALING_ACTION_SCALE_IN:
                gone = pool.drain(self._numbers[worker_id] for worker_id in decision.worker_ids)
                for number in gone:
                    self._left(number, now_ns)
                for worker_id in set(decision.worker_ids) & self._numbers.keys():
                    self._ledger.drains_asked.pop(worker_id, None)  # refused: it got work meanwhile
            case scaling_pb2.SCALING_ACTION_TERMINATE:
                for launch_id in decision.launch_ids:
                    self._ledger.exited(launch_id, "left", now_ns, is_clean=True)
                    number = self._numbers.pop(launch_id)
                    self._workers.pop(number, None)
                    self._projection.gone.pop(launch_id, None)
                    if number in pool.workers:
                        pool.drain([number])  # it never registered
            case _:
                pass  # a hold asks nothing of anyone

    def _left(self, number: int, now_ns: int) -> None:
        """A WorkerLeft, and its process, which ends by itself."""
        launch_id = self._workers.pop(number)
        del self._projection.workers[launch_id], self._numbers[launch_id]
        self._ledger.exited(launch_id, "exited with code 0", now_ns, is_clean=True)
        self._fleet_changed()

    def _know(self, worker: SimulatedWorker, launch_id: str) -> None:
        self._workers[worker.number] = launch_id
        self._numbers[launch_id] = worker.number

    def _fleet_changed(self) -> None:
        self._projection.fleet_version += 1
        self._is_fleet_changed = True

    def _work(self, pool: SimulatedPool, task: int) -> Work:
        seconds = pool.trace.expected[task] if pool.trace.expected else 0.0
        return Work(1, seconds, 0, 0) if seconds else _UNKNOWN

    def _count_busy(self, now_ns: int) -> None:
        if self._busy_count:
            self._projection.busy_seconds.add(now_ns, self._busy_count * (now_ns - self._counted_ns) / NANOS)
        self._counted_ns = now_ns


def _instant(pool: SimulatedPool) -> int:
    return START_NS + round(pool.now * NANOS)
