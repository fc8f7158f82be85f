"""Small traces, and a controller that watches another one."""

from collections import Counter
from collections.abc import Callable

from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.policies import PEERS
from dtf.core.simulation.scaling.shipped import ShippedPolicy
from dtf.core.simulation.scaling.simulated_worker import SimulatedWorker
from dtf.core.simulation.scaling.simulator import Controller, SimulatedPool
from dtf.core.simulation.scaling.trace import Trace, make_trace


def trace_of(*tasks: tuple[float, float]) -> Trace:
    """Tasks of (submit seconds, duration seconds)."""
    return make_trace("trace", [(at, duration, 1.0) for at, duration in tasks])


def shipped(shape: PoolShape) -> ShippedPolicy:
    """The policy of ours with every default."""
    return ShippedPolicy("default", ScalingPolicy("local", shape.min_workers, shape.max_workers, shape.slots))


def _peer(make: Callable[[], Controller]) -> Callable[[PoolShape], Controller]:
    return lambda shape: make()


CONTROLLERS: dict[str, Callable[[PoolShape], Controller]] = {
    "default": shipped,
    **{name: _peer(make) for name, make in PEERS.items()},
}


class Witness:
    """Passes everything on to a controller, and writes down what it sees."""

    def __init__(self, inner: Controller) -> None:
        self.inner = inner
        self.name = inner.name
        self.pace_seconds = inner.pace_seconds
        self.relaxed_seconds = inner.relaxed_seconds
        self.is_periodic = inner.is_periodic
        self.submitted_tasks: list[int] = []
        self.starts: list[tuple[int, float]] = []
        self.finishes: Counter[int] = Counter()
        self.sizes: list[tuple[float, int]] = []
        """Workers after each decision."""
        self.most_running = 0

    def least(self, shape: PoolShape) -> int:
        return self.inner.least(shape)

    def begin(self, pool: SimulatedPool) -> None:
        self.inner.begin(pool)

    def decide(self, pool: SimulatedPool) -> float:
        wake = self.inner.decide(pool)
        self.sizes.append((pool.now, len(pool.workers)))
        return wake

    def submitted(self, pool: SimulatedPool, task: int) -> None:
        self.submitted_tasks.append(task)
        self.inner.submitted(pool, task)

    def started(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        self.starts.append((task, pool.now))
        self.most_running = max(self.most_running, len(worker.running))
        assert worker.is_ready, "only a worker that is ready takes tasks"
        self.inner.started(pool, task, worker)

    def finished(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        self.finishes[task] += 1
        self.inner.finished(pool, task, worker)

    def ready(self, pool: SimulatedPool, worker: SimulatedWorker) -> None:
        self.inner.ready(pool, worker)

    def size_at(self, at: float) -> int:
        """Workers after the last decision that is not later."""
        return [size for when, size in self.sizes if when <= at][-1]
