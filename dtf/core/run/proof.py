"""A log proved: one chain, the state's hash at its sequences, every decision made again.

    ChainBroken           the log lost or gained history, or forked (dtf/core/chain.py)
    ProofFailed           something in it is not what it must be; says at which sequence, and what

Decisions are derived again for commits of this code version; those of others are folded, and
counted by version. The hash of the state is that of the plain fold, so that it is the same whichever
version reads; where a decision goes on in the next commit there is none.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.core.chain import ChainReader
from dtf.core.events import parse_commit
from dtf.core.run.rederive import Difference, Rederivation
from dtf.core.run.state import State
from dtf.core.run.state_hash import SCHEMA_VERSION, state_hash

HASHES_TITLE = "# dtf state hashes"


class ProofFailed(ValueError):
    """What was found is not what it must be."""

    def __init__(self, sequence: int, what: str) -> None:
        super().__init__(f"at sequence {sequence}: {what}")
        self.sequence = sequence
        self.what = what


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the log and its state are at one sequence."""

    sequence: int
    commit_hash: str
    """SHA-256 of the commit, in hexadecimal digits."""
    state_hash: str

    def as_line(self) -> str:
        """As a line of a file of hashes."""
        return f"{self.sequence} {self.commit_hash} {self.state_hash}"


@dataclass(slots=True)
class Proof:
    """Takes a log message by message. What it says is so of the messages taken so far."""

    code_version: str
    """This code's own: decisions of others are not derived."""
    every: int = 0
    """Hash the state at each sequence that this divides; 0: only when asked."""
    expected: Mapping[int, Checkpoint] = field(default_factory=dict)
    """What another machine found; the state is hashed at these sequences too."""
    derives_all: bool = False
    """Derive the decisions of other versions too."""
    chain: ChainReader = field(default_factory=ChainReader)
    state: State = field(default_factory=State)
    derived_commits: int = 0
    folded_versions: Counter[str] = field(default_factory=Counter)
    """Commits that were folded and not derived, by the version that decided them."""
    stale_sequences: list[int] = field(default_factory=list)
    """Messages that are commits, and do not continue the chain."""
    matched: int = 0
    """Expected hashes that were found."""
    first_sequence: int = 0
    _again: Rederivation = field(init=False)

    def __post_init__(self) -> None:
        self._again = Rederivation(self.state)
        self.first_sequence = self.chain.sequence + 1

    @property
    def input_count(self) -> int:
        """Decisions made again."""
        return self._again.input_count

    def take(self, sequence: int, payload: bytes, message_id: str) -> Checkpoint | None:
        """Take the next message; the checkpoint there, if one is due. Raises ChainBroken, ProofFailed."""
        commit = self.chain.accept(sequence, payload, message_id)
        if commit is None:
            if parse_commit(payload, message_id) is not None:
                self.stale_sequences.append(sequence)
            return None
        self._raise_first(self._follow(commit, sequence))
        expected = self.expected.get(sequence)
        is_due = expected is not None or (self.every > 0 and sequence % self.every == 0)
        if not is_due or not self._again.is_settled:
            return None
        found = self.checkpoint()
        if expected is not None:
            _compare(found, expected)
            self.matched += 1
        return found

    def checkpoint(self) -> Checkpoint:
        """What log and state are now."""
        return Checkpoint(self.chain.sequence, self.chain.last_hash.hex(), state_hash(self.state))

    def finish(self) -> None:
        """The log ends here. Raises ProofFailed if its end cannot be vouched for."""
        if self.chain.commit_count and self.stale_sequences:
            last = max(self.stale_sequences)
            if last == self.chain.sequence:
                raise ProofFailed(
                    last,
                    "the log ends with a commit that does not continue the chain: the commit before it was "
                    "changed, or a coordinator that no longer led wrote it",
                )
        unread = [sequence for sequence in self.expected if sequence > self.chain.sequence]
        if unread:
            raise ProofFailed(
                self.chain.sequence, f"the log ends here; hashes are expected up to {max(unread)}"
            )

    def _follow(self, commit: events_pb2.Commit, sequence: int) -> list[Difference]:
        if self.derives_all or commit.code_version == self.code_version:
            self.derived_commits += 1
            return self._again.follow(commit, sequence)
        self.folded_versions[commit.code_version or "unknown"] += 1
        return self._again.fold(commit, sequence)

    @staticmethod
    def _raise_first(differences: list[Difference]) -> None:
        if differences:
            first = differences[0]
            what = f"{first.kind or 'the commit'} {first.what}"
            raise ProofFailed(first.sequence, f"decided again, {what}")


def _compare(found: Checkpoint, expected: Checkpoint) -> None:
    if expected.commit_hash != found.commit_hash:
        raise ProofFailed(
            found.sequence,
            f"the commit is another: its hash is {found.commit_hash}, expected {expected.commit_hash}; "
            "these are two logs, or one was changed",
        )
    if expected.state_hash != found.state_hash:
        raise ProofFailed(
            found.sequence,
            f"the commits are the same and the state is not: its hash is {found.state_hash}, expected "
            f"{expected.state_hash}; two versions of dtf fold this log differently, `dtf --version` names them",
        )


def hashes_header(namespace: str) -> str:
    """The first line of a file of hashes."""
    return f"{HASHES_TITLE} schema {SCHEMA_VERSION} namespace {namespace}"


def parse_hashes(lines: Iterator[str]) -> dict[int, Checkpoint]:
    """The checkpoints of a file of hashes. Raises ValueError."""
    title = next(lines, "").split()
    if title[:4] != HASHES_TITLE.split() or len(title) < 6:
        raise ValueError("it is no file of `dtf replay --hashes`")
    if title[5] != str(SCHEMA_VERSION):
        raise ValueError(
            f"its hashes are of schema {title[5]}, this dtf hashes by schema {SCHEMA_VERSION}; "
            "write it anew with this version"
        )
    found: dict[int, Checkpoint] = {}
    for number, line in enumerate(lines, 2):
        words = line.split()
        if len(words) != 3 or not words[0].isdecimal() or len(words[0]) > 18:
            raise ValueError(f"line {number} is {line[:80]!r}; expected a sequence and two hashes")
        found[int(words[0])] = Checkpoint(int(words[0]), words[1], words[2])
    return found
