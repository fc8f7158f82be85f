"""Where readers wait until the store has reached a sequence."""

import asyncio
from collections.abc import Callable


class CheckpointGate:
    """The sequence reached, and those who wait for one. Each new waiter is told to `on_wait`."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        self.sequence = 0
        self._on_wait = on_wait
        self._moved = asyncio.Event()
        self._waiting = 0

    @property
    def is_awaited(self) -> bool:
        """Whether someone waits for a sequence that is not there yet."""
        return self._waiting > 0

    def advance(self, sequence: int) -> None:
        """Everything up to `sequence` is in the store."""
        self.sequence = max(self.sequence, sequence)
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait(self, sequence: int) -> None:
        """Return once `sequence` is reached."""
        self._waiting += 1
        self._on_wait()
        try:
            while self.sequence < sequence:
                await self._moved.wait()
        finally:
            self._waiting -= 1
