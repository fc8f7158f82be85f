"""The launcher, as its own process, seen through the worker's client of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from dtf.runner.launch_messages import Exited
from dtf.worker.launcher_client import LauncherClient, LauncherLost, LaunchRefused, Process

pytestmark = pytest.mark.worker
PATIENCE_SECONDS = 90.0

SPAWN_TREE = """
import os, subprocess, sys, time
def child(*, new_session, orphan):
    code = "import os,sys,time; open(sys.argv[1] + '.tmp', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.tmp', sys.argv[1]); time.sleep(600)"
    argv = [sys.executable, "-c", code, f"{sys.argv[1]}/pid-{int(new_session)}{int(orphan)}"]
    if not orphan:
        subprocess.Popen(argv, start_new_session=new_session)
    elif os.fork() == 0:
        subprocess.Popen(argv, start_new_session=new_session)
        os._exit(0)
for new_session in (False, True):
    for orphan in (False, True):
        child(new_session=new_session, orphan=orphan)
while len([n for n in os.listdir(sys.argv[1]) if not n.endswith(".tmp")]) < 4: time.sleep(0.005)
print("ready", flush=True)
if sys.argv[2] == "stay": time.sleep(600)
"""


@asynccontextmanager
async def launcher(lost: list[str] | None = None) -> AsyncIterator[LauncherClient]:
    client = LauncherClient(lambda: None if lost is None else lost.append("lost"))
    client.start()
    try:
        yield client
    finally:
        await client.stop()


class Output:
    """A pipe to launch with, and what came out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.null = os.open(os.devnull, os.O_RDWR)

    @property
    def descriptors(self) -> tuple[int, int, int]:
        return (self.null, self.writer, self.writer)

    def close_ours(self) -> None:
        os.close(self.writer)
        os.close(self.null)

    async def line(self) -> bytes:
        """Up to the next newline."""

        def read() -> bytes:
            got = b""
            while not got.endswith(b"\n"):
                got += os.read(self.reader, 1)
            return got

        return await asyncio.wait_for(asyncio.to_thread(read), PATIENCE_SECONDS)

    async def all(self) -> bytes:
        def read() -> bytes:
            with os.fdopen(self.reader, "rb") as file:
                return file.read()

        return await asyncio.wait_for(asyncio.to_thread(read), PATIENCE_SECONDS)


async def launch(client: LauncherClient, *argv: str, working_dir: str = "") -> tuple[Process, Output]:
    output = Output()
    try:
        process = await client.launch(
            argv, environment=dict(os.environ), working_dir=working_dir, descriptors=output.descriptors
        )
    finally:
        output.close_ours()
    return process, output


async def end_of(process: Process) -> Exited:
    return await asyncio.wait_for(asyncio.shield(process.exited), PATIENCE_SECONDS)


async def test_a_process_is_started_where_it_should_be_and_its_end_and_cost_are_told(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd()); x = bytearray(50_000_000); sum(range(1_000_000)); os._exit(5)"
    async with launcher() as client:
        process, output = await launch(client, sys.executable, "-c", code, working_dir=str(tmp_path))
        assert (await output.all()).decode().strip() == str(tmp_path)
        exited = await end_of(process)
    assert (exited.exit_code, exited.signal) == (5, 0)
    assert exited.cpu_seconds > 0.001
    assert 50_000_000 < exited.peak_memory_bytes < 2_000_000_000


async def test_a_signal_is_told(tmp_path: Path) -> None:
    async with launcher() as client:
        process, output = await launch(client, "/bin/sh", "-c", "kill -SEGV $$")
        await output.all()
        exited = await end_of(process)
    assert (exited.exit_code, exited.signal) == (0, signal.SIGSEGV)


@pytest.mark.parametrize(
    ("argv", "working_dir", "said"),
    [
        (["/no/such/program"], "", "cannot start /no/such/program: No such file or directory"),
        (["/"], "", "cannot start /: Permission denied"),
        (["true"], "/no/such/dir", "cannot enter the working directory /no/such/dir: No such file"),
        (["tr\0ue"], "", "cannot start"),
    ],
)
async def test_what_cannot_be_started_is_one_clear_line(argv: list[str], working_dir: str, said: str) -> None:
    async with launcher() as client:
        with pytest.raises(LaunchRefused) as refused:
            await launch(client, *argv, working_dir=working_dir)
        assert said in str(refused.value)
        process, _ = await launch(client, "true")
        assert (await end_of(process)).exit_code == 0


def tree_pids(directory: Path) -> list[int]:
    pids = [int(path.read_text()) for path in directory.iterdir() if path.suffix != ".tmp"]
    assert len(pids) == 4
    return pids


