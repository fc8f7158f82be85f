"""Keeps a projection at the head of the log, whatever happens to the broker."""

import logging
from collections.abc import Callable, Sequence

from dtf.api.v1 import events_pb2
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogHead, LogUnavailable, StoredCommit
from dtf.resource_manager.state_file import ManagerState

RETRY_SECONDS = 0.5
Follower = Callable[[int, str, events_pb2.Commit], None]
"""Is told of each commit once it is folded: sequence, message id, commit."""
_log = logging.getLogger("dtf.resource_manager")


class LogReader:
    """Folds commits into a ManagerState. Raises ChainBroken when the log is not one chain any more."""

    def __init__(
        self, log: EventLog, state: ManagerState, clock: Clock, also: Sequence[Follower] = ()
    ) -> None:
        self._log = log
        self._state = state
        self._clock = clock
        self._also = also

    async def catch_up(self) -> None:
        """Return when everything is folded that was in the log at the call."""
        head = await self._head()
        if not await self._knows(head):
            _log.warning("the log is not the one that was followed to %d: it is read anew", self._sequence)
            self._state.forget_log()
        while self._sequence < head.last_sequence:
            try:
                async for batch in self._log.read(self._sequence, head.last_sequence):
                    self._fold(batch)
            except LogUnavailable as error:
                await self._wait_for_broker(error)

    async def follow(self, on_batch: Callable[[int], None]) -> None:
        """Fold without end; `on_batch` hears how many messages were folded."""
        while True:
            try:
                async for batch in self._log.follow(self._sequence):
                    self._fold(batch)
                    on_batch(len(batch))
            except LogUnavailable as error:
                await self._wait_for_broker(error)

    @property
    def _sequence(self) -> int:
        return self._state.chain.sequence

    def _fold(self, batch: Sequence[StoredCommit]) -> None:
        for stored in batch:
            if stored.sequence <= self._sequence:
                continue
            commit = self._state.chain.accept(stored.sequence, stored.payload, stored.message_id)
            if commit is None:
                _log.warning("message %d of the log is not of its chain and is passed over", stored.sequence)
                continue
            self._state.fold(stored.sequence, stored.message_id, commit)
            for follower in self._also:
                follower(stored.sequence, stored.message_id, commit)

    async def _head(self) -> LogHead:
        while True:
            try:
                return await self._log.head()
            except LogUnavailable as error:
                await self._wait_for_broker(error)

    async def _knows(self, head: LogHead) -> bool:
        """Whether the commit folded last is in this log, where it was."""
        known = self._state.projection
        if not known.last_sequence:
            return True
        if head.last_sequence < self._sequence:
            return False
        async for batch in self._log.read(known.last_sequence - 1, known.last_sequence):
            return bool(batch) and batch[0].message_id == known.last_message_id
        return False

    async def _wait_for_broker(self, error: LogUnavailable) -> None:
        _log.warning("the log does not answer (%s); trying again", error)
        await self._clock.sleep(RETRY_SECONDS)
