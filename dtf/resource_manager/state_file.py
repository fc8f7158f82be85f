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
from dtf.core.scaling.ledger import PoolLedger

OBSERVATIONS_KEPT = 1024
"""Heard between two decisions and not forgotten; nearly everything heard leads to a decision at once."""


@dataclass(slots=True)
class ManagerState:
    """The projection, where the log's chain stands in it, the ledger, and decisions not yet published."""

    ledger: PoolLedger
    projection: DemandProjection = field(default_factory=DemandProjection)
    chain: ChainReader = field(default_factory=ChainReader)
    outbox: list[bytes] = field(default_factory=list)
    """Serialized ScalingDecisions, oldest first."""
    observations: list[bytes] = field(default_factory=list)
    """Serialized Observations since the last decision, oldest first."""

    def observe(self, seen: scaling_pb2.Observation) -> None:
        """Something was heard; the next decision carries it."""
        seen.log_sequence = self.projection.last_sequence
        self.ledger.observe(seen)
        self.observations = [*self.observations[-OBSERVATIONS_KEPT + 1 :], seen.SerializeToString()]

    def take_observations(self) -> list[scaling_pb2.Observation]:
        """What was heard since the last call."""
        taken, self.observations = self.observations, []
        return [scaling_pb2.Observation.FromString(seen) for seen in taken]

    def fold(self, sequence: int, message_id: str, commit: events_pb2.Commit) -> None:
        """Take the next commit; the ledger hears of workers commit by commit, so that it hears the same again."""
        before = self.projection.fleet_version
        self.projection.apply(sequence, message_id, commit)
        if self.projection.fleet_version != before:
            self.ledger.sync(self.projection, self.projection.last_ns)


class StateFile:
    """One pool's state on disk. A save is durable when it returns and never leaves half a file."""

    def __init__(self, directory: Path, pool: str) -> None:
        self.path = directory / f"{pool}.state"
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
