"""Names of streams, subjects and headers on the broker: written here once.

A namespace has four streams, each with subjects of its own:

    DTF_EVENTS_<ns>     dtf.<ns>.log                        the event log, one subject, one writer
    DTF_SCALING_<ns>    dtf.<ns>.scaling.<pool>             decisions of the resource manager
    DTF_TELEMETRY_<ns>  dtf.<ns>.telemetry.<worker>         what workers say of themselves, bounded age
    DTF_ANALYSIS_<ns>   dtf.<ns>.analysis.<kind>            findings of the trend analyzer

a key-value bucket DTF_LEADER_<ns> with the keys `leader` and `standby.<id>` (liveness only), and a
feed that is stored nowhere: dtf.<ns>.live.<run|fleet>.<EventType>, one line of JSON an event.
"""

import re
from enum import Enum

MESSAGE_ID_HEADER = "Nats-Msg-Id"
EXPECTED_LAST_MESSAGE_ID_HEADER = "Nats-Expected-Last-Msg-Id"
EXPECTED_LAST_SEQUENCE_HEADER = "Nats-Expected-Last-Sequence"

RUNS_HEADER = "Dtf-Runs"
"""Runs that a commit's events belong to, separated by commas; absent: none, or too many to name."""
TYPES_HEADER = "Dtf-Types"
"""Types of a commit's events ("TasksSubmitted"), separated by commas, each once."""

FLEET_TOKEN = "fleet"
"""Stands in a live subject where an event belongs to no run."""

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSAFE_IN_TOKEN = re.compile(r"[^A-Za-z0-9_-]")


class RecordKind(Enum):
    """The streams beside the log."""

    SCALING = "scaling"
    TELEMETRY = "telemetry"
    ANALYSIS = "analysis"


def validated_namespace(namespace: str) -> str:
    """`namespace` itself. Raises ValueError if it cannot stand in a stream's name."""
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"namespace {namespace!r} cannot be used; expected 1 to 64 letters, digits, '-' or '_'"
        )
    return namespace


def event_stream(namespace: str) -> str:
    """Name of the stream that holds the event log."""
    return f"DTF_EVENTS_{validated_namespace(namespace)}"


def event_subject(namespace: str) -> str:
    """The one subject of the event log."""
    return f"dtf.{validated_namespace(namespace)}.log"


def snapshot_bucket(namespace: str) -> str:
    """Name of the object store that holds snapshots of the event log."""
    return f"DTF_SNAPSHOTS_{validated_namespace(namespace)}"


def record_stream(kind: RecordKind, namespace: str) -> str:
    """Name of a stream beside the log."""
    return f"DTF_{kind.name}_{validated_namespace(namespace)}"


def record_subjects(kind: RecordKind, namespace: str) -> str:
    """Wildcard over the subjects of a stream beside the log."""
    return f"dtf.{validated_namespace(namespace)}.{kind.value}.>"


def leader_bucket(namespace: str) -> str:
    """Name of the key-value bucket in which a namespace's leader and its standbys say that they live."""
    return f"DTF_LEADER_{validated_namespace(namespace)}"


def scaling_subject(namespace: str, pool: str) -> str:
    """Where decisions about a pool are published."""
    return f"dtf.{validated_namespace(namespace)}.scaling.{subject_token(pool)}"


def telemetry_subject(namespace: str, worker_id: str) -> str:
    """Where samples of a worker are published."""
    return f"dtf.{validated_namespace(namespace)}.telemetry.{subject_token(worker_id)}"


def analysis_subject(namespace: str, kind: str) -> str:
    """Where findings of one kind are published."""
    return f"dtf.{validated_namespace(namespace)}.analysis.{subject_token(kind)}"


def live_subject(namespace: str, run_id: str, event_type: str) -> str:
    """Where an event appears as a line of JSON; `run_id` "" for events of the fleet."""
    return f"dtf.{namespace}.live.{subject_token(run_id) if run_id else FLEET_TOKEN}.{event_type}"


def subject_token(name: str) -> str:
    """`name` as one token of a subject: what a subject cannot hold becomes '_'."""
    return _UNSAFE_IN_TOKEN.sub("_", name) or "_"
