"""The workspaces that runs of this worker need: fetched, unpacked, set up, held while they are used.

    wanted ──▶ preparing ──▶ ready ──▶ released, some time after the run's end
                   └───────▶ failed: attempts of the run end as crashed, and say why

Preparing is a task beside the worker's loop, so heartbeats go on; leases wait meanwhile, and the
coordinator may give them to another worker. Between the workers of a machine a lock on the content
lets one prepare it and the others wait.
"""

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import grpc
import grpc.aio

from dtf.api.v1 import common_pb2
from dtf.core.workspace import Relocation
from dtf.ports.clock import Clock
from dtf.rpc.errors import describe
from dtf.settings.model import WorkerSettings
from dtf.worker.hopeless_work import Failure
from dtf.worker.leases import Key
from dtf.worker.session import REFUSED_CODES, Backoff
from dtf.worker.workspace_archive import BadArchive, unpack
from dtf.worker.workspace_cache import Cache, Cell, Failed, Ready, cache_root, changed_files, size_of
from dtf.worker.workspace_setup import Setup, SetupFailed

LOCK_RETRY_SECONDS = 0.1
PIECE_TIMEOUT_SECONDS = 60.0
"""Longest wait for the next piece of an archive."""
FETCH_PATIENCE_SECONDS = 120.0
"""How long an archive that does not come is asked for again."""
RELEASE_SECONDS = 30.0
"""A workspace is held for so long after its run ended, for processes that are still tearing down."""
NAME_DIGITS = 32

_log = logging.getLogger(__name__)
Fetch = Callable[[str, int], AsyncIterator[bytes]]
"""Pieces of a blob, by its digest, from an offset on."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's tree is on this machine."""

    relocation: Relocation
    site_dirs: tuple[str, ...] = ()
    """Directories of packages that the set-up installed."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that go with them."""


