"""The chain of the log, checked without the coordinator's own reader: a fault is noted, not raised.

A message that is no commit or continues no chain is a stranger's, and passed over. When a later
commit builds on one that was passed over, the log forked: that is a violation, and the checker
goes on along the newer branch.
"""

import hashlib
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_REMEMBERED = 10_000


@dataclass(slots=True)
class ChainBook:
    """Where the chain stands."""

    sequence: int = 0
    last_hash: bytes = b""
    commit_count: int = 0
    stranger_count: int = 0
    _passed_over: dict[bytes, int] = field(default_factory=dict)

    def take(
        self, findings: Findings, sequence: int, payload: bytes, message_id: str
    ) -> events_pb2.Commit | None:
        """The commit in the message, or None for a stranger's."""
        expected = self.sequence + 1
        what = f"message {sequence} follows message {self.sequence}; those between are missing"
        is_adjacent = findings.expect(Property.CHAIN, sequence == expected, what)
        self.sequence = sequence
        digest = hashlib.sha256(payload).digest()
        commit = _parse(payload) if message_id == digest.hex() else None
        if commit is None:
            self.stranger_count += 1
            return None
        if commit.prev_hash != self.last_hash and not self._rejoins(findings, commit, is_adjacent):
            self.stranger_count += 1
            if len(self._passed_over) < _REMEMBERED:
                self._passed_over[digest] = sequence
            return None
        self.last_hash = digest
        self.commit_count += 1
        return commit

    def _rejoins(self, findings: Findings, commit: events_pb2.Commit, is_adjacent: bool) -> bool:
        """Whether a commit that does not continue the chain is to be followed all the same."""
        base = self._passed_over.get(commit.prev_hash)
        if base is not None:
            findings.note(
                Property.CHAIN, f"the commit builds on message {base}, which continues no chain: a fork"
            )
            return True
        return not is_adjacent


def _parse(payload: bytes) -> events_pb2.Commit | None:
    try:
        commit = events_pb2.Commit.FromString(payload)
    except DecodeError:
        return None
    return commit if len(commit.commit_id) == 16 and commit.events else None
