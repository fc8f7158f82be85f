"""A worker of the simulated pool, and which of those with a free slot takes the next task."""

from array import array
from collections import deque
from math import ceil, inf

from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.trace import Trace


class SimulatedWorker:
    """One worker."""

    __slots__ = (
        "free",
        "idle_since",
        "is_gone",
        "is_listed",
        "is_ready",
        "is_stopping",
        "launched_at",
        "number",
        "running",
    )

    def __init__(self, number: int, launched_at: float, slots: int) -> None:
        self.number = number
        self.launched_at = launched_at
        self.free = slots
        self.idle_since = inf
        self.running: dict[int, float] = {}
        """Tasks it runs, and since when."""
        self.is_ready = False
        self.is_stopping = False
        self.is_gone = False
        self.is_listed = False
        """Whether it is among those that have a free slot."""


class OpenWorkers:
    """Those that have a free slot, in the order in which they got it. False while there is none."""

    def __init__(self, is_packed: bool) -> None:
        self._is_packed = is_packed
        self._workers: deque[SimulatedWorker] = deque()

    def __bool__(self) -> bool:
        return bool(self._workers)

    def admit(self, worker: SimulatedWorker) -> None:
        """It has a free slot now."""
        if not worker.is_listed:
            worker.is_listed = True
            self._workers.append(worker)

    def take(self, width: int) -> SimulatedWorker | None:
        """A worker with so many free slots: the one that became free last, or, not packed, first."""
        workers = self._workers
        passed: list[SimulatedWorker] = []
        found = None
        while workers and found is None:
            worker = workers.pop() if self._is_packed else workers.popleft()
            if worker.is_gone or worker.is_stopping:
                continue
            if worker.free >= width:
                found = worker
            else:
                passed.append(worker)
        for worker in reversed(passed):
            if self._is_packed:
                workers.append(worker)
            else:
                workers.appendleft(worker)
        if found is not None:
            found.is_listed = False
        return found


def widths_of(trace: Trace, shape: PoolShape) -> "array[int]":
    """Slots that each task takes; empty: one each."""
    if not shape.cpus or not trace.cpus:
        return array("q")
    widths = array("q", (max(1, ceil(cpus * shape.slots / shape.cpus - 1e-9)) for cpus in trace.cpus))
    return widths if max(widths) > 1 else array("q")
