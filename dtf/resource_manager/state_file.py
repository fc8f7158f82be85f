"""What the resource manager keeps over a restart, in one file that is replaced whole."""

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.chain import ChainReader
from dtf.core.scaling import snapshot
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.health import HealthBook
from dtf.core.scaling.ledger import PoolLedger
from dtf.resource_manager.ward import Ward

OBSERVATIONS_KEPT = 1024
"""Heard between two decisions and not forgotten; nearly everything heard leads to a decision at once."""


@dataclass(slots=True)
class PoolState:
    """The ledger of one pool, and what its next decision carries."""

    ledger: PoolLedger
    observations: list[bytes] = field(default_factory=list)
    """Serialized Observations since the last decision, oldest first."""
    ward: Ward = field(default_factory=Ward)

    def take_observations(self) -> list[scaling_pb2.Observation]:
        """What was heard since the last call."""
        taken, self.observations = self.observations, []
        return [scaling_pb2.Observation.FromString(seen) for seen in taken]


@dataclass(slots=True)
class ManagerState:
    """One projection for all pools, where the log's chain stands in it, and decisions not yet published."""

    pools: dict[str, PoolState] = field(default_factory=dict)
    projection: DemandProjection = field(default_factory=DemandProjection)
    chain: ChainReader = field(default_factory=ChainReader)
    health: HealthBook = field(default_factory=HealthBook)
    outbox: list[bytes] = field(default_factory=list)
    """Serialized ScalingDecisions, oldest first."""

    @classmethod
    def of(cls, *names: str) -> "ManagerState":
        """Pools of which nothing is known yet."""
        return cls({name: PoolState(PoolLedger(name)) for name in names})

    def observe(self, pool: str, seen: scaling_pb2.Observation) -> None:
        """Something was heard; the pool's next decision carries it."""
        seen.log_sequence = self.projection.last_sequence
        state = self.pools[pool]
        state.ledger.observe(seen)
        state.observations = [*state.observations[-OBSERVATIONS_KEPT + 1 :], seen.SerializeToString()]

    def fold(self, sequence: int, message_id: str, commit: events_pb2.Commit) -> None:
        """Take the next commit; ledgers hear of workers commit by commit, so that they hear the same again."""
        before = self.projection.fleet_version
        self.projection.apply(sequence, message_id, commit)
        self.health.apply(commit)
        if self.projection.fleet_version != before:
            for state in self.pools.values():
                state.ledger.sync(self.projection, self.projection.last_ns)

    def forget_log(self) -> None:
        """The log is another one than the one that was followed: it is folded anew."""
        self.projection, self.chain, self.health = DemandProjection(), ChainReader(), HealthBook()


class StateFile:
    """A ManagerState on disk. A save is durable when it returns and never leaves half a file."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"{name}.state"
        self._lock = threading.Lock()
        self._asked = 0
        self._written = 0

    def load(self) -> ManagerState | None:
        """What was saved; None if there is nothing that this version reads."""
        try:
            return snapshot.decode(self.path.read_bytes(), ManagerState)
        except FileNotFoundError:
            return None

    async def save(self, state: ManagerState) -> None:
        """Replace what is on disk with `state` as it is at the call; a later call's state stays the later.

        A save that was begun is finished, also when its caller is cancelled.
        """
        self._asked += 1
        writing = asyncio.get_running_loop().run_in_executor(
            None, self._write, self._asked, snapshot.encode(state)
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    def _write(self, number: int, data: bytes) -> None:
        # Two tasks may save at once, and their threads overtake each other.
        with self._lock:
            if number < self._written:
                return
            self._written = number
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            scratch = self.path.with_suffix(".new")
            with scratch.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
