"""Ports that are known before their server listens, and stay its own while it is restarted."""

import socket
import sys


class ReservedPort:
    """An address whose port is chosen now, if it is 0.

    On Linux the port is held by a socket that is bound and does not listen: the kernel gives it to
    nobody who asks for any free port, and a server that sets SO_REUSEADDR, as gRPC's do, may still
    listen there. Elsewhere it is only looked up, and could be taken by another meanwhile.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = address
        self._socket: socket.socket | None = None
        if port == "0":
            self._take(host)

    def _take(self, host: str) -> None:
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host.strip("[]"), 0))
        self.address = f"{host}:{held.getsockname()[1]}"
        if sys.platform == "linux":
            self._socket = held
        else:
            held.close()

    def release(self) -> None:
        """Let the port go."""
        if self._socket is not None:
            self._socket.close()
