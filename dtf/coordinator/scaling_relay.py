"""Scaling decisions, followed once and kept for watchers of runs."""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from dtf.api.v1 import scaling_pb2
from dtf.coordinator.bell import Bell
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, RecordStream

log = logging.getLogger(__name__)

MAX_KEPT = 2000
MAX_POOLS_KEPT = 1000
"""Pools whose newest decision is kept, those decided on last."""
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class KeptDecision:
    """A decision and its position in the relay."""

    position: int
    decision: scaling_pb2.ScalingDecision


class ScalingRelay:
    """The newest decisions, by position from 1."""

    def __init__(self, records: RecordStream, clock: Clock, bell: Bell) -> None:
        self._records = records
        self._clock = clock
        self._kept: deque[KeptDecision] = deque(maxlen=MAX_KEPT)
        self._bell = bell
        self.latest: dict[str, scaling_pb2.ScalingDecision] = {}
        """The newest decision of each pool."""

    @property
    def position(self) -> int:
        """Position of the newest decision."""
        return self._kept[-1].position if self._kept else 0

    def after(self, position: int, since_ns: int = 0) -> Sequence[KeptDecision]:
        """Decisions after a position, made at or after an instant."""
        return [
            kept
            for kept in self._kept
            if kept.position > position and kept.decision.now_unix_nanos >= since_ns
        ]

    async def run(self) -> None:
        """Follow the stream for ever; a broken one is followed again from where it broke."""
        sequence = 0
        while True:
            try:
                async for batch in self._records.follow(sequence):
                    for stored in batch:
                        sequence = stored.sequence
                        self._keep(stored.payload)
            except LogError as error:
                log.warning("scaling decisions cannot be followed", extra={"cause": str(error)})
            await self._clock.sleep(RETRY_SECONDS)

    def _keep(self, payload: bytes) -> None:
        try:
            decision = scaling_pb2.ScalingDecision.FromString(payload)
        except DecodeError:
            return
        if decision.rehearsal:
            return  # it was not carried out
        self._kept.append(KeptDecision(self.position + 1, decision))
        self.latest.pop(decision.pool, None)
        self.latest[decision.pool] = decision
        if len(self.latest) > MAX_POOLS_KEPT:
            del self.latest[next(iter(self.latest))]
        self._bell.ring()
