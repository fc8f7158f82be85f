"""Counts over the last minute, in one-second buckets of commit time."""

from dataclasses import dataclass, field

WINDOW_SECONDS = 60
NANOS = 1_000_000_000


@dataclass(slots=True)
class RateMeter:
    """How much happened in each of the last 60 seconds, the present one included."""

    second: int = 0
    first_second: int = 0
    buckets: list[float] = field(default_factory=lambda: [0.0] * WINDOW_SECONDS)

    def add(self, now_ns: int, amount: float) -> None:
        """`amount` happened at `now_ns`."""
        second = now_ns // NANOS
        if second != self.second:
            self._advance(second)
        self.buckets[self.second % WINDOW_SECONDS] += amount

    def total(self, now_ns: int) -> float:
        """What happened in the last minute."""
        stale = now_ns // NANOS - self.second
        if stale >= WINDOW_SECONDS:
            return 0.0
        if stale <= 0:
            return sum(self.buckets)
        first = (self.second + 1 + stale) % WINDOW_SECONDS
        end = first + WINDOW_SECONDS - stale
        return sum(self.buckets[first:end]) + sum(self.buckets[: max(0, end - WINDOW_SECONDS)])

    def per_second(self, now_ns: int) -> float:
        """The mean rate over the last minute, or over the meter's life if that is shorter."""
        if not self.first_second:
            return 0.0
        age = now_ns // NANOS - self.first_second + 1
        return self.total(now_ns) / min(max(age, 1), WINDOW_SECONDS)

    def _advance(self, second: int) -> None:
        if not self.first_second:
            self.first_second = self.second = second
        if second - self.second >= WINDOW_SECONDS:
            self.buckets[:] = [0.0] * WINDOW_SECONDS
        else:
            for passed in range(self.second + 1, second + 1):
                self.buckets[passed % WINDOW_SECONDS] = 0.0
        self.second = max(self.second, second)
