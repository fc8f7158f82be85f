"""The machine's own clock and randomness: the one place that reads them."""

import asyncio
import secrets
import time

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""Letters and digits that nobody mistakes for each other: 32, so that five random bits pick one."""


class SystemClock:
    """The Clock port on the machine's time."""

    def now_ns(self) -> int:
        """Wall-clock time in nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds on a clock that never falls."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)  # noqa: TID251 - this is the adapter that may

    def new_id(self, length: int = 16) -> str:
        """A random identifier: five bits a character."""
        return "".join(_ALPHABET[byte & 31] for byte in secrets.token_bytes(length))
