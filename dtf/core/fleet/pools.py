"""Decisions about pools: what operators wish of them. The resource manager follows the wishes."""

from dataclasses import replace

from dtf.api.v1 import events_pb2
from dtf.core.fleet.pool_wish import PoolWish, scaled_event
from dtf.core.run import limits
from dtf.core.run.commands import NotPossible, PausePool, ResumePool, ScalePool
from dtf.core.run.limits import Faults
from dtf.core.run.state import State

MAX_POOL_WORKERS = 100_000
MAX_POOLS_WISHED = 1000
"""Pools of which something may be wished at once."""
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def scale_pool(state: State, command: ScalePool) -> list[events_pb2.Event]:
    """PoolScaled; nothing if it is wished already."""
    faults = _checked(command.pool)
    for name in ("min_workers", "max_workers", "workers"):
        value = getattr(command, name)
        if value is not None:
            faults.number(name, value, 0, MAX_POOL_WORKERS)
    low, high = command.min_workers, command.max_workers
    if low is not None and high is not None and low > high:
        faults.add("max_workers", f"{high} is below min_workers, {low}")
    if command.workers is not None and not (low is None and high is None):
        faults.add("workers", "is a size; give bounds or a size, not both")
    faults.refuse_if_any("the pool cannot be scaled")
    before = _wish_of(state, command.pool)
    wish = replace(
        before,
        min_workers=low,
        max_workers=high,
        workers=command.workers,
        requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    if (wish.min_workers, wish.max_workers, wish.workers) == (
        before.min_workers,
        before.max_workers,
        before.workers,
    ):
        return []
    return [events_pb2.Event(pool_scaled=scaled_event(wish))]


def pause_pool(state: State, command: PausePool) -> list[events_pb2.Event]:
    """PoolPaused; nothing if it is paused already."""
    _checked(command.pool).refuse_if_any("the pool cannot be paused")
    if _wish_of(state, command.pool).is_paused:
        return []
    paused = events_pb2.PoolPaused(
        pool=command.pool,
        requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    return [events_pb2.Event(pool_paused=paused)]


def resume_pool(state: State, command: ResumePool) -> list[events_pb2.Event]:
    """PoolResumed; nothing if it is not paused."""
    _checked(command.pool).refuse_if_any("the pool cannot be resumed")
    if not _wish_of(state, command.pool).is_paused:
        return []
    resumed = events_pb2.PoolResumed(
        pool=command.pool, requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH]
    )
    return [events_pb2.Event(pool_resumed=resumed)]


def _checked(pool: str) -> Faults:
    faults = Faults()
    faults.text("pool", pool, 1, 64)
    if not set(pool) <= _NAME_CHARACTERS:
        faults.add("pool", "may hold letters, digits, '-', '_' and '.' only")
    return faults


def _wish_of(state: State, pool: str) -> PoolWish:
    known = state.pools.get(pool)
    if known is None and len(state.pools) >= MAX_POOLS_WISHED:
        raise NotPossible(
            f"something is wished of {len(state.pools)} pools already; resume or scale one of them to its settings first"
        )
    return known or PoolWish(pool)
