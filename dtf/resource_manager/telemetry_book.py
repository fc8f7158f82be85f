"""The newest sample of telemetry of each worker, as the coordinator publishes them."""

import logging
from collections.abc import Callable
from statistics import fmean

from google.protobuf.message import DecodeError

from dtf.api.v1 import worker_service_pb2
from dtf.core.scaling.adaptive import PoolTelemetry
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, RecordStream

FRESH_SECONDS = 60.0
"""A worker that has said nothing for so long is left out; samples come every few seconds."""
RETRY_SECONDS = 1.0
WORKERS_KEPT = 10_000

_log = logging.getLogger("dtf.resource_manager")
Sample = worker_service_pb2.TelemetrySample


class TelemetryBook:
    """Follows the stream; `run` serves until it is cancelled."""

    def __init__(
        self, telemetry: RecordStream, clock: Clock, heard: Callable[[Sample], None], after: int = 0
    ) -> None:
        self._telemetry = telemetry
        self._clock = clock
        self._heard = heard
        self._after = after
        self._newest: dict[str, Sample] = {}

    def of_pool(self, pool: str, now_ns: int) -> PoolTelemetry | None:
        """Means over the pool's workers; None: nothing has been said lately."""
        since_ns = now_ns - int(FRESH_SECONDS * 1e9)
        samples = [
            sample.telemetry
            for sample in self._newest.values()
            if sample.pool == pool and sample.heard_unix_nanos >= since_ns
        ]
        if not samples:
            return None
        memory = [
            said.memory_used_bytes / said.memory_total_bytes for said in samples if said.memory_total_bytes
        ]
        return PoolTelemetry(
            cpu_ratio=fmean(said.cpu_ratio for said in samples), memory_ratio=fmean(memory) if memory else 0.0
        )

    async def run(self) -> None:
        """Take in samples as they come."""
        while True:
            try:
                async for batch in self._telemetry.follow(self._after):
                    for stored in batch:
                        self._after = stored.sequence
                        self._take(stored.payload)
            except LogError as error:
                _log.warning("telemetry cannot be followed (%s); trying again", error)
            await self._clock.sleep(RETRY_SECONDS)

    def _take(self, payload: bytes) -> None:
        try:
            sample = Sample.FromString(payload)
        except DecodeError:
            return
        self._newest.pop(sample.worker_id, None)
        self._newest[sample.worker_id] = sample
        if len(self._newest) > WORKERS_KEPT:
            del self._newest[next(iter(self._newest))]
        self._heard(sample)
