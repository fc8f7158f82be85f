"""Workspaces as a worker gets them: once a machine, whole or not at all, and with words for what went wrong."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import common_pb2
from dtf.client.workspace_pack import pack, survey
from dtf.settings.model import WorkerSettings
from dtf.settings.workspaces import WorkspaceSettings
from dtf.worker.hopeless_work import Failure
from dtf.worker.leases import Key
from dtf.worker.workspace_setup import Setup, SetupFailed
from dtf.worker.workspaces import Place, Workspaces

PATIENCE_SECONDS = 60.0
KEY = ("run", 0)


class Coordinator:
    """Has one archive and hands it out in pieces; the first answers break off as told."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.offsets: list[int] = []
        self.breaks = 0
        self.is_gone = False

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        self.offsets.append(offset)
        if self.is_gone:
            raise _error(grpc.StatusCode.NOT_FOUND, f"no blob {digest} is stored")
        for start in range(offset, len(self.content), 100):
            if start > offset and self.breaks:
                self.breaks -= 1
                raise _error(grpc.StatusCode.UNAVAILABLE, "gone away")
            yield self.content[start : start + 100]


def _error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


class CountingSetup(Setup):
    """Counts set-ups; fails where it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.failure = ""

    async def run(self, command: str, tree: Path, log: Path, timeout_seconds: float) -> float:
        self.count += 1
        if self.failure:
            raise SetupFailed(self.failure, "its output")
        (tree / "made").write_text(command)
        return 0.5


class Waiter:
    """Hears how the workspaces of one worker turn out."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Failure | None] = asyncio.Queue()

    def workspace_ready(self, key: Key) -> None:
        self.heard.put_nowait(None)

    def workspace_failed(self, key: Key, failure: Failure) -> None:
        self.heard.put_nowait(failure)

    async def outcome(self) -> Failure | None:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_SECONDS)


class Bench:
    """A project that was packed, and workers of one machine."""

    def __init__(self, directory: Path, tasks: asyncio.TaskGroup) -> None:
        self.project = directory / "project"
        self.project.mkdir()
        (self.project / "a.py").write_text("a = 1\n")
        (self.project / "noise").write_bytes(os.urandom(3000))
        self.cache = directory / "cache"
        self.setup = CountingSetup()
        self.coordinator = Coordinator(b"")
        self.tasks = tasks
        self.workspace = self.pack()

    def pack(self, setup: str = "make") -> common_pb2.Workspace:
        found = survey(self.project, WorkspaceSettings())
        with pack(found).file as file:
            content = file.read()
        self.coordinator.content = content
        blob = common_pb2.Blob(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        return common_pb2.Workspace(
            root=str(self.project), archive=blob, digest=found.digest, setup=setup, setup_timeout_seconds=5
        )

    def worker(self) -> Workspaces:
        settings = WorkerSettings(cache_dir=str(self.cache))
        return Workspaces(settings, self.coordinator.fetch, self.setup, self.tasks, SystemClock())

    async def place(self, worker: Workspaces, key: Key = KEY) -> Place:
        waiter = Waiter()
        worker.want(key, self.workspace, waiter)
        assert not worker.can_start(key)
        assert await waiter.outcome() is None
        assert worker.can_start(key)
        place = worker.place_of(key)
        assert place is not None
        return place

    async def failure(self, worker: Workspaces, key: Key = KEY) -> Failure:
        waiter = Waiter()
        worker.want(key, self.workspace, waiter)
        failure = await waiter.outcome()
        assert failure is not None and failure.is_of_machine
        assert not worker.can_start(key)
        return failure


async def test_eight_workers_of_one_machine_fetch_unpack_and_set_up_once(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        workers = [bench.worker() for _ in range(8)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            places = await asyncio.gather(*(bench.place(worker) for worker in workers))
        assert bench.setup.count == 1
        assert len(bench.coordinator.offsets) == 1
        assert len({place.relocation.local for place in places}) == 1
        local = Path(places[0].relocation.local)
        assert (local / "a.py").read_text() == "a = 1\n" and (local / "made").read_text() == "make"
        for worker in workers:
            worker.close()


async def test_a_download_that_breaks_goes_on_where_it_was(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        bench.coordinator.breaks = 2
        worker = bench.worker()
        await bench.place(worker)
        assert bench.coordinator.offsets == [0, 100, 200]
        worker.close()


async def test_an_archive_that_is_gone_is_told(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        bench.coordinator.is_gone = True
        assert "cannot be fetched" in (await bench.failure(bench.worker())).message


async def test_bytes_that_are_not_what_the_run_names_are_not_unpacked(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        content = bench.coordinator.content
        bench.coordinator.content = content[:-1] + bytes([content[-1] ^ 1])
        assert "SHA-256" in (await bench.failure(bench.worker())).message
        assert not list(bench.cache.glob("*/tree"))


async def test_a_failed_set_up_is_tried_once_a_run_and_says_what_it_printed(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        bench.setup.failure = "the set-up command exited with code 1: make"
        failures = [await bench.failure(bench.worker()) for _ in range(3)]
        assert {(failure.message, failure.output) for failure in failures} == {
            ("the set-up command exited with code 1: make", "its output")
        }
        assert bench.setup.count == 1
        bench.setup.failure = ""
        worker = bench.worker()
        await bench.place(worker, ("next run", 0))
        assert bench.setup.count == 2
        worker.close()


async def test_another_set_up_is_another_tree(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        one, two = bench.worker(), bench.worker()
        first = await bench.place(one)
        bench.workspace = bench.pack("make other")
        second = await bench.place(two)
        assert first.relocation.local != second.relocation.local
        one.close()
        two.close()


async def test_a_tree_that_was_altered_is_made_anew_once_nobody_uses_it(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        first = bench.worker()
        tree = Path((await bench.place(first)).relocation.local)
        (tree / "a.py").write_text("a = 2\n")
        second = bench.worker()
        await bench.place(second)
        assert (tree / "a.py").read_text() == "a = 2\n", "the first worker uses it"
        first.close()
        second.close()
        third = bench.worker()
        await bench.place(third)
        assert (tree / "a.py").read_text() == "a = 1\n"
        third.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip(
            "a small file system cannot be mounted here: what a full disk does to a worker is left out"
        )
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


async def test_a_full_disk_is_told_in_one_line_with_what_to_do(tmp_path: Path, small_disk: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        (bench.project / "large").write_bytes(os.urandom(200_000))
        bench.workspace = bench.pack()
        bench.cache = small_disk / "cache"
        failure = await bench.failure(bench.worker())
        assert "no room on this worker's disk" in failure.message and "cache_dir" in failure.message
        assert "\n" not in failure.message
        assert not list(bench.cache.glob("incoming/*"))


async def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        bench.workspace = common_pb2.Workspace(root="/home/ada/app", path=str(tmp_path / "nowhere"))
        assert "--workspace pack" in (await bench.failure(bench.worker())).message
        bench.workspace.path = str(bench.project)
        worker = bench.worker()
        assert (await bench.place(worker)).relocation.text("/home/ada/app/a") == str(bench.project / "a")


async def test_an_environment_that_the_set_up_made_is_used(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        bench = Bench(tmp_path, tasks)
        worker = bench.worker()
        tree = Path((await bench.place(worker)).relocation.local)
        worker.close()
        await asyncio.to_thread(venv.create, tree / ".venv")
        again = bench.worker()
        place = await bench.place(again)
        assert place.environment[0] == ("VIRTUAL_ENV", str(tree / ".venv"))
        assert place.environment[1][1].startswith(f"{tree}/.venv/bin:")
        again.close()
