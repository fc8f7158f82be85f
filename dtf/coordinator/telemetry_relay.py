"""Telemetry of workers on its way to DTF_TELEMETRY: best effort, and never in the way."""

import asyncio
import logging
from collections import deque

from dtf.api.v1 import worker_service_pb2
from dtf.coordinator.session import Session
from dtf.core.run.state import State
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, RecordStream
from dtf.ports.subjects import telemetry_subject

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Samples that wait while the broker is slow; the oldest go first."""
PUBLISH_TIMEOUT_SECONDS = 10.0


class TelemetryRelay:
    """Takes samples at once and publishes them when it can; counts what it dropped."""

    def __init__(self, records: RecordStream, state: State, clock: Clock, namespace: str) -> None:
        self._records = records
        self._state = state
        self._clock = clock
        self._namespace = namespace
        self._waiting: deque[worker_service_pb2.TelemetrySample] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self.dropped_count = 0

    def take(self, session: Session, telemetry: worker_service_pb2.Telemetry) -> None:
        """Queue one sample."""
        worker = self._state.workers[session.worker_id]
        if len(self._waiting) == MAX_WAITING:
            self.dropped_count += 1
        self._waiting.append(
            worker_service_pb2.TelemetrySample(
                worker_id=session.worker_id,
                incarnation=session.incarnation,
                pool=worker.pool,
                heard_unix_nanos=self._clock.now_ns(),
                telemetry=telemetry,
            )
        )
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._publish(self._waiting.popleft())

    async def _publish(self, sample: worker_service_pb2.TelemetrySample) -> None:
        subject = telemetry_subject(self._namespace, sample.worker_id)
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
                await self._records.publish(subject, sample.SerializeToString())
        except (LogError, TimeoutError) as error:
            self.dropped_count += 1
            log.debug("a telemetry sample was dropped", extra={"cause": str(error)})
