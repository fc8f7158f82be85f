"""A bell that whoever waits for anything new listens to."""

import asyncio


class Bell:
    """Rung when something was added. Take `next()`, look, and wait for it if there was nothing."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake everyone who listens."""
        self._event.set()
        self._event = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Set at the next ring."""
        return self._event
