"""A cell of shared memory that says which case a warm process runs now.

Layout, little-endian, at the start of the mapping: fence u64, case u32 plus 1 (0: none runs),
padding u32, start on the monotonic clock f64 (CLOCK_MONOTONIC is one for all processes of a
machine), timeout f64, counter of changes u64. The runner alone writes. The counter is odd while it
does: a reader that sees one even number before and after has a whole record, and looks again
otherwise (a sequence lock, as Linux's; struct zeroes a record before it fills it, so that torn
records are not rare).
"""

import struct
import time
from dataclasses import dataclass

from dtf.runner import shared_memory

_RECORD = struct.Struct("<QIIdd")
_COUNTER = struct.Struct("<Q")
SIZE_BYTES = shared_memory.SIZE_BYTES
MAX_LOOKS = 1000
"""More would mean that the runner died, or was stopped, in the middle of a change."""


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
        self._write(fence, case + 1, time.monotonic(), timeout_seconds)

    def end(self) -> None:
        """No case runs."""
        self._write(0, 0, 0.0, 0.0)

    def _write(self, fence: int, case: int, started: float, timeout_seconds: float) -> None:
        memory, count = self.memory, self._count
        _COUNTER.pack_into(memory, _RECORD.size, count + 1)
        _RECORD.pack_into(memory, 0, fence, case, 0, started, timeout_seconds)
        self._count = count + 2
        _COUNTER.pack_into(memory, _RECORD.size, count + 2)


class StatusReader:
    """The worker's end."""

    def __init__(self, file_descriptor: int) -> None:
        self._memory = shared_memory.map_for_reading(file_descriptor)

    def read(self) -> RunningCase | None:
        """The case that runs now; None if none does, or if the record stays in the middle of a change."""
        for _ in range(MAX_LOOKS):
            (before,) = _COUNTER.unpack_from(self._memory, _RECORD.size)
            fence, case, _, started, timeout = _RECORD.unpack_from(self._memory, 0)
            (after,) = _COUNTER.unpack_from(self._memory, _RECORD.size)
            if before == after and before % 2 == 0:
                return RunningCase(fence, case - 1, started, timeout) if case else None
        return None
