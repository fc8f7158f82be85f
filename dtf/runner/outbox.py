"""Results on their way from a warm process to its worker: none is lost, few messages are sent.

A result is written to a journal in shared memory the moment its case ends, which costs about a
microsecond, and sent over the channel in batches. So a process that dies takes no finished result
with it: the worker reads the journal after the death. And a result that waits for its batch while
a long case runs is not late: the worker looks into the journal of every busy process some twenty
times a second. What it gets twice, it knows by fence and case, and takes once.

Journal, little-endian, after the status cell: generation u64, length u32, padding u32, then
`length` bytes of entries, each a u32 length and a msgpack ResultItem. Within a generation it only
grows, and `length` is written after the entry; sending a batch begins the next generation. A
reader that sees one generation before and after its copy has whole entries.
"""

import struct
import time

import msgspec

from dtf.runner import shared_memory
from dtf.runner.channel import ResultItem, Results, RunnerChannel
from dtf.runner.shared_memory import JOURNAL_BYTES, STATUS_BYTES
from dtf.runner.status import StatusWriter

_GENERATION = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_GENERATION_AT = STATUS_BYTES
_LENGTH_AT = STATUS_BYTES + 8
_ENTRIES_AT = STATUS_BYTES + 16
_CAPACITY_BYTES = JOURNAL_BYTES - 16

MAX_BATCH = 256
"""Results a message; as many as one message of the session carries."""
LINGER_SECONDS = 0.001
"""Time after which results are sent and messages looked for before the next case begins, unless said otherwise."""

_encode = msgspec.msgpack.Encoder().encode
_decoder: "msgspec.msgpack.Decoder[ResultItem]" = msgspec.msgpack.Decoder(ResultItem)


class Outbox:
    """The runner's end: add each result as its case ends, ask `send_if_due` before each case begins."""

    def __init__(
        self, channel: RunnerChannel, status: StatusWriter, linger_seconds: float = LINGER_SECONDS
    ) -> None:
        self._channel = channel
        self._linger_seconds = linger_seconds
        self._memory = status.memory
        self._items: list[ResultItem] = []
        self._turned_at = 0.0
        self._length = 0
        self._generation = 0

    def add(self, item: ResultItem) -> None:
        """A case ended. The result is safe when this returns."""
        self._items.append(item)
        if not self._record(_encode(item)):
            self.send()

    def send_if_due(self) -> bool:
        """Send if the batch is full or the last turn was long enough ago; True: also time to look for messages."""
        now = time.monotonic()
        if len(self._items) < MAX_BATCH and now - self._turned_at < self._linger_seconds:
            return False
        self._turned_at = now
        self.send()
        return True

    def send(self) -> None:
        """Send what there is. The worker has it when this returns."""
        if not self._items:
            return
        self._channel.send(Results(self._items))
        self._items = []
        self._length = 0
        # In this order: a reader between the two sees an old generation with no entries.
        _LENGTH.pack_into(self._memory, _LENGTH_AT, 0)
        self._generation += 1
        _GENERATION.pack_into(self._memory, _GENERATION_AT, self._generation)

    def _record(self, entry: bytes) -> bool:
        """Write an entry; False if the journal has no room for it."""
        end = self._length + _LENGTH.size + len(entry)
        if end > _CAPACITY_BYTES:
            return False
        start = _ENTRIES_AT + self._length
        _LENGTH.pack_into(self._memory, start, len(entry))
        self._memory[start + _LENGTH.size : _ENTRIES_AT + end] = entry
        _LENGTH.pack_into(self._memory, _LENGTH_AT, end)
        self._length = end
        return True


class JournalReader:
    """The worker's end."""

    def __init__(self, file_descriptor: int) -> None:
        self._memory = shared_memory.map_for_reading(file_descriptor)
        self._seen = (0, 0)

    def read(self) -> list[ResultItem]:
        """The results recorded and, when last looked at, neither sent nor read. Empty while they change."""
        (generation,) = _GENERATION.unpack_from(self._memory, _GENERATION_AT)
        (length,) = _LENGTH.unpack_from(self._memory, _LENGTH_AT)
        begin = self._seen[1] if self._seen[0] == generation else 0
        if length <= begin or length > _CAPACITY_BYTES:
            return []
        entries = self._memory[_ENTRIES_AT + begin : _ENTRIES_AT + length]
        if _GENERATION.unpack_from(self._memory, _GENERATION_AT) != (generation,):
            return []
        self._seen = (generation, length)
        return _split(entries)


def _split(entries: bytes) -> list[ResultItem]:
    items = []
    start = 0
    while start + _LENGTH.size <= len(entries):
        (length,) = _LENGTH.unpack_from(entries, start)
        start += _LENGTH.size
        items.append(_decoder.decode(entries[start : start + length]))
        start += length
    return items
