"""Runs whose client went away: they are cancelled, because nobody waits for them any more.

A client attaches its run to its hold on the stack. The attached runs are kept in a file, so that
the next stack cancels those of one that was killed. The supervisor itself is free of gRPC; a child
(`dtf cancel`) asks the coordinator.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from dtf.settings.project import write_private

_CANCEL_TIMEOUT_SECONDS = 20.0
_log = logging.getLogger("dtf.supervisor")


class OrphanedRuns:
    """Remembers attached runs and cancels the orphaned ones."""

    def __init__(self, file: Path, command: Callable[[], Sequence[str]], inherited: Sequence[int]) -> None:
        self._file = file
        self._command = command
        self._inherited = tuple(inherited)
        self._attached: frozenset[str] = frozenset()
        self._pending: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to cancel."""
        return not self._pending

    def attached(self, runs: frozenset[str]) -> None:
        """These runs have clients now."""
        self._attached = runs
        self._remember()

    def orphaned(self, runs: frozenset[str]) -> None:
        """The client of these runs went away."""
        self._pending |= runs
        self._wake.set()

    def load(self) -> None:
        """Take up the runs that an earlier stack of the project left behind."""
        try:
            runs = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return
        if isinstance(runs, list):
            self._pending |= set(map(str, runs))

    async def cancel_pending(self) -> None:
        """Cancel what is orphaned now. What the coordinator does not take is tried at the next start."""
        while self._pending:
            runs = frozenset(self._pending)
            await self._cancel(runs)
            self._pending -= runs
            self._remember()

    async def serve(self, on_settled: Callable[[], None]) -> None:
        """Cancel runs as they are orphaned, without end."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.cancel_pending()
            on_settled()

    def _remember(self) -> None:
        write_private(self._file, json.dumps(sorted(self._attached | self._pending)))

    async def _cancel(self, runs: frozenset[str]) -> None:
        _log.info("cancelling %s: the client went away", ", ".join(sorted(runs)))
        process = await asyncio.create_subprocess_exec(
            *self._command(),
            *("--reason", "its client went away"),
            *sorted(runs),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=self._inherited,
        )
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        if code:
            _log.warning("cancelling %s failed with exit code %d", ", ".join(sorted(runs)), code)
