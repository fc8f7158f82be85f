"""Ray's autoscaler, by its documented defaults.

Sources: docs.ray.io, "Configuring autoscaling" (upscaling_speed 1.0, idle_timeout_minutes 5);
ray 2.60: autoscaler/_private/constants.py (AUTOSCALER_UPDATE_INTERVAL_S 5,
AUTOSCALER_UPSCALING_INITIAL_NUM_NODES 5), resource_demand_scheduler.py
(`get_nodes_to_launch`, `_get_concurrent_resource_demand_to_launch`), autoscaler.py
(`terminate_nodes_to_enforce_config_constraints`).

- Every 5 s the pending tasks are packed into the free slots of the nodes, those that start included;
  what does not fit asks for nodes.
- No more nodes start at once than max(5, upscaling_speed x nodes that run).
- A node that was idle for five minutes is terminated; never a busy one, never below the minimum.
- The head node is left out: it costs the same under every policy.
"""

from math import ceil, inf

from dtf.core.simulation.scaling.listener import Listener
from dtf.core.simulation.scaling.simulator import SimulatedPool, next_tick

INTERVAL_SECONDS = 5.0
UPSCALING_SPEED = 1.0
INITIAL_NODES = 5
IDLE_SECONDS = 300.0


class RayAutoscaler(Listener):
    """`ray`."""

    name = "ray"
    pace_seconds = relaxed_seconds = INTERVAL_SECONDS
    is_periodic = True

    def decide(self, pool: SimulatedPool) -> float:
        """One update; those that could change nothing are passed over."""
        self._terminate_idle(pool)
        slots = pool.shape.slots
        free = pool.ready_count * slots - pool.busy_slots + pool.starting_count * slots
        unfulfilled = pool.queued_count - free
        if unfulfilled > 0:
            allowed = max(INITIAL_NODES, ceil(UPSCALING_SPEED * pool.ready_count)) - pool.starting_count
            pool.launch(min(ceil(unfulfilled / slots), allowed))
        # only time lets a node become idle for long enough; anything else is an event
        first = min((worker.idle_since for worker in pool.workers.values()), default=inf)
        if first == inf or len(pool.workers) <= pool.shape.min_workers:
            return inf
        return next_tick(first + IDLE_SECONDS, pool.now, INTERVAL_SECONDS)

    def _terminate_idle(self, pool: SimulatedPool) -> None:
        limit = pool.now - IDLE_SECONDS
        idle = [worker for worker in pool.workers.values() if worker.idle_since <= limit]
        if idle:
            idle.sort(key=lambda worker: worker.idle_since)
            spare = len(pool.workers) - pool.shape.min_workers
            pool.drain(worker.number for worker in idle[:spare])
