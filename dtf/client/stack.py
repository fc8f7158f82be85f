"""The embedded stack of a project, as its users see it: join it, hold it, leave it.

One supervisor process (dtf/cli/supervisor.py) runs the stack of a project. Whoever wants the stack
holds a connection to it; when the last one is gone, however it went, the supervisor stops what it
started, unless `dtf up` told it to stay. Importing this costs no gRPC.

    no supervisor ──spawn──▶ starting ──ready──▶ serving ──last member left──▶ stopping ──▶ gone
                                └────────fatal─────┴──▶ stopping

Files, all in the project's `.dtf/` (0700), themselves 0600:
    supervisor.json   where the supervisor listens and the secret that every connection must present
    stack.json        addresses and processes of the stack once it serves
    supervisor.lock   locked as long as a supervisor, or a process it started, lives
    join.lock         locked by whoever spawns a supervisor
"""

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from dtf.client.supervisor_connection import StackError, SupervisorConnection
from dtf.client.supervisor_process import (
    STOP_TIMEOUT_SECONDS,
    SUPERVISOR_PROGRAM,
    await_end,
    leave_to_others,
    raise_if_failed,
    releasing,
    spawn,
)
from dtf.settings.model import Settings
from dtf.settings.project import SUPERVISOR_LOCK, find_project_dir, make_private_dir, state_dir

__all__ = [
    "StackAddresses",
    "StackError",
    "StackMembership",
    "SupervisorConnection",
    "find_project_dir",
    "join_stack",
    "read_stack",
]

START_TIMEOUT_SECONDS = 90.0
"""Longest a stack may take until it serves; a cold start on a loaded laptop takes a few seconds."""


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Where a stack's parts are; an empty text stands for what is not known."""

    server: str = ""
    """host:port of the coordinator, or of several that stand by for each other: host:port,host:port."""
    analysis: str = ""
    """host:port of the trend analyzer."""
    nats: str = ""
    """nats://host:port of the broker."""
    token_file: str = ""
    certificate_authority_file: str = ""
    """PEM file; when given coordinator and analyzer are called over TLS."""
    nats_credentials_file: str = ""
    nats_websocket: str = ""
    """ws://host:port of the broker, where [nats] websocket is set."""
    nats_tap_credentials_file: str = ""
    """A user of the embedded broker that may read everything and write nothing."""
    namespace: str = "default"
    supervisor_pid: int = 0
    pool_min: int = 0
    pool_max: int = 0
    """Bounds of the pool this stack was started with; 0: as many as the machine has processors."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The addresses in `document`; what it does not know is left out."""
        known = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in document.items() if name in known})

    @property
    def token(self) -> str:
        """The bearer token of every call, read from its file; "" where there is none."""
        return Path(self.token_file).read_text().strip() if self.token_file else ""


def read_stack(project_dir: Path) -> StackAddresses | None:
    """The stack that serves this project now, by its stack.json; None if none does."""
    try:
        document = json.loads((state_dir(project_dir) / "stack.json").read_text())
    except (OSError, ValueError):
        return None
    addresses = StackAddresses.from_json(document)
    return addresses if _lives(addresses.supervisor_pid) else None


def remote_addresses(settings: Settings) -> StackAddresses | None:
    """The stack that the settings name (DTF_SERVER); None if they leave it to the embedded one."""
    if not settings.server:
        return None
    return StackAddresses(
        server=settings.server,
        analysis=settings.analyzer.server,
        nats=settings.nats.url,
        token_file=settings.run.token_file,
        certificate_authority_file=settings.run.certificate_authority_file,
        nats_credentials_file=settings.nats.credentials_file,
        namespace=settings.coordinator.namespace,
    )


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process_id > 0


