"""A project with the whole system around it: `dtf` as people call it, and the log as it is stored."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import psutil

from dtf.adapters.jetstream_log import JetStreamLog
from dtf.adapters.system_clock import SystemClock
from dtf.api.v1 import events_pb2
from dtf.client.stack import StackAddresses, read_stack
from dtf.ports.event_log import StoredCommit
from dtf.settings.loader import without_settings
from dtf.settings.model import NatsSettings
from tests.e2e.accounts import LogAccount, read_account
from tests.processes import wait_until_gone

COMMAND_SECONDS = 180.0
PATIENCE = {"DTF_NATS_APPEND_TIMEOUT_SECONDS": "60"}
"""A broker that does not answer for a while is one that the machine holds up, and no reason to end."""
SETTINGS = """
[pool]
min_workers = 2
max_workers = 2

[coordinator]
lease_seconds = 20.0
"""
"""A pool that stays as it is, of workers that are not lost because the machine does something else for a while:
of those that are killed the resource manager tells at once."""


class Project:
    """A directory with a dtf.toml; nothing of its stack outlives `close`."""

    def __init__(self, directory: Path, settings: str = SETTINGS) -> None:
        self.directory = directory
        (directory / "dtf.toml").write_text(settings)
        (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
        self._started: list[subprocess.Popen[str]] = []

    def write(self, name: str, content: str) -> Path:
        """Write a file of the project."""
        path = self.directory / name
        path.write_text(content)
        return path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `dtf ARGUMENTS` here."""
        process = subprocess.Popen(
            [sys.executable, "-m", "dtf.cli.main", *arguments],
            cwd=self.directory,
            env=without_settings(os.environ) | PATIENCE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def dtf(self, *arguments: str, expect: Sequence[int] = (0,)) -> str:
        """What `dtf ARGUMENTS` prints; fails the test on another exit code."""
        return finish(self.start(*arguments), expect)

    def json(self, *arguments: str, expect: Sequence[int] = (0,)) -> Any:
        """The JSON object that `dtf ARGUMENTS --json` prints."""
        return json.loads(self.dtf(*arguments, expect=expect))

    @property
    def stack(self) -> StackAddresses:
        """The stack that serves now."""
        found = read_stack(self.directory)
        assert found is not None, "no stack serves this project"
        return found

    def part(self, name: str) -> psutil.Process:
        """A part of the stack."""
        document = json.loads((self.directory / ".dtf" / "stack.json").read_text())
        return psutil.Process(document["parts"][name])

    async def open_log(self) -> JetStreamLog:
        """The event log of the stack that serves now."""
        stack = self.stack
        settings = NatsSettings(
            url=stack.nats,
            credentials_file=stack.nats_credentials_file,
            append_timeout_seconds=COMMAND_SECONDS,
        )
        return await JetStreamLog.open(settings, stack.namespace, SystemClock())

    async def wait_for(self, wanted: Callable[[events_pb2.Event], bool], count: int = 1) -> events_pb2.Event:
        """The `count`-th event of the log that is wanted, once it is stored."""
        log = await self.open_log()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                batches = cast(AsyncGenerator[Sequence[StoredCommit], None], log.follow(0))
                async with aclosing(batches) as follow:
                    async for batch in follow:
                        for message in batch:
                            for event in events_pb2.Commit.FromString(message.payload).events:
                                count -= wanted(event)
                                if count <= 0:
                                    return event
        finally:
            await log.close()
        raise AssertionError("the log ended")

    async def account(self) -> LogAccount:
        """What the log says now, from its first message on."""
        log = await self.open_log()
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                return read_account([message async for batch in log.read(0) for message in batch])
        finally:
            await log.close()

    def close(self) -> list[str]:
        """Stop what the test left running; the processes that would not go, of which there must be none."""
        if read_stack(self.directory) is not None:
            finish(self.start("down", "--now"), expect=(0,))
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()
        return wait_until_gone(self.directory)

    def logs(self) -> str:
        """The end of what each part said, for the message of a failed test."""
        parts = sorted((self.directory / ".dtf" / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in parts)


def shared_project(directory: Path) -> Iterator[Project]:
    """For a fixture of a whole module: a project whose stack is up; after it no process of it is left."""
    project = Project(directory)
    project.dtf("up")
    yield project
    left = project.close()
    assert left == [], project.logs()


def finish(process: "subprocess.Popen[str]", expect: Sequence[int] = (0,)) -> str:
    """Standard output of a command once it has ended; fails the test on another exit code."""
    output, errors = process.communicate(timeout=COMMAND_SECONDS)
    assert process.returncode in expect, f"exit code {process.returncode}\n{output}\n{errors}"
    return output
