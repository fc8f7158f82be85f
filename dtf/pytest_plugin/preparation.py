"""Joins the stack and creates the run in a thread, while pytest collects in the main one.

So the workers, once they know of the run, collect at the same time as the controller does.
Everything that user code might notice stays out of the thread: it reads settings, starts or joins
the supervisor's processes, makes the run's directory, creates the run and asks for durations.
"""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dtf.client.stack import StackError, StackMembership, join_stack
from dtf.pytest_plugin.meeting import RunDirectory
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
    directory: RunDirectory
    run_id: str

    worker_count: int
    """Workers the run may have, as far as is known."""


class Preparation:
    """A stack on its way."""

    def __init__(self, directory: Path, option: Any, facts: Any) -> None:
        self._directory = directory
        self._option = option
        self._facts = facts
        self._run_directory: RunDirectory | None = None
        self._link: Any = None
        self._run_id = ""
        self._is_over = False
        self._is_closing = False
        self._notes: deque[str] = deque()
        self._stack: Stack | None = None
        self._membership: StackMembership | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="dtf-preparation", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def result(self, show: Callable[[str], None]) -> Stack:
        """The stack, waited for. Raises UsageError with what to do, from StackError where that is the cause."""
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
                raise pytest.UsageError("\n  ".join((error.what, *error.advice))) from error
            case ValueError() | OSError() as error:
                raise pytest.UsageError(str(error))
            case other:
                raise other

    def run_ended(self) -> None:
        """The run needs no cancelling any more."""
        self._is_over = True

    def close(self) -> None:
        """Leave the stack; if this was its last member, return when it is gone.

        A run that was created and got no cases, because none was collected, is cancelled.
        """
        if self._thread.ident is None:
            return
        self._is_closing = True
        self._thread.join()
        if self._link is not None:
            if self._run_id and not self._is_over:
                self._cancel_unused()
            self._link.close()
        if self._run_directory is not None:
            self._run_directory.remove()
        if self._membership is not None:
            self._membership.close()

    def _cancel_unused(self) -> None:
        import grpc

        from dtf.client.owner import default_owner

        with contextlib.suppress(grpc.RpcError):
            self._link.cancel(self._run_id, default_owner(), "no case was collected")

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
            "run.workspace": option.dtf_workspace,
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
        from dtf.pytest_plugin.request import create_request
        from dtf.rpc.channel import Peer, parse_addresses

        addresses = membership.addresses
        access = (addresses.token, addresses.certificate_authority_file)
        analyzer = Peer(parse_addresses(addresses.analysis), *access) if addresses.analysis else None
        link = self._link = Link(Peer(parse_addresses(addresses.server), *access), analyzer)
        link.wait_connected()
        suite = loaded.settings.run.suite or loaded.project_dir.name or "suite"
        directory = self._run_directory = RunDirectory(loaded.project_dir)
        workers = expected_workers(addresses.pool_max or loaded.settings.pool.max_workers)
        request = create_request(self._facts, loaded.settings.run, suite, workers, directory.path)
        workspace = self._workspace(loaded, link)
        if workspace is not None:
            request.templates[0].workspace.CopyFrom(workspace)
        self._run_id = link.create_run(request).run_id
        membership.attach_run(self._run_id)
        durations = link.expected_durations(suite)
        return Stack(
            loaded, membership, link, suite, durations, lost, directory, self._run_id, worker_count=workers
        )

    def _workspace(self, loaded: LoadedSettings, link: Any) -> Any:
        """How workers get the code; None: they use it in place."""
        from dtf.client.workspace import chosen_mode, packed_workspace, placed_workspace, tree_root

        mode = chosen_mode(loaded.settings)
        if mode == "tree":
            return None
        tree = tree_root(loaded.project_dir, loaded.settings, self._facts.root_dir, self._facts.working_dir)
        if mode != "pack":
            return placed_workspace(tree, loaded.settings)
        return packed_workspace(
            tree,
            loaded.settings,
            link.courier,
            lambda text: self._notes.append(f"dtf: {text}"),
            lambda: self._is_closing,
        )

    def _lose(self, lost: threading.Event) -> None:
        lost.set()
        if self._link is not None:
            self._link.close()

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


def expected_workers(most: int) -> int:
    """Workers a pool may have: as it says, else as many as the machine has processors."""
    return most or max(os.cpu_count() or 1, 2)


def find_project(directory: Path) -> Path:
    """The project that a directory belongs to."""
    from dtf.settings.project import find_project_dir

    return find_project_dir(directory)
