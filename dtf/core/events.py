"""What can be read off an event without knowing its type: its run, its name."""

import hashlib

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2
from dtf.core.upcast import upcast

_COMMIT_ID_BYTES = 16


def run_of(event: events_pb2.Event) -> str:
    """The run an event belongs to; "" for the fleet."""
    kind = event.WhichOneof("event")
    return str(getattr(event, kind).run_id) if kind in _RUN_FIELDS else ""


def type_of(event: events_pb2.Event) -> str:
    """Name of the event's message, as "ResultsAccepted"; "" for one this version does not know."""
    return TYPE_NAMES.get(event.WhichOneof("event") or "", "")


def parse_commit(payload: bytes, message_id: str) -> events_pb2.Commit | None:
    """The commit in a message of the log, or None if a stranger wrote it.

    A commit is stored under the SHA-256 of its bytes. Whether it continues the chain is for
    ChainReader to say; this is for taps that begin anywhere. Events of older schemas are brought up.
    """
    commit = stored_commit(payload, message_id)
    return upcast(commit) if commit is not None else None


def stored_commit(payload: bytes, message_id: str) -> events_pb2.Commit | None:
    """The same as it was stored, events of older schemas too: what any other decoder sees."""
    if message_id != hashlib.sha256(payload).hexdigest():
        return None
    try:
        commit = events_pb2.Commit.FromString(payload)
    except DecodeError:
        return None
    return commit if len(commit.commit_id) == _COMMIT_ID_BYTES and commit.events else None


def _message_types() -> dict[str, Descriptor]:
    """The message type of each field of Event, by the field's name."""
    fields = events_pb2.Event.DESCRIPTOR.fields
    return {field.name: field.message_type for field in fields if field.message_type is not None}


TYPE_NAMES = {name: str(message.name) for name, message in _message_types().items()}
"""Name of each event's message by the name of its field in Event."""
_RUN_FIELDS = frozenset(
    name for name, message in _message_types().items() if "run_id" in message.fields_by_name
)
