"""The time a coordinator writes into its commits."""

from dtf.ports.clock import Clock


class MonotonicTime:
    """The coordinator's time: the wall clock at the start, then the monotonic clock; it never repeats."""

    def __init__(self, clock: Clock, after_ns: int) -> None:
        self._clock = clock
        self._base_ns = clock.now_ns()
        self._base = clock.monotonic()
        self._last_ns = after_ns

    def next_ns(self) -> int:
        """Now, and later than every answer before and every commit stored."""
        now_ns = self._base_ns + int((self._clock.monotonic() - self._base) * 1e9)
        self._last_ns = max(now_ns, self._last_ns + 1)
        return self._last_ns