def is_gone(pid: int) -> bool:
    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return True
    return status == psutil.STATUS_ZOMBIE


def alive_after_patience(pids: list[int]) -> list[int]:
    """Those that live on. A signal 9 that was sent takes effect when the process next has a processor."""
    until = time.monotonic() + PATIENCE_SECONDS
    while alive := [pid for pid in pids if not is_gone(pid)]:
        if time.monotonic() > until:
            break
    return alive


async def test_killing_ends_the_whole_tree_whatever_sessions_and_orphans_it_made(tmp_path: Path) -> None:
    async with launcher() as client:
        process, output = await launch(client, sys.executable, "-c", SPAWN_TREE, str(tmp_path), "stay")
        bystander, _ = await launch(client, "sleep", "600")
        assert await output.line() == b"ready\n"
        client.kill(process)
        assert (await end_of(process)).signal == signal.SIGKILL
        assert alive_after_patience(tree_pids(tmp_path)) == []
        assert not is_gone(bystander.process_id)


async def test_what_a_process_leaves_running_ends_with_it(tmp_path: Path) -> None:
    async with launcher() as client:
        process, output = await launch(client, sys.executable, "-c", SPAWN_TREE, str(tmp_path), "leave")
        assert await output.all() == b"ready\n"
        assert (await end_of(process)).exit_code == 0
        assert alive_after_patience(tree_pids(tmp_path)) == []


async def test_a_first_signal_comes_before_the_kill() -> None:
    async with launcher() as client:
        process, output = await launch(
            client, "/bin/sh", "-c", "trap 'echo told; exit 3' USR1; echo up; while :; do sleep 0.01; done"
        )
        assert await output.line() == b"up\n"
        client.kill(process, first_signal=signal.SIGUSR1, grace_seconds=PATIENCE_SECONDS)
        assert (await end_of(process)).exit_code == 3


async def test_one_that_ignores_the_first_signal_is_killed() -> None:
    async with launcher() as client:
        process, output = await launch(
            client, "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done"
        )
        assert await output.line() == b"up\n"
        client.kill(process, first_signal=signal.SIGTERM, grace_seconds=0.05)
        assert (await end_of(process)).signal == signal.SIGKILL


async def test_an_end_that_nobody_waits_for_any_more_keeps_no_other_from_being_told() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    async with launcher() as client:
        (one, _), (other, _) = [await launch(client, "/bin/sleep", "600") for _ in range(2)]
        one.exited.cancel()  # as the end of the session that waited for it does
        for process in (one, other):
            os.kill(process.process_id, signal.SIGKILL)
        assert (await end_of(other)).signal == signal.SIGKILL
    assert faults == []


async def test_a_killed_launcher_is_noticed_and_takes_its_children_along() -> None:
    lost: list[str] = []
    async with launcher(lost) as client:
        process, output = await launch(client, "sleep", "600")
        os.kill(client.process_id, signal.SIGKILL)
        with pytest.raises(LauncherLost):
            await end_of(process)
        assert lost == ["lost"]
        assert await output.all() == b""  # its standard output closed: it died
        with pytest.raises(LauncherLost):
            await launch(client, "true")


async def test_user_code_inherits_no_descriptor_and_no_lifeline() -> None:
    code = "import os; print(sorted(os.listdir('/proc/self/fd')), 'DTF_LIFELINE_FD' in os.environ, os.readlink('/proc/self/fd/0'))"
    async with launcher() as client:
        _, output = await launch(client, sys.executable, "-c", code)
        assert (await output.all()).decode().strip() == "['0', '1', '2', '3'] False /dev/null"


OWNER = """
import asyncio, os, sys
from dtf.worker.launcher_client import LauncherClient
async def main():
    client = LauncherClient(lambda: None)
    client.start()
    null = os.open(os.devnull, os.O_RDWR)
    out = os.dup(1)
    await client.launch([sys.executable, "-c", sys.argv[1], sys.argv[2], "stay"], environment=dict(os.environ), descriptors=(null, out, null))
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["the worker is killed", "the lifeline closes"])
def test_nothing_outlives_the_worker(tmp_path: Path, how: str) -> None:
    lifeline, keep = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, SPAWN_TREE, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"DTF_LIFELINE_FD": str(lifeline)},
        pass_fds=(lifeline,),
    ) as owner:
        os.close(lifeline)
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        pids = tree_pids(tmp_path)
        if how == "the worker is killed":
            owner.kill()
        else:
            os.close(keep)
        assert alive_after_patience(pids) == []
        owner.kill()
    if how == "the worker is killed":
        os.close(keep)
