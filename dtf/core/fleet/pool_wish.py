"""What operators wish of a pool, folded from the log: by the coordinator, and by the resource manager."""

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import assert_never

from dtf.api.v1 import events_pb2

POOL_EVENTS = frozenset({"pool_scaled", "pool_paused", "pool_resumed"})
"""Fields of Event that say what is wished of a pool."""


@dataclass(frozen=True, slots=True)
class PoolWish:
    """Bounds, size and pause of one pool. None leaves the matter to the pool's settings."""

    pool: str
    min_workers: int | None = None
    max_workers: int | None = None
    workers: int | None = None
    """So many, whatever there is to do."""
    is_paused: bool = False
    requested_by: str = ""
    reason: str = ""
    changed_at_ns: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wished."""
        return not self.is_paused and self.min_workers is self.max_workers is self.workers is None


PoolEvent = events_pb2.PoolScaled | events_pb2.PoolPaused | events_pb2.PoolResumed


def fold_wish(wishes: MutableMapping[str, PoolWish], said: PoolEvent, now_ns: int) -> None:
    """Fold what one of POOL_EVENTS says into the wishes by pool; one of which nothing is wished has no entry."""
    match said:
        case events_pb2.PoolScaled():
            wish = _scaled(wishes, said)
        case events_pb2.PoolPaused():
            wish = replace(
                _of(wishes, said.pool), is_paused=True, requested_by=said.requested_by, reason=said.reason
            )
        case events_pb2.PoolResumed():
            wish = replace(_of(wishes, said.pool), is_paused=False, requested_by=said.requested_by, reason="")
        case _:
            assert_never(said)
    if wish.is_empty:
        wishes.pop(wish.pool, None)
    else:
        wishes[wish.pool] = replace(wish, changed_at_ns=now_ns)


def _of(wishes: MutableMapping[str, PoolWish], pool: str) -> PoolWish:
    return wishes.get(pool) or PoolWish(pool)


def _scaled(wishes: MutableMapping[str, PoolWish], said: events_pb2.PoolScaled) -> PoolWish:
    return PoolWish(
        pool=said.pool,
        min_workers=said.min_workers if said.HasField("min_workers") else None,
        max_workers=said.max_workers if said.HasField("max_workers") else None,
        workers=said.workers if said.HasField("workers") else None,
        is_paused=_of(wishes, said.pool).is_paused,
        requested_by=said.requested_by,
        reason=said.reason,
    )


def scaled_event(wish: PoolWish) -> events_pb2.PoolScaled:
    """The event that makes the bounds and the size those of `wish`."""
    return events_pb2.PoolScaled(
        pool=wish.pool,
        min_workers=wish.min_workers,
        max_workers=wish.max_workers,
        workers=wish.workers,
        requested_by=wish.requested_by,
        reason=wish.reason,
    )
