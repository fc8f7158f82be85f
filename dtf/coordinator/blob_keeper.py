"""Keeps blobs and output within [blobs]: removes what no live run may need, and refuses what has no room.

A live run is one that has not ended. It may need the workspaces that it names, its output, and every blob
that was used since it was created: those that its results name are known to the log alone. Nobody's
reading or storing of a blob is so far back that it may have been for a run about to be created: GRACE_SECONDS.
"""

import asyncio
import logging
from collections.abc import Iterator

from dtf.core.run.state import Run, State
from dtf.ports.blob_store import BlobStore, Stored
from dtf.ports.clock import Clock
from dtf.rpc.errors import StoreRefusal
from dtf.settings.blobs import BlobSettings

LOOK_SECONDS = 600.0
"""Between looks at what is stored."""
PRESSED_SECONDS = 10.0
"""The same while something is refused."""
GRACE_SECONDS = 3600.0
_DAY_NS = 86_400 * 10**9
_FILLED_RATIO = 0.9
"""What is too much is brought down to this part of the limit, so that not each upload has to remove something."""

log = logging.getLogger(__name__)


class BlobKeeper:
    """Knows how much is stored as of the last look, and what came since."""

    def __init__(self, store: BlobStore, state: State, clock: Clock, rules: BlobSettings) -> None:
        self.store = store
        self._state = state
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -PRESSED_SECONDS
        self._let_in_bytes = 0
        """In all; what came during a look may not have been seen by it."""
        self.rules = rules
        self.used_bytes = 0
        self.removed_count = 0
        """Since this reign began."""

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def make_room(self, size_bytes: int) -> None:
        """So many bytes come. Raises StoreRefusal if they have no room."""
        limit = self.rules.max_bytes
        if limit and self.used_bytes + size_bytes > limit:
            if self._clock.monotonic() - self._looked_at >= PRESSED_SECONDS:
                await self.look(size_bytes)
            if self.used_bytes + size_bytes > limit:
                raise StoreRefusal(
                    f"the blob store is full: {self.used_bytes:,} of {limit:,} bytes are used, and live runs or those "
                    f"of the last hour may need them; raise [blobs] max_bytes, or wait"
                )
        self.used_bytes += size_bytes
        self._let_in_bytes += size_bytes

    async def look(self, wanted_bytes: int = 0) -> None:
        """See what is stored, and remove what need not be; so many bytes more are to have room."""
        async with self._looking:
            let_in_before = self._let_in_bytes
            try:
                stored = await self.store.list_stored()
                removed = [
                    each for each in self._surplus(stored, wanted_bytes) if await self.store.remove(each)
                ]
            except OSError as error:
                log.warning("what is stored cannot be looked at", extra={"cause": str(error)})
                return
            finally:
                self._looked_at = self._clock.monotonic()
            freed = sum(each.size_bytes for each in removed)
            came = self._let_in_bytes - let_in_before
            self.used_bytes = sum(each.size_bytes for each in stored) - freed + came
            self.removed_count += len(removed)
            if removed:
                log.info("blobs and output were removed", extra={"count": len(removed), "bytes": freed})

    def _surplus(self, stored: list[Stored], wanted_bytes: int) -> Iterator[Stored]:
        """What goes: the unused for too long, then the unused for longest until the rest fits."""
        now_ns = self._clock.now_ns()
        used_bytes = sum(each.size_bytes for each in stored) + wanted_bytes
        limit = self.rules.max_bytes
        aim = limit * _FILLED_RATIO if limit and used_bytes > limit else float("inf")
        oldest_ns = now_ns - self.rules.max_age_days * _DAY_NS if self.rules.max_age_days else 0
        for each in sorted(self._dispensable(stored, now_ns), key=lambda item: item.used_at_ns):
            if each.used_at_ns < oldest_ns or used_bytes > aim:
                used_bytes -= each.size_bytes
                yield each

    def _dispensable(self, stored: list[Stored], now_ns: int) -> Iterator[Stored]:
        live = list(self._state.active_runs.values())
        named = {digest for run in live for digest in workspaces_of(run)}
        since_ns = min([now_ns - int(GRACE_SECONDS * 1e9), *(run.created_at_ns for run in live)])
        settled_ns = now_ns - int(GRACE_SECONDS * 1e9)
        for each in stored:
            if each.run_id:
                if each.run_id not in self._state.active_runs and each.used_at_ns < settled_ns:
                    yield each
            elif each.digest not in named and each.used_at_ns < since_ns:
                yield each


def workspaces_of(run: Run) -> set[str]:
    """Digests of the archives that a run's templates name."""
    return {template.workspace.archive.digest for template in run.created.templates} - {""}
