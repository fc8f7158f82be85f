"""Time and identifiers, so that nothing above reads them from the machine itself."""

from typing import Protocol


class Clock(Protocol):
    """Where time, delays and random identifiers come from."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never falls; its zero means nothing."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock have passed."""
        ...

    def new_id(self, length: int = 16) -> str:
        """A random identifier of `length` lower-case letters and digits without l, o, 0 and 1."""
        ...
