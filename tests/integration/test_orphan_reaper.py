"""Orphans of killed workers, real processes under a process of their own that reaps."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dtf.runner.process_tree import COOKIE_VARIABLE

PATIENCE_SECONDS = 90.0
REAPER = """
import asyncio, subprocess, sys
from dtf.adapters.orphan_reaper import OrphanReaper
from dtf.adapters.system_clock import SystemClock
from dtf.runner import process_tree

async def main():
    process_tree.become_subreaper()
    worker = subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    orphan = worker.stdout.readline()  # its parent is gone by then
    own = {worker.pid}
    print(orphan, end="", flush=True)
    async with asyncio.TaskGroup() as group:
        sweeping = group.create_task(OrphanReaper(lambda: own, SystemClock()).run())
        await asyncio.to_thread(sys.stdin.read)
        sweeping.cancel()
    print("own child lives" if worker.poll() is None else "own child gone", flush=True)
    worker.kill()
    worker.wait()

asyncio.run(main())
"""
WORKER = """
import os, subprocess, sys, time
code = "import os, subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=subprocess.DEVNULL); print(p.pid, flush=True)"
pid = subprocess.run([sys.executable, "-I", "-S", "-c", code], env=%r, stdout=subprocess.PIPE, text=True).stdout
print(pid, end="", flush=True)
time.sleep(600)
"""

pytestmark = [
    pytest.mark.resource_manager,
    pytest.mark.skipif(sys.platform != "linux", reason="left out: needs Linux (prctl)"),
]


def _reaper(environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", REAPER, WORKER % environment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("cookie", ["of-a-task", ""])
def test_only_what_a_task_left_is_ended(cookie: str) -> None:
    environment = {"PATH": "/usr/bin:/bin"} | ({COOKIE_VARIABLE: cookie} if cookie else {})
    with _reaper(environment) as reaper:
        assert reaper.stdout is not None and reaper.stdin is not None
        orphan = psutil.Process(int(reaper.stdout.readline()))
        try:
            if cookie:
                orphan.wait(PATIENCE_SECONDS)
            else:
                with pytest.raises(psutil.TimeoutExpired):
                    orphan.wait(2.5)
        finally:
            if orphan.is_running():
                orphan.kill()
        reaper.stdin.close()
        assert reaper.stdout.read() == "own child lives\n"
