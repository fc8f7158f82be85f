"""A controller that does not care what happens to single tasks; those that do override what they need."""

from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.simulated_worker import SimulatedWorker
from dtf.core.simulation.scaling.simulator import SimulatedPool


class Listener:
    """Hears everything and does nothing."""

    pace_seconds = float("inf")
    relaxed_seconds = float("inf")
    is_periodic = False

    def least(self, shape: PoolShape) -> int:
        """The pool's own minimum."""
        return shape.min_workers

    def begin(self, pool: SimulatedPool) -> None:
        """Nothing to do."""

    def submitted(self, pool: SimulatedPool, task: int) -> None:
        """Nothing to do."""

    def started(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """Nothing to do."""

    def finished(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """Nothing to do."""

    def ready(self, pool: SimulatedPool, worker: SimulatedWorker) -> None:
        """Nothing to do."""
