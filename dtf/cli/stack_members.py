"""Who uses a stack: connections to its supervisor, each of which is a hold on it.

A connection begins with a line that presents the secret of supervisor.json; loopback is open to
every user of the machine, that file to its owner alone. Then lines of JSON go both ways:

    up    {"op": "join", "keep_up": bool} · attach / detach {"run": id} · leave · down {"now": bool} · status
    down  {"kind": "progress" | "note" | "fatal", "text": …} · {"kind": "ready", "addresses": …}
          · {"kind": "status", …} · {"kind": "held", "members": n} · {"kind": "bye"}

Who leaves hears "bye" if the stack goes on without them, else the end of the connection with the stack's.
"""

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_HELLO_TIMEOUT_SECONDS = 10.0
_LINE_LIMIT_BYTES = 64 * 1024


@dataclass(eq=False, slots=True)
class Member:
    """One connection that joined."""

    process_id: int
    writer: asyncio.StreamWriter
    runs: set[str] = field(default_factory=set)
    """Runs that are to end with it."""


@dataclass(slots=True)
class MemberEvents:
    """What the supervisor wants to hear."""

    on_empty: Callable[[], None]
    """The last member left and nobody keeps the stack up."""
    on_orphaned: Callable[[frozenset[str]], None]
    """A member went away and left these runs behind."""
    on_runs_changed: Callable[[], None]
    """The set of attached runs is another one now."""
    on_stop: Callable[[str], None]
    """Someone asked to stop at once; who."""
    describe: Callable[[], dict[str, Any]]
    """The answer to `status`."""


class Members:
    """Serves the connections; keeps the stack's users informed."""

    def __init__(self, events: MemberEvents, starter_process_id: int) -> None:
        self.secret = secrets.token_urlsafe(32)
        self.port = 0
        self.is_kept_up = False
        self.is_closing = False
        """The stack is on its way out; who wants one waits for the end of this and starts another."""
        self._events = events
        self._members: set[Member] = set()
        self._awaiting_end: set[asyncio.StreamWriter] = set()
        """Connections kept open until this process ends, because that is what their owners wait for."""
        self._history: list[dict[str, Any]] = []
        self._server: asyncio.Server | None = None
        self._starter_process_id = starter_process_id
        self._is_starter_present = True

    @property
    def is_unused(self) -> bool:
        """Whether nobody is left to keep the stack for."""
        return not (self._members or self.is_kept_up or self._is_starter_present)

    @property
    def attached_runs(self) -> frozenset[str]:
        """Runs that end with their members."""
        return frozenset(run for member in self._members for run in member.runs)

    def __len__(self) -> int:
        """Members that are joined now."""
        return len(self._members)

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LINE_LIMIT_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def starter_left(self) -> None:
        """The process that started the supervisor has joined, or is gone."""
        self._is_starter_present = False
        self._check_empty()

    def tell(self, kind: str, **content: Any) -> None:
        """Say something to every member, and to those still to come: not notes, and progress until it is ready."""
        message = {"kind": kind, **content}
        if kind == "ready":
            self._history = [told for told in self._history if told["kind"] != "progress"]
        if kind != "note":
            self._history.append(message)
        for member in self._members:
            _send(member.writer, message)

    def stop_listening(self) -> None:
        """Take no new connections."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = await self._hello(reader)
            if hello is not None:
                await self._converse(int(hello.get("pid", 0)), reader, writer)
        except (OSError, ValueError):
            pass  # a broken or malformed connection ends; what it held is let go below
        except asyncio.CancelledError:
            pass  # the loop closes; asyncio would log the cancellation of this task of its own as an error
        finally:
            if writer not in self._awaiting_end:
                writer.close()

    async def _hello(self, reader: asyncio.StreamReader) -> dict[str, Any] | None:
        async with asyncio.timeout(_HELLO_TIMEOUT_SECONDS):
            hello = await _receive(reader)
        if hello is None or not hmac.compare_digest(
            str(hello.get("secret", "")).encode("utf-8", "replace"), self.secret.encode()
        ):
            return None
        return hello

    async def _converse(
        self, process_id: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        member: Member | None = None
        try:
            while (message := await _receive(reader)) is not None:
                match message.get("op"):
                    case "join" if self.is_closing:
                        self._awaiting_end.add(writer)
                    case "join" if member is None:
                        member = self._join(process_id, writer, bool(message.get("keep_up")))
                    case "attach" | "detach" if member is not None:
                        self._attach(member, str(message["run"]), message["op"] == "attach")
                    case "leave":
                        break
                    case "down":
                        self._down(writer, process_id, now=bool(message.get("now")))
                    case "status":
                        _send(writer, {"kind": "status", **self._events.describe()})
                    case unknown:
                        raise ValueError(f"unknown operation {unknown!r}")
        finally:
            if member is not None:
                self._leave(member)

    def _join(self, process_id: int, writer: asyncio.StreamWriter, keep_up: bool) -> Member:
        member = Member(process_id, writer)
        self._members.add(member)
        if process_id == self._starter_process_id:
            # Its standard input may still be open here when it leaves again.
            self._is_starter_present = False
        self.is_kept_up = self.is_kept_up or keep_up
        for message in self._history:
            _send(writer, message)
        return member

    def _attach(self, member: Member, run_id: str, is_attached: bool) -> None:
        (member.runs.add if is_attached else member.runs.discard)(run_id)
        self._events.on_runs_changed()

    def _leave(self, member: Member) -> None:
        self._members.discard(member)
        if member.runs:
            self._events.on_orphaned(frozenset(member.runs))
        if self._check_empty():
            self._awaiting_end.add(member.writer)
        else:
            _send(member.writer, {"kind": "bye"})

    def _down(self, writer: asyncio.StreamWriter, process_id: int, *, now: bool) -> None:
        """The one who asks hears how many still hold the stack, or waits for the end of it."""
        self.is_kept_up = False
        self._awaiting_end.add(writer)
        if now:
            self._events.on_stop(f"`dtf down --now` (process {process_id})")
        elif not self._check_empty():
            _send(writer, {"kind": "held", "members": len(self._members)})

    def _check_empty(self) -> bool:
        if self.is_unused:
            self._events.on_empty()
        return self.is_unused


async def _receive(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    line = await reader.readline()
    if not line:
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"expected an object, got {line[:80]!r}")
    return message


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Hand a message to the kernel, in time; a member that reads nothing costs only its own buffer."""
    if not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")
