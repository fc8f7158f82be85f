"""Commits read beforehand: what the folds need of them, in a form that is cheap to hand over and to read.

The protobuf runtime makes an object for every message and every column that Python looks at; in a
replay of a million events that is half of the fold. Another process can look instead
(dtf/core/preparation.py). The events of the hot path come as structs with the attributes that
their folds in evolve_attempts.py and evolve_tasks.py read; all others come as they are encoded.
The folds are typed for both forms, so a fold that reads more of an event does not type-check
until the struct has it.
"""

from collections.abc import Sequence

import msgspec

from dtf.api.v1 import events_pb2


class Granted(msgspec.Struct, array_like=True, tag=0, gc=False):
    """What is folded of LeasesGranted."""

    run_id: str
    worker_id: str
    tasks: list[int]
    first_fence: int
    attempts: list[int]


class Accepted(msgspec.Struct, array_like=True, tag=1, gc=False):
    """What is folded of ResultsAccepted."""

    run_id: str
    worker_id: str
    tasks: list[int]
    fences: list[int]
    durations_seconds: list[float]
    all_completed: bool
    verdicts: Sequence[int]
    cases: list[int]
    retried: list[int]
    completed: list[int]
    requeued: list[int]


class Submitted(msgspec.Struct, array_like=True, tag=2, gc=False):
    """What is folded of TasksSubmitted."""

    run_id: str
    names: list[str]
    batch: int
    templates: list[int]
    payloads: list[str]
    expected_seconds: list[float]
    priorities: list[int]
    case_counts: list[int]
    case_names: list[str]
    case_positions: list[int]


class Encoded(msgspec.Struct, array_like=True, tag=3, gc=False):
    """An event of another kind, as protobuf has it."""

    data: bytes


PreparedEvent = Granted | Accepted | Submitted | Encoded


class PreparedCommit(msgspec.Struct, array_like=True, gc=False):
    """A commit of the chain, in the present schema."""

    now_ns: int
    events: list[PreparedEvent]


def prepare(commit: events_pb2.Commit) -> PreparedCommit:
    """What is folded of `commit`, which is of the present schema."""
    return PreparedCommit(commit.now_unix_nanos, [_prepare_event(event) for event in commit.events])


def _prepare_event(event: events_pb2.Event) -> PreparedEvent:
    match event.WhichOneof("event"):
        case "results_accepted":
            return _accepted(event.results_accepted)
        case "leases_granted":
            said = event.leases_granted
            return Granted(said.run_id, said.worker_id, said.tasks[:], said.first_fence, said.attempts[:])
        case "tasks_submitted":
            return _submitted(event.tasks_submitted)
        case _:
            return Encoded(event.SerializeToString())


def _accepted(said: events_pb2.ResultsAccepted) -> Accepted:
    return Accepted(
        said.run_id,
        said.worker_id,
        said.tasks[:],
        said.fences[:],
        said.durations_seconds[:],
        said.all_completed,
        said.verdicts[:],
        said.cases[:],
        said.retried[:],
        said.completed[:],
        said.requeued[:],
    )


def _submitted(said: events_pb2.TasksSubmitted) -> Submitted:
    return Submitted(
        said.run_id,
        said.names[:],
        said.batch,
        said.templates[:],
        said.payloads[:],
        said.expected_seconds[:],
        said.priorities[:],
        said.case_counts[:],
        said.case_names[:],
        said.case_positions[:],
    )
