"""A nats-server of our own: on loopback, with a user of its own, durable, and gone when we are.

A small guard process (process_guard.py) stands between this process and the server: when this
process ends, in whatever way, the server does.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import sys
from collections import deque
from pathlib import Path

from dtf.adapters import process_guard
from dtf.adapters.nats_binary import NatsServerBinary, find_nats_server
from dtf.adapters.nats_configuration import NatsConfiguration, credentials
from dtf.adapters.nats_errors import NatsServerError, NatsServerFailed
from dtf.settings.project import write_private

logger = logging.getLogger(__name__)

_READY = re.compile(r"Listening for client connections on \S*:(\d+)")
_WEBSOCKET = re.compile(r"Listening for websocket clients on \S*:(\d+)")
_STORAGE_FAULT = re.compile(r"Critical write error: (.*)")
_ROOM_BYTES = 64 * 2**20
"""Free space at which a server that ran out of it is worth a restart."""
_ROOM_CHECK_SECONDS = 1.0
_FATAL = re.compile(r"\[FTL\] (.*)|(nats-server: .*)")


class NatsServer:
    """One nats-server, started, watched and stopped; it can be started again on the same port.

    `store_dir` holds its streams. `credentials_file` holds "user:password" and is made, readable
    by its owner alone, if it is not there. Beside it and as private lie its configuration and
    `<credentials file>-tap`, with a user that may read and not write. With `has_websocket` it takes
    NATS over WebSocket too, on loopback, for taps in JavaScript. A `sync_interval` other than "always"
    is for streams that may be lost with the machine.
    """

    def __init__(
        self,
        store_dir: Path,
        credentials_file: Path,
        *,
        log_file: Path | None = None,
        port: int = 0,
        max_payload_bytes: int = 2**20,
        start_timeout_seconds: float = 30.0,
        has_websocket: bool = False,
        sync_interval: str = "always",
    ) -> None:
        self._has_websocket = has_websocket
        self._sync_interval = sync_interval
        self._websocket_port = 0
        self._store_dir = store_dir.absolute()
        self._credentials_file = credentials_file.absolute()
        self._log_file = (log_file or store_dir.parent / "nats-server.log").absolute()
        self._port = port
        self._max_payload_bytes = max_payload_bytes
        self._start_timeout_seconds = start_timeout_seconds
        self._guard: asyncio.subprocess.Process | None = None
        self._last_lines: deque[str] = deque(maxlen=50)
        self._storage_fault = ""

    @property
    def url(self) -> str:
        """nats://127.0.0.1:port, once started; the same after every restart."""
        if not self._port:
            raise NatsServerError("the server has no port before its first start; call start()")
        return f"nats://127.0.0.1:{self._port}"

    @property
    def websocket_url(self) -> str:
        """ws://127.0.0.1:port, the same after every restart; "" without it and before the first start."""
        return f"ws://127.0.0.1:{self._websocket_port}" if self._websocket_port else ""

    @property
    def credentials_file(self) -> Path:
        """File with "user:password"."""
        return self._credentials_file

    @property
    def tap_credentials_file(self) -> Path:
        """The same of the user that may only read."""
        return self._credentials_file.with_name(self._credentials_file.name + "-tap")

    @property
    def guard_pid(self) -> int | None:
        """Process id of the guard, while it runs."""
        return self._guard.pid if self._guard and self._guard.returncode is None else None

    async def start(self) -> None:
        """Start it and return when it takes connections. Raises NatsServerError."""
        if self.guard_pid is not None:
            raise NatsServerError("the server runs already; call stop() first")
        binary = await find_nats_server()
        config = self._write_files(binary)
        self._last_lines.clear()
        self._storage_fault = ""
        self._guard = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            process_guard.__file__,
            self._log_file,
            binary.path,
            "-c",
            config,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=_lifeline(),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                self._port = await self._read_until_ready()
        except TimeoutError as error:
            await self.kill()
            raise NatsServerFailed(
                f"nats-server was not ready within {self._start_timeout_seconds:.0f} s; see {self._log_file}"
            ) from error
        except BaseException:
            await self.kill()
            raise

    async def wait(self) -> int:
        """Return its exit code when it has ended.

        A nats-server whose disk was full stores nothing any more, even when there is room again,
        until it is restarted. While this waits, such a server is stopped as soon as there is
        room, so that whoever restarts it when it ends has a log that goes on.
        """
        if self._guard is None:
            raise NatsServerError("the server was never started; call start()")
        assert self._guard.stdout is not None
        while True:
            try:
                async with asyncio.timeout(_ROOM_CHECK_SECONDS if self.storage_fault else None):
                    line = await self._guard.stdout.readline()
            except TimeoutError:
                if shutil.disk_usage(self._store_dir).free >= _ROOM_BYTES:
                    logger.warning("there is room again: nats-server is stopped, to be started anew")
                    await self.stop()
                continue
            if not line:
                return await self._guard.wait()
            self._take_line(line)

    async def stop(self, timeout_seconds: float = 15.0) -> None:
        """Let it close its store and end; kill it if it has not after `timeout_seconds`."""
        if self.guard_pid is None:
            return
        assert self._guard is not None
        self._guard.terminate()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._guard.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it at once, as kill -9 would; its store stays as it is."""
        if self._guard is None:
            return
        if self._guard.returncode is None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()
        await self._guard.wait()

    def signal_server(self, number: signal.Signals) -> None:
        """Send a signal to nats-server itself, past its guard (SIGKILL, SIGSTOP, SIGCONT in tests)."""
        os.kill(self.server_pid, number)

    @property
    def server_pid(self) -> int:
        """Process id of nats-server itself, as its pid file says."""
        return int(self._pid_file.read_text().strip())

    @property
    def last_lines(self) -> list[str]:
        """The newest lines of its log that were read."""
        return list(self._last_lines)

    @property
    def storage_fault(self) -> str:
        """What keeps it from storing anything, in its own words; "" when nothing does."""
        return self._storage_fault

    def _take_line(self, line: bytes) -> str:
        text = line.decode(errors="replace").rstrip()
        self._last_lines.append(text)
        if not self._storage_fault and (match := _STORAGE_FAULT.search(text)):
            self._storage_fault = match[1]
            logger.error(
                "nats-server stores nothing: %s; free some space on the disk of %s, then it goes on",
                match[1],
                self._store_dir,
            )
        return text

    @property
    def _pid_file(self) -> Path:
        return self._credentials_file.with_name("nats-server.pid")

    def _write_files(self, binary: NatsServerBinary) -> Path:
        """Make the directories, the credentials if they are missing, and the configuration."""
        config = self._credentials_file.with_name("nats-server.conf")
        try:
            for directory in (self._store_dir, self._credentials_file.parent, self._log_file.parent):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            configuration = NatsConfiguration(
                store_dir=self._store_dir,
                pid_file=self._pid_file,
                sync_interval=self._sync_interval,
                max_payload_bytes=self._max_payload_bytes,
                owner=credentials(self._credentials_file, "dtf"),
                tap=credentials(self.tap_credentials_file, "tap"),
                port=self._port,
                has_websocket=self._has_websocket,
                websocket_port=self._websocket_port,
            )
            self._pid_file.unlink(missing_ok=True)
            write_private(config, configuration.text(binary.version))
        except OSError as error:
            raise NatsServerFailed(
                f"cannot prepare nats-server: {error.strerror}: {error.filename}; "
                "free some space or choose a directory that can be written"
            ) from error
        return config

    async def _read_until_ready(self) -> int:
        assert self._guard is not None and self._guard.stdout is not None
        port = 0
        while line := await self._guard.stdout.readline():
            text = self._take_line(line)
            if match := _WEBSOCKET.search(text):
                self._websocket_port = int(match[1])
            if match := _READY.search(text):
                port = int(match[1])
            if port and "Server is ready" in text:
                return port
        await self._guard.wait()
        raise NatsServerFailed(self._why_it_ended())

    def _why_it_ended(self) -> str:
        fatal = next((m for m in map(_FATAL.search, reversed(self._last_lines)) if m), None)
        said = (fatal[1] or fatal[2]) if fatal else (self._last_lines[-1] if self._last_lines else "nothing")
        if "address already in use" in said:
            return f"port {self._port} of 127.0.0.1 is in use; stop what listens there, or take another port"
        if "no space left" in said:
            return f"the disk of {self._store_dir} is full ({said}); free some space, then start again"
        if "permission denied" in said or "read-only file system" in said:
            return f"{self._store_dir} cannot be written ({said}); choose a directory that can"
        return f"nats-server did not start: {said}; its log is {self._log_file}"


def _lifeline() -> tuple[int, ...]:
    """The supervisor's pipe, which the guard watches as well."""
    inherited = os.environ.get("DTF_LIFELINE_FD", "")
    return (int(inherited),) if inherited.isdigit() else ()
