"""The hash chain of the log, read message by message.

A commit carries the SHA-256 of the serialized commit before it, and is stored under its own. A
message that is no commit, or does not continue the chain, is a stranger's: counted and passed
over. A gap, or a fork that later commits build on, means that the log lost or gained history:
nothing read from it may be trusted.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2
from dtf.core.upcast import EVENT_SCHEMA, upcast

_REMEMBERED_STRANGERS = 10_000


class ChainBroken(ValueError):
    """The log is not one unbroken chain; the message says where and what was seen."""


class LogTooNew(ChainBroken):
    """A later version of dtf wrote this: what it means here is not known."""


@dataclass(slots=True)
class ChainReader:
    """Where the chain stands after the messages accepted so far."""

    sequence: int = 0
    """Sequence of the last message seen, strangers' included."""
    last_hash: bytes = b""
    """SHA-256 of the last commit; empty before the first."""
    epoch: int = 0
    now_ns: int = 0
    commit_count: int = 0
    stranger_sequences: set[int] = field(default_factory=set)
    """Sequences of the messages passed over."""
    _strangers: dict[bytes, int] = field(default_factory=dict)

    def accept(self, sequence: int, payload: bytes, message_id: str) -> events_pb2.Commit | None:
        """The commit in this message, its events those of the present schema; None for a stranger's.

        Raises ChainBroken.
        """
        if sequence != self.sequence + 1:
            raise ChainBroken(
                f"the log has no message {self.sequence + 1} (the next is {sequence}); "
                "history before it was lost or archived"
            )
        self.sequence = sequence
        digest = hashlib.sha256(payload)
        commit = self._parse(payload)
        if (
            commit is None
            or message_id != digest.hexdigest()
            or commit.prev_hash != self.last_hash
            or (epoch := commit.epoch) < self.epoch
            or (now_ns := commit.now_unix_nanos) < self.now_ns
        ):
            self._pass_over(sequence, commit, digest.digest())
            return None
        self.last_hash, self.epoch, self.now_ns = digest.digest(), epoch, now_ns
        self.commit_count += 1
        if commit.schema_version != EVENT_SCHEMA:
            _bring_up(commit, sequence)
        return commit

    def follow(self, commits: int, last_hash: bytes, epoch: int, now_ns: int) -> None:
        """Go on past `commits` messages, all of them commits, that another reader of this chain accepted."""
        self.sequence += commits
        self.commit_count += commits
        self.last_hash, self.epoch, self.now_ns = last_hash, epoch, now_ns

    @property
    def strangers(self) -> Mapping[bytes, int]:
        """SHA-256 and sequence of the commits among the strangers' messages, as far as they are remembered."""
        return self._strangers

    @classmethod
    def resume(
        cls, sequence: int, last_hash: bytes, epoch: int, now_ns: int, strangers: Mapping[bytes, int]
    ) -> "ChainReader":
        """A reader that judges what comes next as the one that stands there would; it counts anew."""
        return cls(sequence, last_hash, epoch, now_ns, _strangers=dict(strangers))

    def _pass_over(self, sequence: int, commit: events_pb2.Commit | None, digest: bytes) -> None:
        self.stranger_sequences.add(sequence)
        if commit is None:
            return
        base = self._strangers.get(commit.prev_hash)
        if base is not None:
            raise ChainBroken(
                f"message {sequence} builds on message {base}, which does not continue the chain: "
                "the log forked there; restore it from an export that verifies"
            )
        if len(self._strangers) < _REMEMBERED_STRANGERS:
            self._strangers[digest] = sequence

    @staticmethod
    def _parse(payload: bytes) -> events_pb2.Commit | None:
        try:
            commit = events_pb2.Commit.FromString(payload)
        except DecodeError:
            return None
        return commit if len(commit.commit_id) == 16 and commit.events else None


def _bring_up(commit: events_pb2.Commit, sequence: int) -> None:
    if commit.schema_version > EVENT_SCHEMA:
        raise LogTooNew(
            f"commit {sequence} was written by dtf {commit.code_version} with events of schema version "
            f"{commit.schema_version}; this dtf reads up to {EVENT_SCHEMA}: install one as new as that"
        )
    upcast(commit)
