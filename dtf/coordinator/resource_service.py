"""ResourceService: what operators wish of pools. Each wish is an event; the resource manager follows it."""

from collections import Counter

from dtf.api.v1 import common_pb2, resource_service_pb2
from dtf.coordinator.desk import Desk, require
from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.run.commands import Command, NotFound, PausePool, ResumePool, ScalePool
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.rpc.handlers import Context, answering

NAMES_SHOWN = 20


class ResourceService:
    """The service. Every answer rests on durable state."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @answering
    async def ListPools(
        self, request: resource_service_pb2.ListPoolsRequest, context: Context
    ) -> resource_service_pb2.ListPoolsResponse:
        """Pools that have workers, wishes or a decision, by name."""
        pools = [self._pool(name, self._desk.state.pools.get(name)) for name in self._known()]
        await self._desk.writer.settled()
        return resource_service_pb2.ListPoolsResponse(pools=pools)

    @answering
    async def ScalePool(
        self, request: resource_service_pb2.ScalePoolRequest, context: Context
    ) -> resource_service_pb2.ScalePoolResponse:
        """Sets a pool's bounds or its size, or gives them back to the pool's settings."""
        self._check_name(request.pool, request.must_be_known)
        kept = PoolWish(request.pool)
        if request.keep_others and not request.HasField("workers"):
            kept = self._desk.state.pools.get(request.pool, kept)  # bounds take the place of a size
        command = ScalePool(
            request.pool,
            min_workers=request.min_workers if request.HasField("min_workers") else kept.min_workers,
            max_workers=request.max_workers if request.HasField("max_workers") else kept.max_workers,
            workers=request.workers if request.HasField("workers") else None,
            requested_by=request.requested_by,
            reason=request.reason,
        )
        pool = await self._wish(request.pool, command, is_rehearsal=request.dry_run)
        return resource_service_pb2.ScalePoolResponse(pool=pool)

    @answering
    async def PausePool(
        self, request: resource_service_pb2.PausePoolRequest, context: Context
    ) -> resource_service_pb2.PausePoolResponse:
        """Stops a pool from changing its size, but for the minimum it keeps."""
        self._check_name(request.pool, request.must_be_known)
        command = PausePool(request.pool, request.requested_by, request.reason)
        pool = await self._wish(request.pool, command, is_rehearsal=request.dry_run)
        return resource_service_pb2.PausePoolResponse(pool=pool)

    @answering
    async def ResumePool(
        self, request: resource_service_pb2.ResumePoolRequest, context: Context
    ) -> resource_service_pb2.ResumePoolResponse:
        """Lets a paused pool change its size again."""
        self._check_name(request.pool, request.must_be_known)
        command = ResumePool(request.pool, request.requested_by)
        pool = await self._wish(request.pool, command, is_rehearsal=request.dry_run)
        return resource_service_pb2.ResumePoolResponse(pool=pool)

    def _known(self) -> list[str]:
        """Pools that have workers, wishes or a decision, by name."""
        state = self._desk.state
        present = {worker.pool for worker in state.workers.values() if worker.is_present}
        return sorted(present | set(state.pools) | set(self._desk.scaling.latest))

    def _check_name(self, name: str, must_be_known: bool) -> None:
        """Raises InvalidRequest when there is no name, and NotFound for a pool of which nothing is known."""
        require(name, "pool")
        known = self._known()
        if must_be_known and name not in known:
            raise NotFound(f"nothing is known of a pool {name[:80]!r}; {_name_some(known)}")

    async def _wish(self, name: str, command: Command, *, is_rehearsal: bool) -> resource_service_pb2.Pool:
        if is_rehearsal:
            return self._pool(name, _rehearse(self._desk.state, command, self._desk.clock.now_ns()).get(name))
        await self._desk.writer.submit(command)
        pool = self._pool(name, self._desk.state.pools.get(name))
        await self._desk.writer.settled()
        return pool

    def _pool(self, name: str, wish: PoolWish | None) -> resource_service_pb2.Pool:
        workers = [w for w in self._desk.state.workers.values() if w.pool == name and w.is_present]
        states = Counter(worker.state for worker in workers)
        return resource_service_pb2.Pool(
            name=name,
            wish=_wish_message(wish) if wish is not None else None,
            active_count=states[common_pb2.WORKER_STATE_ACTIVE],
            draining_count=states[common_pb2.WORKER_STATE_DRAINING],
            quarantined_count=states[common_pb2.WORKER_STATE_QUARANTINED],
            lease_count=sum(worker.lease_count for worker in workers),
            last_decision=self._desk.scaling.latest.get(name),
        )


def _name_some(known: list[str]) -> str:
    """ "known are: gpu, local"."""
    if not known:
        return "no resource manager looks after any"
    more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
    return f"known are: {', '.join(known[:NAMES_SHOWN])}{more}"


def _rehearse(state: State, command: Command, now_ns: int) -> dict[str, PoolWish]:
    """The wishes as `command` would make them."""
    rehearsal = State(pools=dict(state.pools))
    for event in decide(state, command, now_ns):
        evolve(rehearsal, event, now_ns)
    return rehearsal.pools


def _wish_message(wish: PoolWish) -> resource_service_pb2.PoolWish:
    return resource_service_pb2.PoolWish(
        min_workers=wish.min_workers,
        max_workers=wish.max_workers,
        workers=wish.workers,
        is_paused=wish.is_paused,
        requested_by=wish.requested_by,
        reason=wish.reason,
        changed_unix_nanos=wish.changed_at_ns,
    )
