"""A connection to the supervisor of a project's stack: lines of JSON over loopback."""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

REPLY_TIMEOUT_SECONDS = 10.0


class StackError(Exception):
    """The stack cannot be started or joined, or it ended. `advice` says what to do."""

    def __init__(self, what: str, *advice: str) -> None:
        super().__init__(what)
        self.what = what
        self.advice = advice


class SupervisorConnection:
    """Lines of JSON to and from a supervisor. Not for several threads at once, but for `close`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = b""

    @classmethod
    def open(cls, state: Path) -> "SupervisorConnection | None":
        """A connection to the supervisor that listens, or None if none does."""
        try:
            document = json.loads((state / "supervisor.json").read_text())
            address = ("127.0.0.1", int(document["port"]))
            connection = socket.create_connection(address, timeout=REPLY_TIMEOUT_SECONDS)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        opened = cls(connection)
        try:
            opened.send(secret=document["secret"], pid=os.getpid())
        except OSError:
            opened.close()
            return None
        return opened

    def send(self, **message: object) -> None:
        """Send one message. Raises OSError."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_seconds: float | None) -> dict[str, Any] | None:
        """The next message, or None when the supervisor is gone. Raises TimeoutError."""
        self._socket.settimeout(timeout_seconds)
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                raise
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Let go; a `receive` under way in another thread returns None."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
