"""What is heard of the launches of one pool, as observations that its ledger and its next decision carry."""

import logging
from collections.abc import Iterable, Set

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.ledger import PoolLedger
from dtf.ports.capacity import Instance, InstanceState
from dtf.ports.clock import Clock
from dtf.resource_manager.state_file import ManagerState

ABSENT_LOOKS = 3
"""A launch that the provider does not list so many times in a row is gone; one that was taken for ended and is
listed so many times as running is there."""
ENDED_KEPT = 4096

_log = logging.getLogger("dtf.resource_manager")


class Hearing:
    """Takes in instances as the provider lists them and as they exit; each exit counts once."""

    def __init__(self, pool: str, state: ManagerState, clock: Clock) -> None:
        self._pool = pool
        self._state = state
        self._clock = clock
        self._absent: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        """Launches that are over, the newest, and how often each was listed as running all the same."""

    @property
    def _ledger(self) -> PoolLedger:
        return self._state.pools[self._pool].ledger

    def take_in(self, instance: Instance) -> None:
        """An instance as it is listed."""
        if instance.state is InstanceState.EXITED:
            self.exited(instance)
        elif instance.launch_id not in self._ledger.launches and self._is_there(instance.launch_id):
            _log.info("%s (%s) was found running", instance.launch_id, instance.handle)
            adopted = scaling_pb2.LaunchAdopted(
                launch_id=instance.launch_id, launched_unix_nanos=instance.launched_at_ns
            )
            self.observe(scaling_pb2.Observation(adopted=adopted))

    def _is_there(self, launch_id: str) -> bool:
        """Whether a launch that is listed runs; a list that was begun before its end may still show it once."""
        if launch_id not in self._ended:
            return True
        self._ended[launch_id] += 1
        if self._ended[launch_id] < ABSENT_LOOKS:
            return False
        del self._ended[launch_id]
        return True

    def exited(self, instance: Instance) -> None:
        """An instance that has ended; nothing new if that was heard before."""
        if instance.launch_id not in self._ledger.launches:
            return
        is_clean = instance.is_clean or self.has_left(instance.launch_id)
        self.observe_exit(instance.launch_id, instance.reason, is_clean=is_clean)

    def observe_exit(
        self, launch_id: str, reason: str, *, is_clean: bool, is_dismissed: bool = False
    ) -> None:
        """A launch is over; `is_dismissed`: because everything is stopped."""
        self._ended[launch_id] = 0
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        exited = scaling_pb2.LaunchExited(
            launch_id=launch_id, reason=reason, is_clean=is_clean, is_dismissed=is_dismissed
        )
        self.observe(scaling_pb2.Observation(exited=exited))

    def observe(self, seen: scaling_pb2.Observation) -> None:
        """Something was heard."""
        seen.now_unix_nanos = self._clock.now_ns()
        self._state.observe(self._pool, seen)

    def has_left(self, launch_id: str) -> bool:
        """Whether the log says that the worker was going or has gone by itself."""
        projection = self._state.projection
        if launch_id in projection.gone:
            return projection.gone[launch_id].departure == "left"
        return any(w.is_draining for w in projection.workers.values() if w.launch_id == launch_id)

    def missing(self, listed: Iterable[str], launching: Set[str]) -> list[str]:
        """Launches that have not been listed for a while."""
        looked = {
            launch_id: self._absent.get(launch_id, 0) + 1
            for launch_id in self._ledger.launches.keys() - set(listed) - launching
        }
        self._absent = looked
        return [launch_id for launch_id, looks in looked.items() if looks >= ABSENT_LOOKS]
