"""Commits as a coordinator would append them, for tests of whoever reads the log."""

import hashlib

from dtf.api.v1 import events_pb2
from dtf.core.events import run_of, type_of
from dtf.ports.event_log import EventLog
from dtf.ports.subjects import RUNS_HEADER, TYPES_HEADER

START_NS = 1_000_000_000_000_000_000
SECOND_NS = 1_000_000_000


class CommitWriter:
    """Appends a chain of commits, one second apart."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._count = 0
        self._previous = b""

    async def commit(self, *events: events_pb2.Event) -> int:
        """Append one commit; return its sequence."""
        self._count += 1
        commit = events_pb2.Commit(
            commit_id=self._count.to_bytes(16, "big"),
            epoch=1,
            prev_hash=self._previous,
            now_unix_nanos=START_NS + self._count * SECOND_NS,
            events=events,
        )
        payload = commit.SerializeToString()
        self._previous = hashlib.sha256(payload).digest()
        return await self._log.append(
            payload,
            message_id=self._previous.hex(),
            previous_message_id=None,
            expected_last_sequence=None,
            headers=_headers(events),
        )


def _headers(events: tuple[events_pb2.Event, ...]) -> dict[str, str]:
    headers = {TYPES_HEADER: ",".join(sorted({type_of(event) for event in events}))}
    runs = sorted({run_of(event) for event in events} - {""})
    return {**headers, RUNS_HEADER: ",".join(runs)} if runs else headers


def run_created(run_id: str) -> events_pb2.Event:
    """A run began."""
    return events_pb2.Event(run_created=events_pb2.RunCreated(run_id=run_id, suite="suite"))


def run_finished(run_id: str) -> events_pb2.Event:
    """A run ended."""
    return events_pb2.Event(run_finished=events_pb2.RunFinished(run_id=run_id))


def worker_left(worker_id: str) -> events_pb2.Event:
    """A worker went."""
    return events_pb2.Event(worker_left=events_pb2.WorkerLeft(worker_id=worker_id))
