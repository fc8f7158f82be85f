"""Publishes decisions in order, each once, however often the broker or this process goes away."""

import asyncio
import logging

from dtf.api.v1 import scaling_pb2
from dtf.ports.clock import Clock
from dtf.ports.event_log import LogError, RecordStream
from dtf.ports.subjects import scaling_subject
from dtf.resource_manager.state_file import ManagerState

RETRY_SECONDS = 0.5
_log = logging.getLogger("dtf.resource_manager")


class Announcer:
    """Empties the state's outbox. A decision sent twice is stored once, because its id is the message's."""

    def __init__(self, scaling: RecordStream, namespace: str, state: ManagerState, clock: Clock) -> None:
        self._scaling = scaling
        self._namespace = namespace
        self._state = state
        self._clock = clock
        self._wanted = asyncio.Event()
        self._wanted.set()

    def announce(self, decision: scaling_pb2.ScalingDecision) -> None:
        """Publish it soon."""
        self._state.outbox.append(decision.SerializeToString())
        self._wanted.set()

    async def run(self) -> None:
        """Publish without end."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._state.outbox:
                try:
                    await self.publish_next()
                except LogError as error:
                    _log.warning("a decision could not be published (%s); trying again", error)
                    await self._clock.sleep(RETRY_SECONDS)

    async def publish_next(self) -> None:
        """Publish the oldest decision. Raises LogError."""
        payload = self._state.outbox[0]
        decision = scaling_pb2.ScalingDecision.FromString(payload)
        subject = scaling_subject(self._namespace, decision.pool)
        await self._scaling.publish(subject, payload, message_id=decision.decision_id)
        self._state.outbox.pop(0)

    async def publish_rest(self, timeout_seconds: float) -> None:
        """Publish what is left, as far as the time allows."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._state.outbox:
                    await self.publish_next()
        except (TimeoutError, LogError) as error:
            _log.warning("%d decisions are published at the next start (%s)", len(self._state.outbox), error)
