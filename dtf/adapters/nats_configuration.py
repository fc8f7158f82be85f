"""What a nats-server of our own reads: its configuration, and the users that it lets in."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from dtf.adapters.nats_errors import NatsServerError
from dtf.settings.project import write_private

_MAX_STORE_BYTES = 2**50
"""No bound: by default it is a share of what is free at the start, so that a stream of yesterday may
not be opened on the fuller disk of today. The streams have bounds of their own."""
_FEATURE_FLAGS_VERSION = (2, 15)
TAP_PERMISSIONS = {
    "subscribe": ["dtf.*.live.>", "_INBOX.>"],
    "publish": [
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.INFO.>",
        "$JS.API.STREAM.MSG.GET.>",
        "$JS.API.CONSUMER.>",
        "$JS.ACK.>",
    ],
}
"""What the second user may do, as in deploy/nats.conf: see everything, and write nothing to any stream."""


@dataclass(frozen=True, slots=True)
class NatsConfiguration:
    """What distinguishes one nats-server of our own from another."""

    store_dir: Path
    pid_file: Path
    sync_interval: str
    """How long what it acknowledged may be on its way to the disk; "always": not at all."""
    max_payload_bytes: int
    owner: tuple[str, str]
    """User and password of the one that may do everything."""
    tap: tuple[str, str]
    """The same of the one that may only read."""
    port: int
    """0: one that is free."""
    has_websocket: bool
    websocket_port: int
    """0: one that is free."""

    def text(self, version: tuple[int, ...]) -> str:
        """The file's text, as nats-server of this version takes it."""
        flags = "feature_flags { js_ack_fc_v2: false }\n" if version >= _FEATURE_FLAGS_VERSION else ""
        return (
            "# Written by dtf at each start; changes are lost.\n"
            "host: 127.0.0.1\n"
            f"port: {self.port or -1}\n"
            "server_name: dtf-embedded\n"
            f"pid_file: {json.dumps(str(self.pid_file))}\n"
            f"max_payload: {self.max_payload_bytes}\n"
            f"jetstream {{ store_dir: {json.dumps(str(self.store_dir))}, "
            f"sync_interval: {self.sync_interval}, max_file_store: {_MAX_STORE_BYTES} }}\n"
            f"{self._websocket()}"
            f"authorization {{ users: [ {_user(*self.owner)}, {_user(*self.tap, TAP_PERMISSIONS)} ] }}\n"
            f"{flags}"
        )

    def _websocket(self) -> str:
        if not self.has_websocket:
            return ""
        return f"websocket {{ host: 127.0.0.1, port: {self.websocket_port or -1}, no_tls: true }}\n"


def read_credentials(path: Path) -> tuple[str, str]:
    """User and password of a file that holds "user:password". Raises NatsServerError."""
    try:
        user, separator, password = path.read_text().strip().partition(":")
    except OSError as error:
        raise NatsServerError(f"cannot read the NATS credentials {path}: {error.strerror}") from error
    if not separator or not user or not password:
        raise NatsServerError(f'{path} must hold one line "user:password"; delete it to have a new one made')
    return user, password


def credentials(path: Path, user: str) -> tuple[str, str]:
    """User and password of a file, which is made with a password of its own if it is not there."""
    if not path.exists():
        write_private(path, f"{user}:{secrets.token_urlsafe(32)}\n")
    return read_credentials(path)


def _user(name: str, password: str, permissions: dict[str, list[str]] | None = None) -> str:
    """A user as nats-server's configuration has it, which takes JSON."""
    said: dict[str, object] = {"user": name, "password": password}
    return json.dumps({**said, "permissions": permissions} if permissions else said)
