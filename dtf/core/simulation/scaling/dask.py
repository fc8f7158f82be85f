"""Dask's adaptive deployment, by its documented defaults.

Sources: docs.dask.org, "Adaptive deployments"; distributed 2026.8: distributed.yaml (adaptive:
interval 1 s, target-duration 5 s, wait-count 3; unknown-task-duration 500 ms),
deploy/adaptive_core.py (`recommendations`), scheduler.py (`adaptive_target`, `workers_to_close`,
`TaskPrefix.add_duration`, `add_exec_time`).

- Every second: target = ceil(expected seconds of all queued and running tasks / 5 s), not more than
  there are tasks, and at least 1 while something is queued. Below the number of workers, only idle
  workers go.
- A worker, or one that has not arrived, that is to go at three evaluations in a row goes.
- All tasks of a trace are of one prefix: its duration is the running mean of half the new and half the
  old, 500 ms before anything is known; a task that runs longer than twice the mean makes it unknown
  again, and twice the longest seen time is taken instead.
- The tasks are taken to stay at the scheduler until a worker is free (queuing of root tasks, the
  default since 2022.11).
"""

from math import ceil, floor, inf

from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.simulated_worker import SimulatedWorker
from dtf.core.simulation.scaling.simulator import SimulatedPool

INTERVAL_SECONDS = 1.0
TARGET_SECONDS = 5.0
WAIT_COUNT = 3
UNKNOWN_SECONDS = 0.5


class DaskAdaptive(Listener):
    """`dask`."""

    name = "dask"
    pace_seconds = relaxed_seconds = INTERVAL_SECONDS
    is_periodic = True

    def __init__(self) -> None:
        self._average = -1.0
        self._longest = -1.0
        self._started: dict[int, float] = {}
        """Running tasks and since when, the oldest first."""
        self._close_counts: dict[int, int] = {}

    def started(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """A worker took a task."""
        self._started[task] = pool.now

    def finished(self, pool: SimulatedPool, task: int, worker: SimulatedWorker) -> None:
        """Its duration goes into the mean."""
        self._ran_until(floor(pool.now), self._started.pop(task))
        duration = pool.trace.durations[task]
        self._average = duration if self._average < 0 else 0.5 * duration + 0.5 * self._average

    def decide(self, pool: SimulatedPool) -> float:
        """One evaluation (`AdaptiveCore.adapt`); those that could change nothing are passed over."""
        if self._started:
            self._ran_until(pool.now, next(iter(self._started.values())))
        target = min(max(self._target(pool), pool.shape.min_workers), pool.shape.max_workers)
        planned = len(pool.workers)
        if target < planned:
            self._close(pool, target)
            return pool.now + INTERVAL_SECONDS
        self._close_counts.clear()
        if target > planned:
            pool.launch(target - planned)
        is_bounded = target >= pool.shape.max_workers or not self._started
        return inf if is_bounded else pool.now + INTERVAL_SECONDS

    def _ran_until(self, now: float, since: float) -> None:
        """A worker's heartbeat told how long a task has been running (`TaskPrefix.add_exec_time`)."""
        if now > since:
            self._longest = max(self._longest, now - since)
            if now - since > 2 * self._average:
                self._average = -1.0

    def _expected(self) -> float:
        if self._average >= 0:
            return self._average
        return 2 * self._longest if self._longest > 0 else UNKNOWN_SECONDS

    def _target(self, pool: SimulatedPool) -> int:
        tasks = pool.queued_count + len(self._started)
        present = pool.ready_count
        slots = pool.shape.slots
        wanted = min(tasks, ceil(tasks * self._expected() / TARGET_SECONDS - 1e-9))
        if present:
            wanted = ceil(wanted / slots)
        elif pool.queued_count:
            wanted = max(1, wanted)
        if wanted >= present:
            return wanted
        return present - sum(1 for worker in pool.workers.values() if worker.is_ready and not worker.running)

    def _close(self, pool: SimulatedPool, target: int) -> None:
        excess = len(pool.workers) - target
        arriving = [worker.number for worker in pool.workers.values() if not worker.is_ready]
        closing = arriving[:excess]
        if excess > len(closing):
            idle = [w.number for w in pool.workers.values() if w.is_ready and not w.running]
            closing += idle[: pool.ready_count - target]
        self._close_counts = {number: self._close_counts.get(number, 0) + 1 for number in closing}
        firmly = [number for number in closing if self._close_counts[number] >= WAIT_COUNT]
        for number in firmly:
            del self._close_counts[number]
        pool.drain(firmly)
