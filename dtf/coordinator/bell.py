"""A bell that whoever waits for anything new listens to."""

import asyncio

from dtf.core.run.commands import Rejection


class Bell:
    """Rung when something was added. Take `next()`, look, and `wait` for it if there was nothing."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._refusal: Rejection | None = None

    def ring(self) -> None:
        """Wake everyone who listens."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._event

    async def wait(self, rung: asyncio.Event) -> None:
        """Return at the ring. Raises the refusal once the bell is taken down."""
        if self._refusal is None:
            await rung.wait()
        if self._refusal is not None:
            raise self._refusal

    def take_down(self, refusal: Rejection) -> None:
        """Send everyone who waits, now or later, away with a refusal."""
        self._refusal = refusal
        self.ring()
