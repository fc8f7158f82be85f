"""Runs that left the working state: their outlines at hand, their tasks read from the log again.

A run is folded in slices between which others get their turn, one run at a time, and the last few
are kept for a minute, so that pages of a listing do not fold it anew. Whoever goes away meanwhile ends it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from google.protobuf.message import DecodeError

from dtf.core.run.commands import NotFound
from dtf.core.run.history_fold import RunHistory
from dtf.core.run.state import RetiredRun, Run, State
from dtf.core.upcast import read_commit
from dtf.ports.clock import Clock
from dtf.ports.event_log import EventLog, LogError, StoredCommit
from dtf.ports.subjects import RUNS_HEADER
from dtf.rpc.errors import LogUnavailableRefusal

KEPT_RUNS = 4
KEPT_TASKS = 500_000
"""Of all kept runs, but that the last one asked for stays whatever its size: about 70 MB."""
KEPT_SECONDS = 60.0
SLICE_COMMITS = 8
"""Commits folded in one turn: about two milliseconds of full ones."""


class History:
    """What the log says of runs that are no longer in the state."""

    def __init__(self, state: State, event_log: EventLog, clock: Clock, strangers: frozenset[int]) -> None:
        self._state = state
        self._log = event_log
        self._clock = clock
        self._strangers = strangers
        self._kept: OrderedDict[str, Run] = OrderedDict()
        self._used_at = clock.monotonic()
        self._turn = asyncio.Lock()

    def find(self, run_id: str) -> Run | RetiredRun:
        """A run in the state, or the outline of one that was. Raises NotFound."""
        found = self._state.runs.get(run_id) or self._state.retired_runs.get(run_id)
        if found is None:
            raise NotFound(f"no run {run_id[:64]!r}; `dtf runs` lists those there are", run_id=run_id[:64])
        return found

    async def whole(self, run_id: str) -> Run:
        """A run with all its tasks, from the log if need be. Raises NotFound, Rejection."""
        found = self.find(run_id)
        if isinstance(found, Run):
            return found
        async with self._turn:
            run = self._kept.pop(run_id, None) or await self._fold(found)
            self._keep(run)
            return run

    def let_go(self) -> None:
        """Drop the folded runs that nobody has asked for in a while."""
        if self._kept and self._clock.monotonic() - self._used_at > KEPT_SECONDS:
            self._kept.clear()

    async def check_held(self, run: Run | RetiredRun, after: int = 0) -> None:
        """Raises NotFound, naming the archive, unless the log has the commits of the run after `after`."""
        try:
            head = await self._log.head()
        except LogError as error:
            raise LogUnavailableRefusal(f"the event log cannot be read: {error}") from error
        first = max(run.first_sequence, after + 1)
        if head.first_sequence > first:
            raise NotFound(
                f"run {run.run_id} is no longer whole in the log: commit {first} is asked for, and the log "
                f"begins at {head.first_sequence}; read it with the archive that `dtf log archive` wrote: "
                f"`dtf explain {run.run_id} --from DIRECTORY`",
                run_id=run.run_id,
                first_sequence=str(head.first_sequence),
            )

    async def _fold(self, retired: RetiredRun) -> Run:
        await self.check_held(retired)
        history = RunHistory(retired.run_id)
        try:
            async for batch in self._log.read(retired.first_sequence - 1, retired.last_sequence):
                async for part in self._slices(batch):
                    self._follow(history, part)
        except (LogError, DecodeError) as error:
            raise LogUnavailableRefusal(f"the event log cannot be read: {error}") from error
        if history.run is None:
            raise LogUnavailableRefusal(
                f"commit {retired.first_sequence} of the log does not create run {retired.run_id}, as it must"
            )
        return history.run

    async def _slices(self, batch: Sequence[StoredCommit]) -> AsyncIterator[Sequence[StoredCommit]]:
        for start in range(0, len(batch), SLICE_COMMITS):
            yield batch[start : start + SLICE_COMMITS]
            await self._clock.sleep(0)

    def _follow(self, history: RunHistory, part: Sequence[StoredCommit]) -> None:
        for stored in part:
            if stored.sequence in self._strangers:
                continue
            named = stored.headers.get(RUNS_HEADER)
            if named is not None and history.run_id not in named.split(","):
                continue
            history.follow(read_commit(stored.payload), stored.sequence)

    def _keep(self, run: Run) -> None:
        self._kept[run.run_id] = run
        self._used_at = self._clock.monotonic()
        while len(self._kept) > 1 and sum(kept.task_count for kept in self._kept.values()) > KEPT_TASKS:
            self._kept.popitem(last=False)
        while len(self._kept) > KEPT_RUNS:
            self._kept.popitem(last=False)
