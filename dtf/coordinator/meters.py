"""Figures of one coordinator, in plain values; whoever publishes them reads them."""

from bisect import bisect_left
from dataclasses import dataclass, field

APPEND_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds, in seconds, of the histogram of appends."""


@dataclass(slots=True)
class Meters:
    """What became durable since the process began."""

    commits: int = 0
    events: int = 0
    commit_bytes: int = 0
    appends: list[int] = field(default_factory=lambda: [0] * (len(APPEND_BOUNDS) + 1))
    """Commits by the time from their decision to the log's word, one entry a bound, and what is beyond the last."""
    append_seconds: float = 0.0
    """Sum of all these times."""

    def durable(self, event_count: int, size_bytes: int, seconds: float) -> None:
        """A commit was acknowledged so long after it was decided."""
        self.commits += 1
        self.events += event_count
        self.commit_bytes += size_bytes
        self.appends[bisect_left(APPEND_BOUNDS, seconds)] += 1
        self.append_seconds += seconds
