"""What the resource manager keeps over a restart, in one file that is replaced whole."""

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dtf.core.chain import ChainReader
from dtf.core.scaling import snapshot
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.ledger import PoolLedger


@dataclass(slots=True)
class ManagerState:
    """The projection, where the log's chain stands in it, the ledger, and decisions not yet published."""

    ledger: PoolLedger
    projection: DemandProjection = field(default_factory=DemandProjection)
    chain: ChainReader = field(default_factory=ChainReader)
    outbox: list[bytes] = field(default_factory=list)
    """Serialized ScalingDecisions, oldest first."""


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
        """Replace what is on disk with `state` as it is at the call; a later call's state stays the later."""
        self._asked += 1
        await asyncio.to_thread(self._write, self._asked, snapshot.encode(state))

    def _write(self, number: int, data: bytes) -> None:
        # A cancelled save leaves its thread running, so saves can overtake each other here.
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
