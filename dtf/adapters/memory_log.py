"""An event log and record streams in memory: they pass the same contract suite as the broker's.

Beside the ports they have handles that tests use to bring about what a broker does only now
and then: a message from a stranger, acknowledgements that are late or never come.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from dtf.ports.event_log import AppendConflict, LogFull, LogHead, LogUnavailable, StoredCommit

_BATCH = 512
_OVERHEAD_BYTES = 64
"""What a stored message takes beside its payload, about as in nats-server."""


@dataclass(slots=True)
class _Messages:
    """Messages in order from sequence 1, with a way to wait for more."""

    items: list[StoredCommit] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    size_bytes: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, payload: bytes, message_id: str, headers: Mapping[str, str]) -> int:
        sequence = len(self.items) + 1
        self.items.append(StoredCommit(sequence, payload, message_id, dict(headers)))
        self.ids.add(message_id)
        self.size_bytes += len(payload) + _OVERHEAD_BYTES
        self.grown.set()
        self.grown = asyncio.Event()
        return sequence

    async def read(self, after: int, until: int | None) -> AsyncIterator[Sequence[StoredCommit]]:
        end = len(self.items) if until is None else min(until, len(self.items))
        for start in range(after, end, _BATCH):
            yield self.items[start : min(start + _BATCH, end)]

    async def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        while True:
            batch = self.items[after : after + _BATCH]
            if batch:
                after = batch[-1].sequence
                yield batch
            else:
                await self.grown.wait()


class MemoryLog:
    """The EventLog port in memory. Appends land at the call and are acknowledged a turn later."""

    def __init__(self, *, max_bytes: int = 2**62) -> None:
        self._messages = _Messages()
        self._max_bytes = max_bytes
        self._is_open = True
        self._is_reachable = True
        self._held: list[tuple[asyncio.Future[int], int]] | None = None

    async def head(self) -> LogHead:
        """Where the log ends."""
        self._require_reachable()
        items = self._messages.items
        return LogHead(len(items), items[-1].message_id if items else "", 1)

    def append(
        self,
        payload: bytes,
        *,
        message_id: str,
        previous_message_id: str | None,
        expected_last_sequence: int | None,
        headers: Mapping[str, str],
    ) -> asyncio.Future[int]:
        """Store one commit; see the port."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            self._require_reachable()
            self._check_fence(message_id, previous_message_id, expected_last_sequence)
            self._check_room(payload)
        except (AppendConflict, LogFull, LogUnavailable) as error:
            asyncio.get_running_loop().call_soon(_fail, future, error)
            return future
        sequence = self._messages.add(payload, message_id, headers)
        if self._held is None:
            asyncio.get_running_loop().call_soon(_resolve, future, sequence)
        else:
            self._held.append((future, sequence))
        return future

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is stored; see the port."""
        self._require_reachable()
        return self._messages.read(after, until)

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; see the port."""
        return self._messages.follow(after)

    async def close(self) -> None:
        """Fail what is in flight; the messages stay."""
        self._is_open = False
        for future, _ in self._held or ():
            _fail(future, LogUnavailable("the log was closed"))
        self._held = None

    @property
    def commits(self) -> Sequence[StoredCommit]:
        """Everything stored, in order."""
        return self._messages.items

    def inject(self, payload: bytes, message_id: str = "", headers: Mapping[str, str] | None = None) -> int:
        """Store a message as a stranger would, past every fence."""
        return self._messages.add(payload, message_id, headers or {})

    def cut(self, after: int) -> None:
        """Lose the messages after `after`, as a broker does whose disk lost what was written last."""
        del self._messages.items[after:]
        self._messages.ids = {stored.message_id for stored in self._messages.items}

    def hold_acknowledgements(self) -> None:
        """From now on appends land and stay unacknowledged."""
        self._held = self._held if self._held is not None else []

    def release_acknowledgements(self) -> None:
        """Acknowledge what was held, in order, and go on as before."""
        held, self._held = self._held or [], None
        for future, sequence in held:
            _resolve(future, sequence)

    def disconnect(self) -> None:
        """The broker answers nothing from now on; what is held fails."""
        self._is_reachable = False
        held, self._held = self._held or [], None
        for future, _ in held:
            _fail(future, LogUnavailable("the connection was lost with the append in flight"))

    def reconnect(self) -> None:
        """The broker answers again."""
        self._is_reachable = True

    def set_max_bytes(self, max_bytes: int) -> None:
        """Change how much fits."""
        self._max_bytes = max_bytes

    def _require_reachable(self) -> None:
        if not self._is_open:
            raise LogUnavailable("the log was closed")
        if not self._is_reachable:
            raise LogUnavailable("not connected to the broker; it is tried again")

    def _check_fence(self, message_id: str, previous: str | None, expected: int | None) -> None:
        items = self._messages.items
        if message_id and message_id in self._messages.ids:
            raise AppendConflict(f"commit {message_id[:12]} is in the log already")
        if expected is not None and expected != len(items):
            raise AppendConflict(f"the log ends at {len(items)}, expected {expected}")
        last_id = items[-1].message_id if items else ""
        if previous is not None and previous != last_id:
            raise AppendConflict(f"the last commit is {last_id[:12]!r}, expected {previous[:12]!r}")

    def _check_room(self, payload: bytes) -> None:
        if self._messages.size_bytes + len(payload) + _OVERHEAD_BYTES > self._max_bytes:
            raise LogFull(f"the log has reached its {self._max_bytes} bytes; make room, then go on")


class MemoryRecords:
    """The RecordStream port in memory."""

    def __init__(self) -> None:
        self._messages = _Messages()
        self._sequences: dict[str, int] = {}

    async def publish(self, subject: str, payload: bytes, message_id: str | None = None) -> int:
        """Store one message once."""
        if message_id is not None and message_id in self._sequences:
            return self._sequences[message_id]
        sequence = self._messages.add(payload, message_id or "", {})
        if message_id is not None:
            self._sequences[message_id] = sequence
        return sequence

    def follow(self, after: int) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches without end; see the port."""
        return self._messages.follow(after)

    def read(self, after: int, until: int | None = None) -> AsyncIterator[Sequence[StoredCommit]]:
        """Batches of what is stored; see the port."""
        return self._messages.read(after, until)

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def records(self) -> Sequence[StoredCommit]:
        """Everything stored, in order."""
        return self._messages.items


def _resolve(future: asyncio.Future[int], sequence: int) -> None:
    if not future.done():
        future.set_result(sequence)


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
