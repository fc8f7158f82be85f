"""Events as lines of JSON, for people, scripts and the live feed.

A line is one JSON object: "sequence" of the commit, "at" (UTC) and "now_unix_nanos" when it was
decided, "run" ("" for the fleet), "type", and "event", which is the event in protobuf's JSON,
with the fields' own names: what ParseDict makes an Event of, and what any decoder of protobuf prints.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict

from dtf.api.v1 import events_pb2
from dtf.core.events import TYPE_NAMES, run_of, stored_commit, type_of
from dtf.ports.event_log import StoredCommit
from dtf.ports.subjects import RUNS_HEADER, TYPES_HEADER


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """One event and the commit it is from."""

    sequence: int
    now_unix_nanos: int
    event: events_pb2.Event

    @property
    def run_id(self) -> str:
        """Its run; "" for the fleet."""
        return run_of(self.event)

    @property
    def type_name(self) -> str:
        """As "ResultsAccepted"."""
        return type_of(self.event)

    def as_dict(self) -> dict[str, Any]:
        """What one line of JSON holds."""
        return {
            "sequence": self.sequence,
            "at": format_time(self.now_unix_nanos),
            "now_unix_nanos": self.now_unix_nanos,
            "run": self.run_id,
            "type": self.type_name,
            "event": MessageToDict(self.event, preserving_proto_field_name=True),
        }

    def as_json(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(self.as_dict(), separators=(",", ":"), ensure_ascii=False)

    def as_text(self, width: int = 160) -> str:
        """One line for people, cut to `width`."""
        kind = self.event.WhichOneof("event") or ""
        body = MessageToDict(getattr(self.event, kind), preserving_proto_field_name=True) if kind else {}
        body.pop("run_id", None)
        said = json.dumps(body, separators=(", ", ": "), ensure_ascii=False)[1:-1]
        clock = format_time(self.now_unix_nanos)[11:23]
        line = f"{self.sequence:>7}  {clock}  {self.run_id or 'fleet':<8}  {self.type_name:<20}  {said}"
        return line if len(line) <= width else line[: max(0, width - 1)] + "…"


class EventFilter:
    """Picks events out of messages of the log; messages of strangers are passed over and counted."""

    def __init__(self, run_id: str = "", type_names: Iterable[str] = ()) -> None:
        """`type_names` may be spelled as messages ("RunCreated") or as fields ("run_created")."""
        self._run_id = run_id
        self._types = frozenset(TYPE_NAMES.get(name, name) for name in type_names)
        unknown = sorted(self._types - set(TYPE_NAMES.values()))
        if unknown:
            raise ValueError(
                f"no event type {', '.join(unknown)}; there are {', '.join(sorted(TYPE_NAMES.values()))}"
            )
        self.stranger_count = 0

    def pick(self, message: StoredCommit) -> Iterator[ListedEvent]:
        """The events of one message that are wanted, in order."""
        if self._can_skip(message):
            return
        commit = stored_commit(message.payload, message.message_id)
        if commit is None:
            self.stranger_count += 1
            return
        for event in commit.events:
            listed = ListedEvent(message.sequence, commit.now_unix_nanos, event)
            if self._run_id and listed.run_id != self._run_id:
                continue
            if not self._types or listed.type_name in self._types:
                yield listed

    def _can_skip(self, message: StoredCommit) -> bool:
        """Whether the headers alone say that nothing in the commit is wanted."""
        types, runs = message.headers.get(TYPES_HEADER), message.headers.get(RUNS_HEADER)
        if self._types and types is not None and self._types.isdisjoint(types.split(",")):
            return True
        return bool(self._run_id and runs is not None and self._run_id not in runs.split(","))


def format_time(unix_nanos: int) -> str:
    """An instant in ISO 8601, UTC, with microseconds."""
    instant = datetime.fromtimestamp(unix_nanos // 10**9, UTC)
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{unix_nanos % 10**9 // 1000:06d}Z"
