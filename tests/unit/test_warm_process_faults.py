"""A fault in what a process's words lead to is the worker's, and is not swallowed by the event loop."""

import asyncio
import os
import socket
from typing import cast

import pytest

from dtf.runner.channel import Ready, encode
from dtf.worker.launcher_client import Process
from dtf.worker.warm_process import Listener, WarmProcess

PATIENCE_SECONDS = 30.0


class Failing:
    """Cannot take in that a process is ready."""

    def on_ready(self, _process: WarmProcess) -> None:
        raise KeyError("a fault")


async def test_a_listener_that_fails_ends_the_watch_with_its_error() -> None:
    process = WarmProcess(cast(Listener, Failing()))
    _, _, _, channel, _ = process.descriptors
    with socket.socket(fileno=os.dup(channel)) as theirs:
        process.launched()
        theirs.sendall(encode(Ready(1)))
        exited = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(KeyError, match="a fault"):
                await process.watch(Process(1, 1, exited))
    assert not exited.cancelled()
