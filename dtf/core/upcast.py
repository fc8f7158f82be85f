"""Commits of earlier versions, brought up to the present schema of events when they are read.

    stored bytes ─▶ hash, chain ─▶ parse ─▶ upcast ─▶ evolve, projections, decisions made again

Whatever reads commits gets them through here (ChainReader, parse_commit), after the hash was taken
of the bytes as they are stored: the log is never rewritten, and evolve knows the present schema only.

A new field whose absence means what it always meant needs no version. A step is needed where code
would have to ask how old an event is: then EVENT_SCHEMA rises by one, and `_STEPS` gets a function
that turns one commit of the version before into the next, from what the commit itself says.

    1  dtf 0.1. `Commit.schema_version` was not written.
    2  WorkerLost.cause: readers asked the words of its reason.

tests/streams/releases keeps streams of every released version, and a test replays them all.
"""

from collections.abc import Callable

from dtf.api.v1 import events_pb2

EVENT_SCHEMA = 2
"""What `Commit.schema_version` says of commits written now."""

_Step = Callable[[events_pb2.Event], None]


def upcast(commit: events_pb2.Commit) -> events_pb2.Commit:
    """The commit itself, its events turned into those of the present schema where they are older.

    A commit of a later version than this one is left as it is; ChainReader refuses it.
    """
    version = commit.schema_version or 1
    while version < EVENT_SCHEMA:
        step = _STEPS[version]
        for event in commit.events:
            step(event)
        version += 1
        commit.schema_version = version
    return commit


def read_commit(payload: bytes) -> events_pb2.Commit:
    """The commit in these bytes, in the present schema. Raises DecodeError."""
    return upcast(events_pb2.Commit.FromString(payload))


def _say_cause_of_loss(event: events_pb2.Event) -> None:
    """1 → 2. The two texts that dtf 0.1 wrote of its own; any other was reported to it."""
    if not event.HasField("worker_lost"):
        return
    lost = event.worker_lost
    if lost.reason.startswith("nothing heard of worker "):
        lost.cause = events_pb2.LOSS_CAUSE_SILENT
    elif lost.reason.startswith("incarnation ") and lost.reason.endswith(" took its place"):
        lost.cause = events_pb2.LOSS_CAUSE_REPLACED
    else:
        lost.cause = events_pb2.LOSS_CAUSE_REPORTED


_STEPS: dict[int, _Step] = {1: _say_cause_of_loss}
