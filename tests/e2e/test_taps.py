"""Taps on the whole system: over a WebSocket as the user that may only read, and with the feed dead."""

import asyncio
import signal
from pathlib import Path

import psutil
import pytest

from dtf.client.stack import read_stack
from tests.e2e.project import SETTINGS, Project
from tests.processes import command_line, processes_of
from tests.taps_rig import node_program, running

pytestmark = pytest.mark.coordinator


def resource_manager(project: Project) -> psutil.Process:
    """The process that the live feed runs in."""
    found = [
        process for process in processes_of(project.directory) if "resource-manager" in command_line(process)
    ]
    assert len(found) == 1
    return found[0]


async def test_a_run_ends_while_the_feed_stands_still_and_javascript_hears_of_it_later(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = node_program("failures.js", tmp_path_factory.mktemp("taps"))
    project.write("dtf.toml", f"{SETTINGS}\n[nats]\nwebsocket = true\n")
    project.write("commands.txt", "true\n" * 20)
    project.dtf("up")
    stack = read_stack(project.directory)
    assert stack is not None and stack.nats_websocket.startswith("ws://127.0.0.1:")
    assert Path(stack.nats_tap_credentials_file).name == "nats-tap"
    subject = f"dtf.{stack.namespace}.live.*.RunFinished"
    async with running([*program, stack.nats_websocket, stack.nats_tap_credentials_file, subject]) as tap:
        assert await tap.word() == "listening"
        await asyncio.to_thread(project.dtf, "run", "--each", "commands.txt")
        assert "RunFinished" in await tap.line()
        feed = resource_manager(project)
        feed.send_signal(signal.SIGSTOP)
        try:
            await asyncio.to_thread(project.dtf, "run", "--each", "commands.txt")
        finally:
            feed.send_signal(signal.SIGCONT)
        assert "RunFinished" in await tap.line()
    project.dtf("down")
