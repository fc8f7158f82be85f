"""Workers and what they hold, counted as the log tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtf.api.v1 import events_pb2
from dtf.core.trend.names import pool_name


@dataclass(slots=True)
class CountedWorker:
    """A worker that is registered and not lost."""

    pool: str
    slots: int
    incarnation: int
    leased: int = 0
    is_taking: bool = True
    """Whether it takes new work: neither draining nor quarantined."""


@dataclass(slots=True)
class PoolCount:
    """Sums over one pool."""

    workers: int = 0
    draining: int = 0
    slots: int = 0
    leased: int = 0


class FleetCount:
    """The workers, and every pool that ever had one."""

    def __init__(self) -> None:
        self.workers: dict[str, CountedWorker] = {}
        self._pools: set[str] = set()

    def register(self, event: events_pb2.WorkerRegistered) -> None:
        """A worker opened a session; a new incarnation replaces the one before."""
        pool = pool_name(event.pool)
        self._pools.add(pool)
        self.workers[event.worker_id] = CountedWorker(pool, event.slots, event.incarnation)

    def remove(self, worker_id: str, incarnation: int) -> None:
        """A worker was lost or left, unless a newer incarnation is here already."""
        worker = self.workers.get(worker_id)
        if worker is not None and worker.incarnation <= incarnation:
            del self.workers[worker_id]

    def set_taking(self, worker_id: str, is_taking: bool) -> None:
        """A worker was drained, quarantined or released."""
        if worker_id in self.workers:
            self.workers[worker_id].is_taking = is_taking

    def move(self, worker_id: str, leased: int) -> None:
        """Leases were granted to a worker, or ended."""
        if worker_id in self.workers:
            worker = self.workers[worker_id]
            worker.leased = max(0, worker.leased + leased)

    def pool_of(self, worker_id: str) -> str:
        """Pool of a worker; "" if it is not known."""
        worker = self.workers.get(worker_id)
        return worker.pool if worker is not None else ""

    def by_pool(self) -> dict[str, PoolCount]:
        """The sums, by pool; a pool without workers has zeros."""
        pools = {name: PoolCount() for name in sorted(self._pools)}
        for worker in self.workers.values():
            count = pools[worker.pool]
            count.workers += 1
            count.draining += not worker.is_taking
            count.slots += worker.slots
            count.leased += worker.leased
        return pools

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        workers = {
            name: [each.pool, each.slots, each.incarnation, each.leased, each.is_taking]
            for name, each in self.workers.items()
        }
        return {"workers": workers, "pools": sorted(self._pools)}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> "FleetCount":
        """The count that `to_json` described."""
        fleet = cls()
        fleet.workers = {name: CountedWorker(*values) for name, values in state["workers"].items()}
        fleet._pools = set(state["pools"])
        return fleet
