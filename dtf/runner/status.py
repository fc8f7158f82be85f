"""A cell of shared memory that says which case a warm process runs now.

Layout, little-endian, at the start of the mapping: fence u64, case u32 plus 1 (0: none runs),
padding u32, start on the monotonic clock f64 (CLOCK_MONOTONIC is one for all processes of a
machine), timeout f64, counter of cases begun u64. The runner alone writes; the counter is written
last, so a reader that sees it unchanged before and after has a whole record.
"""

import struct
import time
from dataclasses import dataclass

from dtf.runner import shared_memory

_RECORD = struct.Struct("<QIIdd")
_COUNTER = struct.Struct("<Q")
SIZE_BYTES = shared_memory.SIZE_BYTES


@dataclass(frozen=True, slots=True)
class RunningCase:
    """The case that runs now."""

    fence: int
    case: int
    started_monotonic: float
    timeout_seconds: float


class StatusWriter:
    """The runner's end."""

    def __init__(self, file_descriptor: int) -> None:
        self.memory = shared_memory.map_for_writing(file_descriptor)
        self._count = 0

    def begin(self, fence: int, case: int, timeout_seconds: float) -> None:
        """A case begins now."""
        _RECORD.pack_into(self.memory, 0, fence, case + 1, 0, time.monotonic(), timeout_seconds)
        self._count += 1
        _COUNTER.pack_into(self.memory, _RECORD.size, self._count)

    def end(self) -> None:
        """No case runs."""
        _RECORD.pack_into(self.memory, 0, 0, 0, 0, 0.0, 0.0)
        self._count += 1
        _COUNTER.pack_into(self.memory, _RECORD.size, self._count)


class StatusReader:
    """The worker's end."""

    def __init__(self, file_descriptor: int) -> None:
        self._memory = shared_memory.map_for_reading(file_descriptor)

    def read(self) -> RunningCase | None:
        """The case that runs now, or None."""
        while True:
            before = _COUNTER.unpack_from(self._memory, _RECORD.size)
            fence, case, _, started, timeout = _RECORD.unpack_from(self._memory, 0)
            if _COUNTER.unpack_from(self._memory, _RECORD.size) == before:
                return RunningCase(fence, case - 1, started, timeout) if case else None
