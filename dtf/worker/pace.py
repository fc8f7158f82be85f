"""How much work is at hand: for a process, what takes a moment; for the worker, a little more."""

MAX_WINDOW = 512
WINDOW_SECONDS = 0.05
"""Work a process has before it, so that it need not wait for the worker's loop."""
AHEAD_SECONDS = 0.1
"""Work that should be at hand for each slot: a grant takes some tens of milliseconds under load."""


def window_of(average_seconds: float) -> int:
    """How many cases a process may have before it, given how long they take; 0: unknown."""
    if average_seconds <= 0:
        return 1
    return max(1, min(MAX_WINDOW, round(WINDOW_SECONDS / average_seconds)))


def smoothed(average: float, value: float) -> float:
    """An average that follows its values half-way; 0: there was none yet."""
    return value if average <= 0 else (average + value) / 2


class Pace:
    """How long leases take, lately, and how many should therefore be held."""

    def __init__(self) -> None:
        self._lease_seconds = 0.0

    def note(self, lease_count: int, seconds: float) -> None:
        """Leases were reported in full; their cases took `seconds` in all."""
        if lease_count:
            self._lease_seconds = smoothed(self._lease_seconds, seconds / lease_count)

    def wanted(self, slot_count: int, least: int, most: int) -> int:
        """How many leases should be held, so that what comes next is here before it is needed."""
        least = min(least, most)
        if self._lease_seconds <= 0:
            return least
        return max(least, min(most, int(AHEAD_SECONDS * slot_count / self._lease_seconds)))