class StackMembership:
    """A hold on a stack. Close it when the stack is no longer needed; a death of this process closes it too."""

    def __init__(
        self,
        addresses: StackAddresses,
        *,
        connection: SupervisorConnection | None = None,
        starter: "subprocess.Popen[bytes] | None" = None,
        lock_file: Path | None = None,
        on_note: Callable[[str], None] | None = None,
        on_lost: Callable[[str], None] | None = None,
    ) -> None:
        self.addresses = addresses
        self.is_started_here = starter is not None
        """Whether this call started the stack; False: it was there, with its own settings."""
        self.lost_reason = ""
        """Why the stack ended under this membership; "" while it lives."""
        self._connection = connection
        self._on_note = on_note
        self._on_lost = on_lost
        self._starter = starter
        self._lock_file = lock_file
        self._is_leaving = False
        self._goes_on_without_us = False
        self._listener: threading.Thread | None = None
        if connection is not None:
            self._listener = threading.Thread(target=self._listen, name="dtf-membership", daemon=True)
            self._listener.start()

    def attach_run(self, run_id: str) -> None:
        """Let the supervisor cancel the run if this process goes away before `detach_run`."""
        self._tell(op="attach", run=run_id)

    def detach_run(self, run_id: str) -> None:
        """The run ended, or may outlive this process."""
        self._tell(op="detach", run=run_id)

    def close(self) -> None:
        """Leave; if this was the last member, return when the stack is gone."""
        if self._connection is None or self._is_leaving:
            return
        self._is_leaving = True
        self._tell(op="leave")
        if self._listener is not None:
            self._listener.join(STOP_TIMEOUT_SECONDS)
        self._connection.close()
        leave_to_others(self._starter)
        if self._lock_file is not None and not self._goes_on_without_us:
            await_end(self._lock_file)

    def abandon(self) -> None:
        """Leave at once; the stack, if this was its last member, ends by itself."""
        self._is_leaving = True
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, **message: object) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):  # the listener says why it is gone
                self._connection.send(**message)

    def _listen(self) -> None:
        assert self._connection is not None
        while (message := self._connection.receive(None)) is not None:
            match message.get("kind"):
                case "note" if self._on_note is not None:
                    self._on_note(str(message["text"]))
                case "fatal":
                    self._lose("\n".join([str(message["text"]), *map(str, message.get("advice", ()))]))
                case "bye":
                    self._goes_on_without_us = True
                    return
                case _:
                    pass
        self._lose("the supervisor of this project's stack died; .dtf/logs/supervisor.log may say why")

    def _lose(self, reason: str) -> None:
        if self._is_leaving or self.lost_reason:
            return
        self.lost_reason = reason
        if self._on_lost is not None:
            self._on_lost(reason)


def join_stack(
    project_dir: Path,
    settings: Settings,
    *,
    on_progress: Callable[[str], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    on_lost: Callable[[str], None] | None = None,
    keep_up: bool = False,
    supervisor: Sequence[str] = SUPERVISOR_PROGRAM,
) -> StackMembership:
    """Join the stack of `project_dir`, starting it if none runs, and return when it serves.

    With `run.server` set there is nothing to start: the membership names that server. `on_note`
    hears of parts that died and were restarted, `on_lost` once if the stack ends before `close`;
    both are called from another thread. `keep_up`: the stack stays when the last member leaves.
    Raises StackError.
    """
    remote = remote_addresses(settings)
    if remote is not None:
        return StackMembership(remote)
    state = make_private_dir(state_dir(project_dir))
    _hide_from_git(state)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    starter: subprocess.Popen[bytes] | None = None
    while True:
        connection = SupervisorConnection.open(state)
        if connection is None:
            if starter is not None and starter.poll() is not None:
                raise_if_failed(starter, state)
            starter = spawn(supervisor, project_dir, state, settings, deadline) or starter
            continue
        try:
            with releasing(starter):
                connection.send(op="join", keep_up=keep_up)
                ready = _await_ready(connection, deadline, on_progress)
        except OSError:
            ready = None  # it ended just now
        except StackError:
            leave_to_others(starter)
            await_end(state / SUPERVISOR_LOCK)
            raise
        if ready is not None:
            return StackMembership(
                StackAddresses.from_json(ready["addresses"]),
                connection=connection,
                starter=starter,
                lock_file=state / SUPERVISOR_LOCK,
                on_note=on_note,
                on_lost=on_lost,
            )
        connection.close()
        if starter is not None:
            raise_if_failed(starter, state)
            starter = None


def _await_ready(
    connection: SupervisorConnection, deadline: float, on_progress: Callable[[str], None] | None
) -> dict[str, Any] | None:
    """What the supervisor says once it serves; None if it is on its way out, and is gone now."""
    while True:
        try:
            message = connection.receive(max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            connection.close()
            raise StackError(
                f"the stack did not come up within {START_TIMEOUT_SECONDS:.0f} s",
                "`dtf doctor` checks this machine; .dtf/logs/ has what each part said",
            ) from None
        match message:
            case None:
                connection.close()
                return None
            case {"kind": "ready"}:
                return message
            case {"kind": "fatal", "text": text}:
                connection.close()
                raise StackError(str(text), *map(str, message.get("advice", ())))
            case {"kind": "progress", "text": text} if on_progress is not None:
                on_progress(str(text))
            case _:
                pass


def _hide_from_git(state: Path) -> None:
    ignore = state / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def addresses_document(addresses: StackAddresses) -> dict[str, Any]:
    """The addresses as they are written to stack.json and sent to members."""
    return asdict(addresses)
