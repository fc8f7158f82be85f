"""A leader's lease in memory: it passes the same contract suite as the broker's."""

from dtf.ports.leader_lease import LeaderRecord, LeaseTaken, LeaseUnavailable, LeaseView


class MemoryLease:
    """The LeaderLease port in memory; leader and standbys of one test share it."""

    def __init__(self) -> None:
        self._view = LeaseView()
        self._standbys: set[str] = set()
        self._is_reachable = True
        self._last_revision = 0

    async def read(self) -> LeaseView:
        """The record as it stands."""
        self._require_reachable()
        return self._view

    async def write(self, record: LeaderRecord, replaces: int) -> int:
        """Replace the record."""
        self._require_reachable()
        if replaces != self._view.revision:
            raise LeaseTaken(f"the lease is at revision {self._view.revision}, not at {replaces}")
        self._last_revision += 1
        self._view = LeaseView(record, self._last_revision)
        return self._last_revision

    async def enlist(self, standby: str) -> None:
        """Say that a standby waits."""
        self._require_reachable()
        self._standbys.add(standby)

    async def withdraw(self, standby: str) -> None:
        """Say that a standby waits no longer."""
        self._require_reachable()
        self._standbys.discard(standby)

    async def standbys(self) -> frozenset[str]:
        """Who waits."""
        self._require_reachable()
        return frozenset(self._standbys)

    async def close(self) -> None:
        """Nothing is held."""

    def disconnect(self) -> None:
        """Nobody keeps the record from now on."""
        self._is_reachable = False

    def reconnect(self, *, forgotten: bool = False) -> None:
        """It is kept again; `forgotten`: as after a restart, without what was there."""
        self._is_reachable = True
        if forgotten:
            self._view = LeaseView()
            self._standbys.clear()

    def _require_reachable(self) -> None:
        if not self._is_reachable:
            raise LeaseUnavailable("nobody keeps the lease now")
