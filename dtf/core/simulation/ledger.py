"""The simulated log: commits are appended at once and durable a little later; a crash may lose those in flight."""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.core.run.commands import Command
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.core.simulation.recording import Recorded

Arguments = Callable[[Command], bytes]
"""What a commit says of a command beyond its events (dtf/coordinator/inputs.py)."""


@dataclass(slots=True)
class Ledger:
    """The end of the log, and the commits that are not durable yet."""

    arguments: Arguments
    code_version: str
    max_commit_bytes: int
    """Of events; a decision with more is spread over several commits."""
    sequence: int
    last_hash: bytes
    now_ns: int
    epoch: int
    nonce: bytes
    counter: int
    durable: list[Recorded] = field(default_factory=list)
    """Commits after the fork."""
    pending: deque[Recorded] = field(default_factory=deque)

    @classmethod
    def after(
        cls, last: Recorded | None, arguments: Arguments, code_version: str, max_commit_bytes: int
    ) -> "Ledger":
        """The log as it ends with `last`; its writer goes on."""
        if last is None:
            return cls(arguments, code_version, max_commit_bytes, 0, b"", 0, 0, b"", 0)
        commit = last.commit
        return cls(
            arguments,
            code_version,
            max_commit_bytes,
            last.sequence,
            bytes.fromhex(last.message_id),
            commit.now_unix_nanos,
            commit.epoch,
            commit.commit_id[:8],
            int.from_bytes(commit.commit_id[8:], "big"),
        )

    def time(self, now_ns: int) -> int:
        """The coordinator's time now: it never repeats."""
        return max(now_ns, self.now_ns + 1)

    def append(
        self, state: State, command: Command, events: Sequence[events_pb2.Event], now_ns: int
    ) -> list[Recorded]:
        """Cut the commits of one decision, evolving the state; they are pending now."""
        self.now_ns = now_ns
        parts: list[list[events_pb2.Event]] = [[]]
        size = 0
        for event in events:
            weight = event.ByteSize()
            if size and size + weight > self.max_commit_bytes:
                parts.append([])
                size = 0
            parts[-1].append(event)
            size += weight
        cut = [
            self._cut(command, part, now_ns, continues=index < len(parts))
            for index, part in enumerate(parts, 1)
        ]
        for each in cut:
            for event in each.commit.events:
                evolve(state, event, now_ns, each.sequence)
        self.pending.extend(cut)
        return cut

    def _cut(
        self, command: Command, events: Sequence[events_pb2.Event], now_ns: int, *, continues: bool
    ) -> Recorded:
        self.counter += 1
        self.sequence += 1
        source = events_pb2.Input(
            kind=type(command).__name__,
            event_count=len(events),
            arguments=self.arguments(command),
            continues=continues,
        )
        commit = events_pb2.Commit(
            commit_id=self.nonce + self.counter.to_bytes(8, "big"),
            epoch=self.epoch,
            prev_hash=self.last_hash,
            now_unix_nanos=now_ns,
            code_version=self.code_version,
            inputs=[source],
            events=events,
        )
        payload = commit.SerializeToString(deterministic=True)
        self.last_hash = hashlib.sha256(payload).digest()
        return Recorded(self.sequence, payload, self.last_hash.hex(), commit)

    def land(self, last: Recorded) -> list[Recorded]:
        """Everything up to `last` is durable; what became so."""
        landed: list[Recorded] = []
        while self.pending and self.pending[0].sequence <= last.sequence:
            landed.append(self.pending.popleft())
        self.durable.extend(landed)
        return landed

    def cut_off(self, landing: int, before: Recorded | None) -> None:
        """The writer dies: the first `landing` of the pending commits land, the others are lost."""
        for _ in range(min(landing, len(self.pending))):
            self.durable.append(self.pending.popleft())
        self.pending.clear()
        last = self.durable[-1] if self.durable else before
        if last is not None:
            self.sequence, self.last_hash = last.sequence, bytes.fromhex(last.message_id)

    def succeed(self, epoch: int, nonce: bytes) -> None:
        """A new writer, of this epoch."""
        self.epoch = epoch
        self.nonce, self.counter = nonce, -1
