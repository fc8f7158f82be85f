"""A commit while it is made, and once it is durable."""

import hashlib
from asyncio import Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.coordinator.inputs import arguments
from dtf.core.events import run_of, type_of
from dtf.core.run.commands import Command
from dtf.core.upcast import EVENT_SCHEMA
from dtf.ports.subjects import RUNS_HEADER, TYPES_HEADER

MAX_NAMED_RUNS = 32
"""A commit of more runs does not name them in its header: taps read it whole."""

Settle = Callable[["Outcome"], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command, told once everything it rests on is durable."""

    sequence: int
    """Sequence of its commit; for a command without events, of the last commit it rests on."""
    events: Sequence[events_pb2.Event]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a commit."""

    command: Command
    events: Sequence[events_pb2.Event]
    settle: Settle | None
    error: Exception | None = None
    continues: bool = False
    """The rest of its events is in the next commit."""


@dataclass(slots=True)
class PendingCommit:
    """A commit on its way to the log."""

    sequence: int
    """Where it lands if nobody else writes; the chain sees to it that it lands nowhere else."""
    now_ns: int
    payload: bytes
    message_id: str
    previous_message_id: str | None
    expected_last_sequence: int | None
    headers: dict[str, str]
    events: list[events_pb2.Event]
    steps: list[Step]
    acknowledgement: "Future[int] | None" = None
    is_stored: bool = False
    """The log has it, as reading back has shown."""
    spooling: "Future[None] | None" = None
    """Done when it is on this machine's disk; None: nothing is spooled."""
    waiters: list["Future[None]"] = field(default_factory=list)


def kind_of(event: events_pb2.Event) -> str:
    """The name of an event's field in Event, as "results_accepted"; empty: one this version does not know."""
    return event.WhichOneof("event") or ""


def headers_of(events: Sequence[events_pb2.Event]) -> dict[str, str]:
    """Headers by which a tap can skip a commit without parsing it."""
    runs = sorted({run_of(event) for event in events} - {""})
    headers = {TYPES_HEADER: ",".join(sorted({type_of(event) for event in events} - {""}))}
    if 0 < len(runs) <= MAX_NAMED_RUNS:
        headers[RUNS_HEADER] = ",".join(runs)
    return headers


def serialize(
    *,
    commit_id: bytes,
    epoch: int,
    previous_hash: bytes,
    now_ns: int,
    code_version: str,
    steps: Sequence[Step],
    events: Sequence[events_pb2.Event],
) -> tuple[bytes, str]:
    """A commit's bytes and the id it is stored under, which is their SHA-256."""
    commit = events_pb2.Commit(
        commit_id=commit_id,
        epoch=epoch,
        prev_hash=previous_hash,
        now_unix_nanos=now_ns,
        code_version=code_version,
        inputs=[
            events_pb2.Input(
                kind=type(step.command).__name__,
                event_count=len(step.events),
                arguments=arguments(step.command),
                continues=step.continues,
            )
            for step in steps
            if step.events
        ],
        events=events,
        schema_version=EVENT_SCHEMA,
    )
    payload = commit.SerializeToString()
    return payload, hashlib.sha256(payload).hexdigest()
