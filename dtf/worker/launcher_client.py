"""The worker's end of its launcher (dtf/runner/launcher.py): start processes, hear how they ended, end them.

The launcher is started before the worker opens any gRPC channel, and it alone forks afterwards.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dtf.runner.launch_messages import (
    Exited,
    Frames,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    ToLauncher,
    decode_from_launcher,
    encode,
)

LIFELINE_VARIABLE = "DTF_LIFELINE_FD"
_STOP_PATIENCE_SECONDS = 15.0


class LaunchRefused(Exception):
    """A process could not be started; the message is one line that says why."""


class LauncherLost(Exception):
    """The launcher died; what it had started died with it."""


@dataclass(slots=True)
class Process:
    """A launched process."""

    id: int
    process_id: int
    exited: "asyncio.Future[Exited]"
    """How it ended. It raises LauncherLost if that will never be known."""


@dataclass(slots=True)
class _Pending:
    launched: "asyncio.Future[Process]"
    exited: "asyncio.Future[Exited]" = field(repr=False)


class LauncherClient:
    """One launcher process."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._frames = Frames()
        self._next_id = 1
        self._pending: dict[int, _Pending] = {}

    def start(self) -> None:
        """Start the launcher. It is handed the lifeline, if this process has one."""
        ours, theirs = socket.socketpair()
        lifeline = os.environ.get(LIFELINE_VARIABLE, "")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dtf.runner.launcher"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                pass_fds=(int(lifeline),) if lifeline else (),
                start_new_session=True,
            )
        self._socket = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    @property
    def process_id(self) -> int:
        """The launcher's process."""
        assert self._process is not None
        return self._process.pid

    async def launch(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        working_dir: str = "",
        descriptors: Sequence[int],
    ) -> Process:
        """Start a process with `descriptors` (stdin, stdout, stderr, then others). The caller closes its own.

        Raises LaunchRefused, LauncherLost.
        """
        launch = Launch(self._next_id, list(argv), dict(environment), working_dir, len(descriptors))
        self._next_id += 1
        loop = asyncio.get_running_loop()
        pending = _Pending(loop.create_future(), loop.create_future())
        self._pending[launch.id] = pending
        try:
            self._send(launch, descriptors)
        except BaseException:
            del self._pending[launch.id]
            raise
        return await pending.launched

    def kill(self, process: Process, *, first_signal: int = 9, grace_seconds: float = 0.0) -> None:
        """End a process and its tree; `exited` says when that is done."""
        if not process.exited.done():
            self._send(Kill(process.id, first_signal, grace_seconds), ())

    async def kill_all(self) -> None:
        """End everything it started; returns when that is done."""
        exits = [pending.exited for pending in self._pending.values()]
        for id in list(self._pending):
            self._send(Kill(id), ())
        if exits:
            await asyncio.wait(exits, timeout=_STOP_PATIENCE_SECONDS)

    def _send(self, message: ToLauncher, descriptors: Sequence[int]) -> None:
        if self._socket is None:
            raise LauncherLost("the launcher has ended")
        try:
            data = encode(message)
        except ValueError as error:
            raise LaunchRefused(str(error)) from None
        try:
            # Blocking, but the launcher always reads, and messages are small.
            sent = socket.send_fds(self._socket, [data], list(descriptors)) if descriptors else 0
            self._socket.sendall(data[sent:])
        except OSError as error:
            raise LauncherLost(f"the launcher is gone: {error}") from None

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._lose()
            return
        for body in self._frames.feed(data):
            match decode_from_launcher(body):
                case Launched(id, process_id):
                    pending = self._pending[id]
                    if not pending.launched.cancelled():
                        pending.launched.set_result(Process(id, process_id, pending.exited))
                case LaunchFailed(id, message):
                    pending = self._pending.pop(id)
                    if not pending.launched.cancelled():
                        pending.launched.set_exception(LaunchRefused(message))
                case Exited() as exited:
                    pending = self._pending.pop(exited.id)
                    if not pending.exited.cancelled():  # by the end of the session that waited for it
                        pending.exited.set_result(exited)

    def _lose(self) -> None:
        self._disconnect()
        for pending in self._pending.values():
            for future in (pending.launched, pending.exited):
                if not future.done():
                    future.set_exception(LauncherLost("the launcher died"))
                    # Whoever waits hears of it; that nobody does is no fault.
                    future.exception()
        self._pending.clear()
        self._on_lost()

    def _disconnect(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def stop(self) -> None:
        """End everything it started, and the launcher."""
        self._disconnect()
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, _STOP_PATIENCE_SECONDS)
            self._process = None
