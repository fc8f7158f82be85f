"""A log of commands, decided and chained as a coordinator's writer does it, without one."""

from collections.abc import Sequence

from dtf.coordinator.commits import Step, serialize
from dtf.core.run.commands import Command
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.state import State
from dtf.ports.event_log import StoredCommit

SECOND = 1_000_000_000


class CommandLog:
    """Each command is one commit, a second after the one before."""

    def __init__(self, code_version: str = "test") -> None:
        self.messages: list[StoredCommit] = []
        self.state = State()
        self._code_version = code_version
        self._previous = b""
        self._now_ns = 1_000 * SECOND

    def do(self, *commands: Command) -> None:
        """Decide, fold and append; a command without events leaves nothing."""
        for command in commands:
            self._now_ns += SECOND
            events = decide(self.state, command, self._now_ns)
            if not events:
                continue
            sequence = len(self.messages) + 1
            for event in events:
                evolve(self.state, event, self._now_ns, sequence)
            payload, message_id = serialize(
                commit_id=sequence.to_bytes(16, "big"),
                epoch=self.state.epoch,
                previous_hash=self._previous,
                now_ns=self._now_ns,
                code_version=self._code_version,
                steps=[Step(command, events, None)],
                events=events,
            )
            self._previous = bytes.fromhex(message_id)
            self.messages.append(StoredCommit(sequence, payload, message_id, {}))

    def between(self, after: int, until: int | None = None) -> Sequence[StoredCommit]:
        """Messages with `after` < sequence <= `until`."""
        return self.messages[after:until]
