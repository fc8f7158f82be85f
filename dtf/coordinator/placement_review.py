"""Asks now and then which queued work no present worker can run, and ends what waited too long."""

from dtf.coordinator.desk import Desk
from dtf.core.run.commands import ReviewPlacement

PERIOD_SECONDS = 1.0
WORKER_EXPECTED_SECONDS = 5.0
"""With no worker at all, how long one may still be starting before its absence is told."""


class PlacementReview:
    """A clock for ReviewPlacement."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._deserted_since: float | None = None

    async def run(self) -> None:
        """Review for ever."""
        while True:
            await self._desk.clock.sleep(PERIOD_SECONDS)
            self._review()

    def _review(self) -> None:
        state, writer = self._desk.state, self._desk.writer
        if not state.queued_count or writer.is_stalled:
            self._deserted_since = None
            return
        now = self._desk.clock.monotonic()
        if any(worker.takes_work for worker in state.workers.values()):
            self._deserted_since = None
        elif self._deserted_since is None:
            self._deserted_since = now
        waited = now - self._deserted_since if self._deserted_since is not None else 0.0
        writer.post(ReviewPlacement(worker_expected=waited < WORKER_EXPECTED_SECONDS))
