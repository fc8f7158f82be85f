"""Stealing the tail: which waiting leases are asked back for idle workers.

When nothing queued can be granted and a worker is idle, leases beyond the average a slot are asked
back from the fullest workers, newest first. The worker gives back those that had not started; they
are queued again and dealt to whoever is emptiest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker as the scheduler sees it."""

    worker_id: str
    slots: int
    lease_count: int
    credits: int
    """Leases it takes now."""

    @property
    def idle_slots(self) -> int:
        """Slots with nothing to run, for which there are credits."""
        return min(self.credits, max(0, self.slots - self.lease_count))


def revocations(
    seats: Sequence[Seat],
    waiting: Callable[[str], Sequence[int]],
    fits: Callable[[int, str, str], bool],
) -> Mapping[str, list[int]]:
    """Fences to ask back, by worker.

    `waiting(worker)` gives fences that worker may not have started, oldest first, without those
    asked back already; `fits(fence, holder, worker)` says whether a worker could run a lease of the holder.
    """
    idle = [seat for seat in seats if seat.idle_slots]
    if not idle:
        return {}
    slots = sum(seat.slots for seat in seats)
    leases = sum(seat.lease_count for seat in seats)
    wanted = {
        seat.worker_id: min(seat.credits, max(seat.slots, leases * seat.slots // slots) - seat.lease_count)
        for seat in idle
    }
    asked: dict[str, list[int]] = {}
    for seat in sorted(seats, key=lambda seat: -seat.lease_count / seat.slots):
        surplus = seat.lease_count - max(seat.slots, -(-leases * seat.slots // slots))
        if surplus > 0:
            asked[seat.worker_id] = _take(seat.worker_id, waiting(seat.worker_id), surplus, wanted, fits)
    return {worker_id: fences for worker_id, fences in asked.items() if fences}


def _take(
    holder_id: str,
    waiting: Sequence[int],
    surplus: int,
    wanted: dict[str, int],
    fits: Callable[[int, str, str], bool],
) -> list[int]:
    taken: list[int] = []
    for fence in reversed(waiting):
        if len(taken) >= surplus:
            break
        for worker_id, count in wanted.items():
            if count > 0 and fits(fence, holder_id, worker_id):
                wanted[worker_id] -= 1
                taken.append(fence)
                break
    return taken