class WorkspaceFailed(Exception):
    """A workspace cannot be had on this machine."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.failure = Failure(message, output, is_of_machine=True)


class Listener(Protocol):
    """Who waits for workspaces."""

    def workspace_ready(self, key: Key) -> None:
        """Work of this kind can begin."""

    def workspace_failed(self, key: Key, failure: Failure) -> None:
        """Work of this kind cannot be run on this machine."""


@dataclass(slots=True)
class _Wanted:
    task: "asyncio.Task[None] | None" = None
    place: Place | None = None
    locks: list[int] = field(default_factory=list)


class Workspaces:
    """Every workspace that runs of this worker need."""

    def __init__(
        self,
        settings: WorkerSettings,
        fetch: Fetch,
        setup: Setup,
        tasks: asyncio.TaskGroup,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        self._setup = setup
        self._tasks = tasks
        self._clock = clock
        self._wanted: dict[Key, _Wanted] = {}
        self._leaving: list[tuple[float, int]] = []

    def want(self, key: Key, workspace: common_pb2.Workspace, listener: Listener) -> None:
        """Prepare the workspace of a kind of work, if that has not begun."""
        if key not in self._wanted:
            wanted = self._wanted[key] = _Wanted()
            wanted.task = self._tasks.create_task(self._prepare(key, workspace, wanted, listener))

    def can_start(self, key: Key) -> bool:
        """Whether work of this kind waits for no workspace."""
        wanted = self._wanted.get(key)
        return wanted is None or wanted.place is not None

    def place_of(self, key: Key) -> Place | None:
        """Where the tree of this kind of work is; None: under the paths of its specification."""
        wanted = self._wanted.get(key)
        return wanted.place if wanted is not None else None

    def forget_runs(self, run_ids: Iterable[str]) -> None:
        """These runs are over."""
        ended = set(run_ids)
        release_at = self._clock.monotonic() + RELEASE_SECONDS
        for key in [key for key in self._wanted if key[0] in ended]:
            wanted = self._wanted.pop(key)
            if wanted.task is not None:
                wanted.task.cancel()
            self._leaving.extend((release_at, lock) for lock in wanted.locks)

    def tick(self, now: float) -> None:
        """Release what ended runs held."""
        while self._leaving and self._leaving[0][0] <= now:
            os.close(self._leaving.pop(0)[1])

    def close(self) -> None:
        """Release everything: nothing runs any more."""
        for wanted in self._wanted.values():
            self._leaving.extend((0.0, lock) for lock in wanted.locks)
        self._wanted.clear()
        self.tick(0.0)

    async def _prepare(
        self, key: Key, workspace: common_pb2.Workspace, wanted: _Wanted, listener: Listener
    ) -> None:
        try:
            if workspace.path:
                wanted.place = found_place(workspace)
            else:
                wanted.place = await self._unpacked_place(key[0], workspace, wanted)
        except WorkspaceFailed as failed:
            failure = failed.failure
        except OSError as error:
            words = f"workspace {workspace.digest[:12]}: {disk_words(error, workspace)}"
            failure = Failure(words, "", is_of_machine=True)
        else:
            listener.workspace_ready(key)
            return
        _log.warning("a workspace cannot be had run=%s: %s", key[0], failure.message)
        listener.workspace_failed(key, failure)

    async def _unpacked_place(self, run_id: str, workspace: common_pb2.Workspace, wanted: _Wanted) -> Place:
        """The workspace, out of the cache or put there first. Raises WorkspaceFailed, OSError."""
        cache = Cache(
            cache_root(self._settings.cache_dir), self._settings.cache_bytes, self._settings.cache_days
        )
        cell = cache.cell(cell_name(workspace))
        while True:
            lock = cell.try_lock(alone=not cell.is_ready)
            if lock is None:
                await self._clock.sleep(LOCK_RETRY_SECONDS)
            elif not cell.is_ready:
                with closing(lock):
                    await self._make(run_id, workspace, cache, cell)
            elif (held := await self._sound(cell, lock)) is not None:
                wanted.locks.append(held)
                cell.touch()
                return place_in(cell, workspace)

    async def _sound(self, cell: Cell, lock: int) -> int | None:
        """The shared lock of a tree that can be used; None: it was altered and unused, and is not ready any more.

        One that was altered and is in use is used as it is: what runs in it must not lose it.
        """
        try:
            ready = cell.ready()
            is_altered = ready is None or await asyncio.to_thread(cell.is_altered, ready)
        except BaseException:
            os.close(lock)
            raise
        if not is_altered:
            return lock
        os.close(lock)  # or it would keep ourselves out
        alone = cell.try_lock(alone=True)
        if alone is None:
            return self._as_it_is(cell)
        with closing(alone):
            _log.info("a workspace was altered by what ran in it, making it anew name=%s", cell.name)
            await asyncio.to_thread(cell.clear)
        return None

    def _as_it_is(self, cell: Cell) -> int | None:
        """The shared lock of a tree that others use; None: it is being made anew now."""
        lock = cell.try_lock(alone=False)
        if lock is not None and not cell.is_ready:
            os.close(lock)
            return None
        return lock

    async def _make(self, run_id: str, workspace: common_pb2.Workspace, cache: Cache, cell: Cell) -> None:
        """Fetch, unpack and set up; the cell's lock is held alone. Raises WorkspaceFailed, OSError."""
        if cell.is_ready:
            return
        known = cell.failed(run_id)
        if known is not None:
            raise WorkspaceFailed(known.message, known.output)
        started = self._clock.monotonic()
        await asyncio.to_thread(cell.clear)
        await asyncio.to_thread(cache.evict, self._clock.now_ns() / 1e9)
        cell.incoming.mkdir(mode=0o700, parents=True)
        try:
            files = await self._unpack(workspace, cache, cell)
            cell.incoming.replace(cell.directory)
            took = await self._set_up(run_id, workspace, cell)
            altered = await asyncio.to_thread(lambda: list(changed_files(cell.tree, files)))
            size = await asyncio.to_thread(size_of, cell.directory)
            cell.note_ready(Ready(workspace.digest, size, took, altered, files))
        except BaseException:
            await asyncio.to_thread(cell.clear)
            raise
        await asyncio.to_thread(cache.evict, self._clock.now_ns() / 1e9)
        _log.info(
            "workspace ready name=%s bytes=%d setup_seconds=%.1f seconds=%.1f",
            cell.name,
            size,
            took,
            self._clock.monotonic() - started,
        )

    async def _unpack(self, workspace: common_pb2.Workspace, cache: Cache, cell: Cell) -> dict[str, int]:
        """Fetch and unpack into the incoming directory; the size of each file."""
        archive = cell.incoming / "archive"
        with archive.open("w+b") as file:
            await self._download(workspace.archive, file)
            file.seek(0)
            tree = cell.incoming / "tree"
            tree.mkdir()
            try:
                unpacked = await asyncio.to_thread(unpack, file, tree, workspace.digest, cache.max_bytes)
            except BadArchive as error:
                raise WorkspaceFailed(str(error)) from None
        archive.unlink()
        return {
            entry.path: (tree / entry.path).lstat().st_size for entry in unpacked.entries if not entry.is_link
        }

    async def _download(self, blob: common_pb2.Blob, file: BinaryIO) -> None:
        """Raises WorkspaceFailed, OSError."""
        hasher = hashlib.sha256()
        size = 0
        backoff = Backoff(5.0)
        give_up_at = self._clock.monotonic() + FETCH_PATIENCE_SECONDS
        while True:
            try:
                async for piece in timed(self._fetch(blob.digest, size)):
                    size += len(piece)
                    if size > blob.size_bytes:
                        raise WorkspaceFailed(f"blob {blob.digest[:12]} is longer than the run says")
                    hasher.update(piece)
                    await asyncio.to_thread(file.write, piece)
                break
            except (TimeoutError, grpc.aio.AioRpcError) as error:
                why = describe(error) if isinstance(error, grpc.aio.AioRpcError) else "nothing came"
                is_final = isinstance(error, grpc.aio.AioRpcError) and error.code() in (
                    *REFUSED_CODES,
                    grpc.StatusCode.NOT_FOUND,
                )
                if is_final or self._clock.monotonic() > give_up_at:
                    raise WorkspaceFailed(f"the workspace cannot be fetched: {why}") from None
            await self._clock.sleep(backoff.next())
        if hasher.hexdigest() != blob.digest:
            raise WorkspaceFailed(
                f"{size} bytes came whose SHA-256 is {hasher.hexdigest()[:12]}; the run names {blob.digest[:12]}"
            )

    async def _set_up(self, run_id: str, workspace: common_pb2.Workspace, cell: Cell) -> float:
        """Run the set-up; how long it took. Raises WorkspaceFailed."""
        if not workspace.setup:
            return 0.0
        try:
            return await self._setup.run(
                workspace.setup, cell.tree, cell.log, workspace.setup_timeout_seconds
            )
        except SetupFailed as failed:
            cell.note_failed(Failed(run_id, str(failed), failed.output))
            raise WorkspaceFailed(str(failed), failed.output) from None


