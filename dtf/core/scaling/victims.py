"""Which workers go when fewer are wanted: never one that holds a lease; the dearest of its pool first, then the
most flawed, then those idle longest."""

from collections.abc import Iterable

from dtf.core.scaling.demand import WorkerView
from dtf.core.scaling.rates import NANOS


def removable(workers: Iterable[WorkerView], now_ns: int, idle_seconds: float) -> list[WorkerView]:
    """Those that may go, in the order in which they would; the coordinator refuses if one got work meanwhile."""
    limit = now_ns - int(idle_seconds * NANOS)
    idle = [worker for worker in workers if not worker.lease_count and worker.idle_since_ns <= limit]
    if len(idle) < 2:
        return idle
    return sorted(idle, key=_order)


def next_removable_at_ns(workers: Iterable[WorkerView], now_ns: int, idle_seconds: float) -> int | None:
    """When the next worker will have been idle for long enough; None: none is on its way there."""
    idle_ns = int(idle_seconds * NANOS)
    due = [worker.idle_since_ns + idle_ns for worker in workers if not worker.lease_count]
    return min((at for at in due if at > now_ns), default=None)


def _order(worker: WorkerView) -> tuple[float, float, int, str]:
    return -worker.price_per_hour, -worker.flaw_score, worker.idle_since_ns, worker.worker_id
