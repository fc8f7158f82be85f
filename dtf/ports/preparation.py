"""A second process for a long replay: it answers the requests of dtf/core/preparation.py, in their order.

PreparationFailed       it is gone, silent or answers nonsense; whoever asked does it all itself
"""

from typing import Protocol


class PreparationFailed(Exception):
    """Nothing more comes from there; the message says why."""


class PreparationProcess(Protocol):
    """The second process. None of it is ever needed: a replay can do without, and takes longer."""

    async def start(self) -> None:
        """Let it begin; it takes a while until it `is_ready`. Raises PreparationFailed."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it has begun, and takes requests."""
        ...

    def send(self, request: bytes) -> None:
        """Send a request; it is on its way when the event loop next runs. Raises PreparationFailed."""
        ...

    @property
    def has_answer(self) -> bool:
        """Whether `receive` would return at once."""
        ...

    async def receive(self) -> bytes:
        """The answer to the oldest request without one; the event loop has run. Raises PreparationFailed."""
        ...

    async def close(self) -> None:
        """End it, whatever it does; never fails. `start` may be called again."""
        ...
