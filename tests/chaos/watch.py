"""What the live log says while a system runs: who leads, which leases are out, and whether it is clean so far."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import cast

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.api.v1 import events_pb2
from dtf.core.check.checker import HistoryChecker
from dtf.core.events import parse_commit
from dtf.ports.clock import Clock
from dtf.ports.event_log import StoredCommit
from dtf.settings.model import NatsSettings

KEPT_PAYLOADS = 512
KEPT_FENCES = 64


class LogWatch:
    """Follows the log past all links. `run` it in a task."""

    def __init__(self, clock: Clock) -> None:
        self.sequence = 0
        self.epoch = 0
        self.leader_pid = 0
        self.submissions = 0
        """Batches of tasks that were submitted."""
        self.fences: dict[int, str] = {}
        """Leases that are out, and their runs."""
        self.ended: deque[tuple[int, str]] = deque(maxlen=KEPT_FENCES)
        """Leases that were out, and their runs."""
        self.last_commit_at = 0.0
        """On the monotonic clock."""
        self.recent: list[StoredCommit] = []
        """Old messages, for strangers to say again."""
        self.live_checker = HistoryChecker()
        self._clock = clock
        self._moved = asyncio.Event()
        self._last_hash = b""

    async def run(self, nats: NatsSettings, namespace: str = "default") -> None:
        """Follow, for ever."""
        log = await JetStreamLog.attach(nats, namespace, self._clock)
        try:
            batches = cast(AsyncGenerator[Sequence[StoredCommit], None], log.follow(0))
            async with aclosing(batches) as follow:
                async for batch in follow:
                    for stored in batch:
                        self._take(stored)
                    self.last_commit_at = self._clock.monotonic()
                    self._moved.set()
        finally:
            await log.close()

    async def moved(self) -> None:
        """Return when something was appended after this call."""
        self._moved.clear()
        await self._moved.wait()

    @property
    def quiet_seconds(self) -> float:
        """How long the log has said nothing."""
        return self._clock.monotonic() - self.last_commit_at

    def _take(self, stored: StoredCommit) -> None:
        self.sequence = stored.sequence
        self.live_checker.take(stored.sequence, stored.payload, stored.message_id)
        self.recent.append(stored)
        if len(self.recent) > 2 * KEPT_PAYLOADS:
            del self.recent[:KEPT_PAYLOADS]
        commit = parse_commit(stored.payload, stored.message_id)
        if commit is None or commit.prev_hash != self._last_hash:
            return  # a stranger's
        self._last_hash = bytes.fromhex(stored.message_id)
        for event in commit.events:
            self._read(event)

    def _read(self, event: events_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "leader_elected":
                self.epoch = event.leader_elected.epoch
                self.leader_pid = int(event.leader_elected.leader.rpartition(":")[2])
            case "tasks_submitted":
                self.submissions += 1
            case "leases_granted":
                granted = event.leases_granted
                for index in range(len(granted.tasks)):
                    self.fences[granted.first_fence + index] = granted.run_id
            case "results_accepted":
                accepted = event.results_accepted
                self._end(accepted.fences if accepted.all_completed else accepted.completed)
            case "attempts_ended":
                self._end(event.attempts_ended.fences)
            case "leases_released":
                self._end(event.leases_released.fences)
            case _:
                pass

    def _end(self, fences: Iterable[int]) -> None:
        for fence in fences:
            run_id = self.fences.pop(fence, None)
            if run_id is not None:
                self.ended.append((fence, run_id))
