"""What a policy made of a trace."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

FLAP_SECONDS = 300.0
"""A change that takes back the one before within this time is a flap: five minutes are the window in
which Kubernetes, KEDA and Ray, by their defaults, hold a pool that may be needed again."""

CURVE_POINTS = 4000
"""Points of a curve that is full, after it was thinned."""


@dataclass(frozen=True, slots=True)
class PoolShape:
    """The pool, the same for every policy."""

    min_workers: int = 0
    max_workers: int = 100
    startup_seconds: float = 30.0
    """From the launch, when it begins to cost, until the worker takes tasks."""
    slots: int = 1
    """Tasks a worker runs at once."""
    cpus: float = 0.0
    """CPUs of a worker, shared by its slots; 0: a task takes one slot whatever CPUs it names."""
    price: float = 0.0
    """Of a worker and hour."""
    first_ready_seconds: float = 0.0
    """When the workers of the minimum are ready, from the first submission on."""
    is_packed: bool = True
    """Whether the worker that became free last gets the next task; otherwise the one that waits longest."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds that tasks were in the queue, by nearest rank."""

    p50: float
    p95: float
    p99: float


class SizeCurve:
    """Points for a plot, evenly thinned: however long the trace, some thousands."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int, int]] = []
        """(seconds, workers that cost, tasks queued)"""
        self._stride, self._skipped = 1, 0

    def note(self, at: float, workers: int, queued: int) -> None:
        """Keep a point; when there are too many, every other one."""
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._skipped = 0
        self.points.append((at, workers, queued))
        if len(self.points) > 2 * CURVE_POINTS:
            del self.points[::2]
            self._stride *= 2


@dataclass(slots=True)
class Outcome:
    """One policy on one trace."""

    policy: str
    makespan_seconds: float
    """From the first submission to the end of the last task."""
    waits: Waits
    worker_seconds: float
    """From each launch until the worker is gone, to the pool's return to its minimum."""
    cost: float
    actions: int
    """Changes of the size asked for, of however many workers."""
    flaps: int
    busy_kills: int
    """Tasks that were running on a worker when it was ended, and began anew."""
    task_count: int = 0
    decisions: int = 0
    sizes: list[tuple[float, int, int]] = field(default_factory=list)
    """(seconds, workers that cost, tasks queued), for plots."""


def waits_of(waited: Sequence[float]) -> Waits:
    """Percentiles by nearest rank: the least value that so many per cent do not exceed."""
    ordered = sorted(waited)
    if not ordered:
        return Waits(0.0, 0.0, 0.0)
    return Waits(*(ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 95, 99)))


def count_flaps(moves: Sequence[tuple[float, int]]) -> int:
    """Changes (seconds, workers more or fewer) that take back the one before within FLAP_SECONDS."""
    pairs = pairwise(moves)
    return sum(1 for (at, by), (later, back) in pairs if by * back < 0 and later - at <= FLAP_SECONDS)
