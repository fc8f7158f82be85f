"""Joins the stack in a thread, while pytest collects in the main one.

Everything that user code might notice stays out of the thread: it reads settings, starts or joins
the supervisor's processes, opens a channel and asks for recorded durations.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dtf.client.stack import StackError, StackMembership, join_stack
from dtf.settings.loader import LoadedSettings, SettingsError, load_settings

WAIT_SECONDS = 0.1
"""How often progress is shown while the stack starts."""


@dataclass
class Stack:
    """What a run needs of the stack."""

    loaded: LoadedSettings
    membership: StackMembership
    link: Any
    """A Link; typed loosely because its module costs the import of gRPC."""
    suite: str
    durations: dict[str, float]
    """Expected duration of each case, by node id."""
    lost: threading.Event
    """Set when the stack ended under us."""

    @property
    def worker_count(self) -> int:
        """Workers the run may have, as far as is known."""
        from os import cpu_count

        pool = self.loaded.settings.pool
        most = self.membership.addresses.pool_max or pool.max_workers
        return max(most or max(cpu_count() or 1, 2), 1)


class Preparation:
    """A stack on its way."""

    def __init__(self, directory: Path, option: Any) -> None:
        self._directory = directory
        self._option = option
        self._notes: deque[str] = deque()
        self._stack: Stack | None = None
        self._membership: StackMembership | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="dtf-preparation", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def result(self, show: Callable[[str], None]) -> Stack:
        """The stack, waited for. Raises UsageError with what to do."""
        while self._thread.is_alive():
            self._thread.join(WAIT_SECONDS)
            if self._thread.is_alive():
                self._show(show)
        self._show(show)
        match self._error:
            case None:
                assert self._stack is not None
                return self._stack
            case SettingsError() as error:
                raise pytest.UsageError(*error.faults)
            case StackError() as error:
                raise pytest.UsageError("\n  ".join((error.what, *error.advice)))
            case ValueError() | OSError() as error:
                raise pytest.UsageError(str(error))
            case other:
                raise other

    def close(self) -> None:
        """Leave the stack; if this was its last member, return when it is gone."""
        if self._thread.ident is None:
            return
        self._thread.join()
        if self._stack is not None:
            self._stack.link.close()
        if self._membership is not None:
            self._membership.close()

    def _show(self, show: Callable[[str], None]) -> None:
        while self._notes:
            show(self._notes.popleft())

    def _work(self) -> None:
        try:
            self._stack = self._join()
        except Exception as error:
            self._error = error

    def _join(self) -> Stack:
        option = self._option
        flags = {
            "run.server": option.dtf_server,
            "pool.min_workers": option.dtf_workers,
            "pool.max_workers": option.dtf_workers,
        }
        loaded = load_settings(find_project(self._directory), flags=flags)
        lost = threading.Event()
        self._membership = membership = join_stack(
            loaded.project_dir,
            loaded.settings,
            on_progress=lambda text: self._notes.append(f"dtf: {text}"),
            on_lost=lambda _: self._lose(lost),
        )
        self._note_other_bounds(membership, option.dtf_workers)
        from dtf.pytest_plugin.link import Link
        from dtf.rpc.channel import Peer, parse_addresses

        addresses = membership.addresses
        analyzer = Peer(parse_addresses(addresses.analysis), addresses.token) if addresses.analysis else None
        link = Link(Peer(parse_addresses(addresses.server), addresses.token), analyzer)
        suite = loaded.settings.run.suite or loaded.project_dir.name or "suite"
        return Stack(loaded, membership, link, suite, link.expected_durations(suite), lost)

    def _lose(self, lost: threading.Event) -> None:
        lost.set()
        if self._stack is not None:
            self._stack.link.close()

    def _note_other_bounds(self, membership: StackMembership, wanted: int | None) -> None:
        addresses = membership.addresses
        if wanted is None or membership.is_started_here:
            return
        if not addresses.pool_max:
            self._notes.append(f"dtf: --dtf-workers {wanted} has no effect on a pool of another's")
        elif (addresses.pool_min, addresses.pool_max) != (wanted, wanted):
            self._notes.append(
                f"dtf: --dtf-workers {wanted} has no effect: the stack runs already,"
                f" with {addresses.pool_min} to {addresses.pool_max} workers"
            )


def find_project(directory: Path) -> Path:
    """The project that a directory belongs to."""
    from dtf.settings.project import find_project_dir

    return find_project_dir(directory)
