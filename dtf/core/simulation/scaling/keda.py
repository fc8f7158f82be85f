"""KEDA's ScaledObject on a queue, by its documented defaults.

Sources: keda.sh, "ScaledObject specification" and "AWS SQS Queue" (queueLength: default 5,
scaleOnInFlight: default true), "Scaling Deployments".

- pollingInterval 30 s: how often KEDA looks at the queue while the pool is at zero, and whether it is
  active. Activity (anything queued or in flight) takes the pool from 0 to 1; cooldownPeriod 300 s without
  any takes it to 0.
- From 1 to N and back a HorizontalPodAutoscaler does it, on the external metric with an AverageValue of
  5 tasks a worker, every 15 s, with the HPA's default tolerance, behavior and choice of pods.
- The queue's length includes what is in flight, as SQS's scaler does by default: without it pods with
  running tasks would go as soon as the queue is empty. Length 5 is the default of the SQS and the Azure
  queue scalers; other scalers name none.
"""

from math import ceil

from dtf.core.simulation.scaling.hpa import SYNC_SECONDS, TOLERANCE, Stabilizer, resize
from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.simulator import SimulatedPool

POLLING_SECONDS = 30.0
COOLDOWN_SECONDS = 300.0
QUEUE_LENGTH = 5
"""Tasks for each worker."""


class Keda(Listener):
    """`keda`."""

    name = "keda"

    def __init__(self) -> None:
        self._stabilizer = Stabilizer()
        self._poll_at = self._sync_at = 0.0
        self._active_at = 0.0

    def decide(self, pool: SimulatedPool) -> float:
        """A poll, a sync of the HPA, or both."""
        length = pool.queued_count + pool.running_count
        if pool.now >= self._poll_at:
            self._poll(pool, length)
            self._poll_at = pool.now + POLLING_SECONDS
        if pool.now >= self._sync_at:
            self._sync(pool, length)
            self._sync_at = pool.now + SYNC_SECONDS
        return min(self._poll_at, self._sync_at)

    def _poll(self, pool: SimulatedPool, length: int) -> None:
        current = len(pool.workers)
        if length:
            self._active_at = pool.now
            if not current:
                pool.launch(max(1, pool.shape.min_workers))
        elif current and not pool.shape.min_workers and pool.now >= self._active_at + COOLDOWN_SECONDS:
            resize(pool, self._stabilizer, 0)

    def _sync(self, pool: SimulatedPool, length: int) -> None:
        current = len(pool.workers)
        if not current:
            return  # an HPA whose target has no replicas is off
        ratio = length / (current * QUEUE_LENGTH)
        desired = current if abs(1.0 - ratio) <= TOLERANCE else ceil(length / QUEUE_LENGTH)
        least, most = max(1, pool.shape.min_workers), pool.shape.max_workers
        resize(pool, self._stabilizer, self._stabilizer.limit(pool.now, current, desired, least, most))
