"""One stream on its way into the store: read, fold, write, checkpoint.

A reader folds what the stream brings; a writer takes what has gathered, PACE_SECONDS after the first of it (later
where taking it is work), and writes points and checkpoint together. While the store is away the writer
waits and tries the same batch again; when MOST_WAITING points wait, the reader stops reading, so an
outage of any length costs neither memory nor points.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import DecodeError

from dtf.core.trend.points import Points, Unusable
from dtf.ports.clock import Clock
from dtf.ports.event_log import StoredCommit
from dtf.ports.metric_store import Checkpoint, MetricStore, StoreReplaced, StoreUnavailable
from dtf.trend_analyzer.gate import CheckpointGate

PACE_SECONDS = 0.5
"""Points wait for this long at most: a write to DuckDB costs 10 ms of processor time however little it carries."""
REST_RATIO = 9.0
"""Points wait for so many times as long as it took to take the ones before, if that is more: where a suite of thousands of
findings is grouped anew for each that is found, this is a tenth of the time and not all of it."""
LONGEST_PACE_SECONDS = 10.0
ENOUGH_POINTS = 5_000
"""Points that are written without waiting longer."""
MOST_WAITING = 100_000
"""Points beyond which nothing more is read."""
FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 10.0

_log = logging.getLogger(__name__)

_M = TypeVar("_M")
_M_contra = TypeVar("_M_contra", contravariant=True)

Source = Callable[[int], AsyncIterator[Sequence[StoredCommit]]]
"""`follow` of a stream: batches after a sequence, without end."""


Handover = Callable[[Checkpoint], Awaitable[None]]
"""Takes what a fold gathered beside its points, once these are in the store; returns when there is room for more."""


class Fold(Protocol[_M_contra]):
    """Messages in, points out."""

    sequence: int

    def __len__(self) -> int: ...

    def apply(self, message: _M_contra, sequence: int, /) -> None: ...

    def take(self) -> list[Points]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class StreamIntake(Generic[_M]):
    """Carries one stream into the store."""

    def __init__(
        self,
        stream: str,
        *,
        source: Source,
        parse: Callable[[bytes], _M],
        fold: Fold[_M],
        store: MetricStore,
        clock: Clock,
        gather: Callable[[], Handover] | None = None,
    ) -> None:
        self._is_due = asyncio.Event()
        self.gate = CheckpointGate(self._is_due.set)
        self._stream = stream
        self._source = source
        self._parse = parse
        self._fold = fold
        self._store = store
        self._clock = clock
        self._gather = gather
        self._message_id = ""
        self._has_news = asyncio.Event()
        self._has_room = asyncio.Event()
        self.pace_seconds = PACE_SECONDS
        """How long the next points wait at most, unless someone waits for them or there are many."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint."""
        state = json.loads(checkpoint.state)
        self._fold.restore(state["fold"])
        self._message_id = state["message_id"]
        self.gate.advance(checkpoint.sequence)

    async def run(self) -> None:
        """Carry the stream without end. Raises LogError and the StoreErrors that waiting cannot mend."""
        if len(self._fold):
            self._has_news.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._write())

    def fold_one(self, stored: StoredCommit) -> None:
        """Fold one message; one that nothing can be made of is a stranger's and is passed over."""
        try:
            self._fold.apply(self._parse(stored.payload), stored.sequence)
        except (DecodeError, Unusable) as error:
            _log.warning(
                "passed over a message that is not ours: stream=%s sequence=%d (%s)",
                self._stream,
                stored.sequence,
                error,
            )
            self._fold.sequence = stored.sequence
        self._message_id = stored.message_id

    async def flush(self) -> None:
        """Write what was folded, and the checkpoint of it."""
        state = {"fold": self._fold.state(), "message_id": self._message_id}
        checkpoint = Checkpoint(self._stream, self._fold.sequence, json.dumps(state, separators=(",", ":")))
        hand_over = self._gather() if self._gather is not None else None
        began = self._clock.monotonic()
        points = self._fold.take()
        rest = REST_RATIO * (self._clock.monotonic() - began)
        self.pace_seconds = min(LONGEST_PACE_SECONDS, max(PACE_SECONDS, rest))
        await self._persist(points, checkpoint)
        self.gate.advance(checkpoint.sequence)
        if hand_over is not None:
            await hand_over(checkpoint)

    async def _read(self) -> None:
        async for batch in self._source(self._fold.sequence):
            for stored in batch:
                self.fold_one(stored)
                await self._clock.sleep(0)  # calls are answered while a long log is read
                if len(self._fold) >= ENOUGH_POINTS:
                    await self._make_room()
            self._has_news.set()

    async def _make_room(self) -> None:
        self._has_news.set()
        self._is_due.set()
        while len(self._fold) >= MOST_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    async def _write(self) -> None:
        while True:
            await self._has_news.wait()
            await self._linger()
            self._has_news.clear()
            self._is_due.clear()
            await self.flush()
            self._has_room.set()

    async def _linger(self) -> None:
        """Let points gather, unless there are enough or someone waits for them."""
        if self.gate.is_awaited:
            return
        try:
            async with asyncio.timeout(self.pace_seconds):
                await self._is_due.wait()
        except TimeoutError:
            return

    async def _persist(self, points: Sequence[Points], checkpoint: Checkpoint) -> None:
        delay, was_away = FIRST_RETRY_SECONDS, False
        while True:
            try:
                if was_away:
                    await self._check_store()
                await self._store.write(points, checkpoint)
            except StoreUnavailable as error:
                wait = max(delay, error.retry_after_seconds)
                _log.warning(
                    "the metric store is away, trying again: stream=%s seconds=%.2f %s",
                    self._stream,
                    wait,
                    error,
                )
                await self._clock.sleep(wait)
                was_away = True
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)
            else:
                return

    async def _check_store(self) -> None:
        """Raises StoreReplaced where the store lacks what it had: it was made anew, or put back from a backup."""
        found = await self._store.checkpoint(self._stream)
        reached = found.sequence if found is not None else 0
        if reached < self.gate.sequence:
            raise StoreReplaced(
                f"the {self._store.kind} store is not the one it was: it had the stream {self._stream} up to "
                f"{self.gate.sequence} and has it up to {reached}; start again, and it is filled from there"
            )
