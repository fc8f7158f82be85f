"""Ends what tasks left behind when their worker and its launcher were killed at once.

Each of the two ends the processes of tasks when the other dies. Where both die at the same moment, a
process that made a session of its own is the child of nobody they knew: on Linux it becomes a child of
the nearest subreaper above, which is whoever started the workers. It is told by the cookie that every
process of a task has in its environment, unless it took the trouble to remove it.
"""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Collection

import psutil

from dtf.ports.clock import Clock
from dtf.runner import process_tree

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0


class OrphanReaper:
    """Looks now and then at the children of this process that it did not start."""

    def __init__(self, own_children: Callable[[], Collection[int]], clock: Clock) -> None:
        """`own_children`: process ids that somebody here waits for."""
        self._own_children = own_children
        self._clock = clock

    async def run(self) -> None:
        """Become the parent of orphans, and sweep for ever."""
        process_tree.become_subreaper()
        while True:
            await self._clock.sleep(SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Bury orphans that have ended; kill those that tasks left, with what they started."""
        own = set(self._own_children())
        for orphan in psutil.Process().children():
            if orphan.pid in own:
                continue
            with contextlib.suppress(psutil.Error, OSError):
                if orphan.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(orphan.pid, os.WNOHANG)
                elif process_tree.cookie_of(orphan.pid):
                    logger.warning("ending process %d: its task's worker is gone", orphan.pid)
                    for process_id in (orphan.pid, *process_tree.descendants(orphan.pid)):
                        os.kill(process_id, signal.SIGKILL)
