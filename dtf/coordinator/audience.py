"""All watchers together: how often each may look at the feed, and how many read the log at once.

A message to a watcher costs the coordinator some 100 µs whatever it holds, so a hundred watchers
that each hear of every commit would cost it more than the commits. Beyond a few, all of them
together look LOOKS_PER_SECOND times a second, each in its turn: what gathered meanwhile comes in
one message. A watcher that fell behind the feed reads the log, READERS of them at a time: what such
a reader holds does not grow with how many there are.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

UNPACED = 4
"""Watchers that may look at every commit: the client of a run waits for its result."""
LOOKS_PER_SECOND = 500.0
READERS = 4


class Audience:
    """The watchers of one coordinator."""

    def __init__(self) -> None:
        self._count = 0
        self.log_reader = asyncio.Semaphore(READERS)
        """Held while a watcher reads the log."""

    @property
    def count(self) -> int:
        """How many watch."""
        return self._count

    @property
    def gap_seconds(self) -> float:
        """Least time between two looks of one watcher."""
        return self._count / LOOKS_PER_SECOND if self._count > UNPACED else 0.0

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Be one of them."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