@contextlib.contextmanager
def closing(descriptor: int) -> Iterator[None]:
    """Close a descriptor at the end."""
    try:
        yield
    finally:
        os.close(descriptor)


async def timed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, none waited for longer than PIECE_TIMEOUT_SECONDS. Raises TimeoutError."""
    while True:
        async with asyncio.timeout(PIECE_TIMEOUT_SECONDS):
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
        yield piece


def cell_name(workspace: common_pb2.Workspace) -> str:
    """The name of a workspace as it is made ready for this Python and machine."""
    environment = "\0".join((sys.version, sys.prefix, platform.platform(), workspace.setup))
    made_for = hashlib.sha256(environment.encode()).hexdigest()
    return f"{workspace.digest[:NAME_DIGITS]}-{made_for[:12]}"


def found_place(workspace: common_pb2.Workspace) -> Place:
    """The place of a tree that is there. Raises WorkspaceFailed if it is not."""
    if not Path(workspace.path).is_dir():
        raise WorkspaceFailed(
            f"there is no directory {workspace.path} on this worker's machine, where the run has its code: "
            "correct [workspace] path, or let the tree travel (--workspace pack)"
        )
    return Place(Relocation(workspace.root, workspace.path))


def place_in(cell: Cell, workspace: common_pb2.Workspace) -> Place:
    """The place of a tree in the cache, with the environment that its set-up made."""
    local = str(cell.tree)
    relocation = Relocation(workspace.root, local)
    virtual = cell.tree / ".venv"
    if not (virtual / "pyvenv.cfg").exists():
        return Place(relocation)
    packages = virtual / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    path = f"{virtual / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return Place(
        relocation,
        (str(packages),) if packages.is_dir() else (),
        (("VIRTUAL_ENV", str(virtual)), ("PATH", path)),
    )


def disk_words(error: OSError, workspace: common_pb2.Workspace) -> str:
    """What a failed file operation means, in one line."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no room on this worker's disk{where}: the archive alone has {workspace.archive.size_bytes:,} bytes; "
            "make room, or set [worker] cache_dir and cache_bytes"
        )
    return f"it cannot be written on this worker's disk: {error.strerror or error}{where}"
