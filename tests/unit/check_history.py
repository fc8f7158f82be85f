"""Recorded logs as lists of commits that may be changed, and put into one chain again."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dtf.adapters.stream_file import StreamFile
from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.check.checker import HistoryChecker
from dtf.core.check.properties import Property
from dtf.core.check.report import CheckReport
from dtf.core.simulation.recording import Recorded, Recording

STREAMS = Path(__file__).parents[1] / "streams"
NAMES = sorted(path.parent.name for path in STREAMS.glob("*/events.dtfstream"))
Message = tuple[int, bytes, str]


def recorded_messages(name: str) -> list[Message]:
    """The log of a scenario as it was stored."""
    with StreamFile(STREAMS / name / "events.dtfstream") as stream:
        return [(message.sequence, message.payload, message.message_id) for message in stream]


def recorded_commits(name: str) -> list[events_pb2.Commit]:
    """The same, read."""
    return [events_pb2.Commit.FromString(payload) for _, payload, _ in recorded_messages(name)]


def recording(name: str) -> Recording:
    """The same, to be forked."""
    return Recording(
        Recorded(sequence, payload, message_id, events_pb2.Commit.FromString(payload))
        for sequence, payload, message_id in recorded_messages(name)
    )


def scaling_decisions(name: str) -> list[scaling_pb2.ScalingDecision]:
    """What the resource manager of a scenario decided."""
    with StreamFile(STREAMS / name / "scaling.dtfstream") as stream:
        return [scaling_pb2.ScalingDecision.FromString(message.payload) for message in stream]


def chained(commits: Sequence[events_pb2.Commit]) -> list[Message]:
    """The commits as messages of one chain; each names the events it has, of one command."""
    messages, previous = [], b""
    for sequence, commit in enumerate((each for each in commits if each.events), 1):
        commit.prev_hash = previous
        payload = commit.SerializeToString()
        previous = hashlib.sha256(payload).digest()
        messages.append((sequence, payload, previous.hex()))
    return messages


def check(
    messages: Sequence[Message], scaling: Sequence[scaling_pb2.ScalingDecision] | None = None
) -> CheckReport:
    """What the checker makes of them."""
    checker = HistoryChecker(scaling=scaling)
    for sequence, payload, message_id in messages:
        checker.take(sequence, payload, message_id)
    return checker.finish()


def violated(report: CheckReport) -> set[Property]:
    """The properties that do not hold."""
    return {each.property for each in report.properties if each.violation_count}


class History:
    """A recorded log to be changed. Indexes count the events of all commits."""

    def __init__(self, name: str) -> None:
        self.commits = recorded_commits(name)
        for commit in self.commits:
            del commit.inputs[:]  # the events of a commit are then one decision

    def places(self) -> Iterator[tuple[int, int]]:
        """Every event: its commit, its place there."""
        for number, commit in enumerate(self.commits):
            for index in range(len(commit.events)):
                yield number, index

    def find(self, kind: str, nth: int = 0) -> tuple[int, int]:
        """The nth event of a kind."""
        found = [
            (number, index)
            for number, index in self.places()
            if self.commits[number].events[index].WhichOneof("event") == kind
        ]
        return found[nth]

    def said(self, kind: str, nth: int = 0) -> Any:
        """What the nth event of a kind says, to be changed."""
        number, index = self.find(kind, nth)
        return getattr(self.commits[number].events[index], kind)

    def drop(self, place: tuple[int, int]) -> events_pb2.Event:
        """Without the event; it."""
        number, index = place
        event = events_pb2.Event()
        event.CopyFrom(self.commits[number].events[index])
        del self.commits[number].events[index]
        return event

    def insert(self, place: tuple[int, int], event: events_pb2.Event) -> None:
        """With one more event."""
        number, index = place
        events = list(self.commits[number].events)
        events.insert(index, event)
        del self.commits[number].events[:]
        self.commits[number].events.extend(events)

    def insert_after(self, place: tuple[int, int], **event: Any) -> None:
        """With one more event after this one, given by its field of Event."""
        self.insert((place[0], place[1] + 1), events_pb2.Event(**event))

    def repeat(self, place: tuple[int, int]) -> None:
        """With the event twice."""
        number, index = place
        event = events_pb2.Event()
        event.CopyFrom(self.commits[number].events[index])
        self.insert((number, index + 1), event)

    def check(self) -> CheckReport:
        """What the checker makes of it."""
        return check(chained(self.commits))
