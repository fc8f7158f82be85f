"""What a log lost, as far as the spool and the snapshots of this machine know it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dtf.api.v1 import events_pb2
from dtf.core.events import run_of
from dtf.ports.spool import SpoolContents, SpooledCommit, SpoolMark


@dataclass(slots=True)
class SpooledChain:
    """The spooled commits that continue the log where it ends now, in order."""

    commits: list[SpooledCommit] = field(default_factory=list)
    acknowledged_count: int = 0
    """How many of them, from the first, the log had acknowledged."""

    @property
    def acknowledged(self) -> Sequence[SpooledCommit]:
        """Those that effects may rest on."""
        return self.commits[: self.acknowledged_count]


def parse(commit: SpooledCommit) -> events_pb2.Commit:
    """The commit in a record of the spool, which is what this coordinator wrote."""
    return events_pb2.Commit.FromString(commit.payload)


def chain_from(contents: SpoolContents, last_hash: bytes) -> SpooledChain:
    """The spooled commits that continue a log whose last commit has `last_hash`.

    Where two reigns left a commit each for one place, the one that was acknowledged is the log's;
    if neither was, the later reign's.
    """
    by_id = {commit.message_id: commit for commit in contents.commits}
    previous = {commit.message_id: parse(commit).prev_hash.hex() for commit in contents.commits}
    acknowledged = _longest(
        _back_to(mark.message_id, last_hash.hex(), by_id, previous) for mark in contents.marks
    )
    end = acknowledged[-1].message_id if acknowledged else last_hash.hex()
    return SpooledChain(acknowledged + _forward_from(end, contents.commits, previous), len(acknowledged))


def _longest(chains: Iterable[list[SpooledCommit]]) -> list[SpooledCommit]:
    return max(chains, key=len, default=[])


def _back_to(
    message_id: str, stop: str, by_id: Mapping[str, SpooledCommit], previous: Mapping[str, str]
) -> list[SpooledCommit]:
    """The commits after `stop` up to `message_id`; none if the spool does not lead there."""
    found: list[SpooledCommit] = []
    while message_id != stop:
        commit = by_id.get(message_id)
        if commit is None:
            return []
        found.append(commit)
        message_id = previous[message_id]
    return found[::-1]


def _forward_from(
    message_id: str, commits: Sequence[SpooledCommit], previous: Mapping[str, str]
) -> list[SpooledCommit]:
    following: dict[str, list[SpooledCommit]] = {}
    for commit in commits:
        following.setdefault(previous[commit.message_id], []).append(commit)
    found: list[SpooledCommit] = []
    while message_id in following:
        latest = max(following.pop(message_id), key=lambda commit: parse(commit).epoch)
        found.append(latest)
        message_id = latest.message_id
    return found


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something of this machine that the log once said and says no more."""

    sequence: int
    message_id: str
    source: str
    """What holds it: "the spool", "the snapshot in …"."""


def evidence_of(mark: SpoolMark, where: str) -> Evidence:
    """A mark as evidence."""
    return Evidence(mark.sequence, mark.message_id, f"the spool {where}")


@dataclass(slots=True)
class Loss:
    """The end of the log that is gone."""

    after_sequence: int
    """The log ends here, or goes on otherwise from here."""
    evidence: Sequence[Evidence]
    spooled: SpooledChain
    replaced_by: str = ""
    """What stands in its place; "": nothing."""
    damage: Sequence[str] = ()

    @property
    def through(self) -> Evidence:
        """The last thing known to be lost."""
        return max(self.evidence, key=lambda item: item.sequence)

    @property
    def is_restorable(self) -> bool:
        """Whether the spool holds all that is known to be lost, and nothing stands in its place."""
        ids = {commit.message_id for commit in self.spooled.commits}
        return not self.replaced_by and all(item.message_id in ids for item in self.evidence)

    def lines(self) -> list[str]:
        """For an operator, without what can be done about it."""
        first, last = self.after_sequence + 1, self.through.sequence
        lines = [
            f"the event log lost messages {first} to {last} ({last - first + 1} commits that it had acknowledged)"
        ]
        lines.append(
            f"in their place stands {self.replaced_by}"
            if self.replaced_by
            else f"the log ends at {self.after_sequence}; {self.through.source} knows it up to {last}"
        )
        if self.spooled.commits:
            lines.append(f"in the spool of this machine are {_contents(self.spooled.commits)}")
        else:
            lines.append("the spool of this machine holds none of them")
        return [*lines, *(f"damaged in the spool: {what}" for what in self.damage)]


def _contents(commits: Sequence[SpooledCommit]) -> str:
    parsed = [parse(commit) for commit in commits]
    events = [event for commit in parsed for event in commit.events]
    runs = {run_of(event) for event in events} - {""}
    submitted = sum(len(event.tasks_submitted.names) for event in events)
    verdicts = sum(len(event.results_accepted.tasks) for event in events)
    return (
        f"{len(commits)} of {_time(parsed[0].now_unix_nanos)} to {_time(parsed[-1].now_unix_nanos)}, with "
        f"{submitted} tasks submitted and {verdicts} verdicts in {len(runs)} runs{_named(sorted(runs))}"
    )


def _named(runs: Sequence[str]) -> str:
    shown = ", ".join(runs[:5])
    return f" ({shown}{' …' if len(runs) > 5 else ''})" if runs else ""


def _time(unix_nanos: int) -> str:
    return datetime.fromtimestamp(unix_nanos / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
