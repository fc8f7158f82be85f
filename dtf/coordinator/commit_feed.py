"""The newest durable commits in memory, for watchers that keep up; those that do not read the log.

What one watcher is sent of a commit is kept for the next that asks for the same: a hundred watchers
of a run cost one encoding.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from dtf.api.v1 import events_pb2, run_service_pb2
from dtf.coordinator.bell import Bell
from dtf.coordinator.commits import kind_of
from dtf.core.events import run_of

MAX_FEED_COMMITS = 4096
MAX_FEED_BYTES = 32 * 2**20
"""About a second of commits at the aimed throughput."""
MAX_ENCODED_BYTES = 8 * 2**20
"""Of commits as watchers were sent them: those who keep up ask within milliseconds of each other."""
_ENCODED_OVERHEAD_BYTES = 256

_DETAILED = ("results_accepted", "attempts_ended")


@dataclass(slots=True)
class FeedCommit:
    """A durable commit as watchers see it."""

    sequence: int
    now_ns: int
    size_bytes: int
    events: Sequence[tuple[str, str, events_pb2.Event]]
    """(run, kind, event) of each."""
    _bare: dict[int, events_pb2.Event] = field(default_factory=dict)

    def without_details(self, index: int) -> events_pb2.Event:
        """An event without its CaseDetail columns; copied once, for all watchers."""
        _run, kind, event = self.events[index]
        if kind not in _DETAILED or not getattr(event, kind).details:
            return event
        bare = self._bare.get(index)
        if bare is None:
            bare = events_pb2.Event()
            bare.CopyFrom(event)
            getattr(bare, kind).ClearField("details")
            self._bare[index] = bare
        return bare


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Which events a watcher hears of, and how much of them."""

    run_id: str = ""
    """Only this run's; empty: all."""
    kinds: frozenset[str] | None = None
    """Only these kinds; None: all."""
    omits_details: bool = False

    def encode(self, commit: FeedCommit) -> bytes:
        """A WatchRunResponse with what passes of one commit; empty: nothing does.

        Encoded messages put together are a message with the entries of all of them.
        """
        events = [
            commit.without_details(index) if self.omits_details else event
            for index, (run_id, kind, event) in enumerate(commit.events)
            if self._passes(run_id, kind)
        ]
        if not events:
            return b""
        watched = run_service_pb2.WatchedCommit(
            log_sequence=commit.sequence, now_unix_nanos=commit.now_ns, events=events
        )
        return run_service_pb2.WatchRunResponse(commits=[watched]).SerializeToString()

    def _passes(self, run_id: str, kind: str) -> bool:
        if self.run_id and run_id != self.run_id:
            return False
        return self.kinds is None or kind in self.kinds


def feed_commit(
    sequence: int, now_ns: int, size_bytes: int, events: Sequence[events_pb2.Event]
) -> FeedCommit:
    """A commit with its events sorted out."""
    sorted_out = tuple((run_of(event), kind_of(event), event) for event in events)
    return FeedCommit(sequence, now_ns, size_bytes, sorted_out)


class CommitFeed:
    """A bounded ring of commits, oldest first. It rings a bell at each."""

    def __init__(
        self,
        last_sequence: int,
        bell: Bell,
        *,
        max_commits: int = MAX_FEED_COMMITS,
        max_bytes: int = MAX_FEED_BYTES,
    ) -> None:
        self._commits: deque[FeedCommit] = deque()
        self._bytes = 0
        self._max_commits = max_commits
        self._max_bytes = max_bytes
        self._last_sequence = last_sequence
        self._bell = bell
        self._encoded: OrderedDict[tuple[int, WatchFilter], bytes] = OrderedDict()
        self._encoded_bytes = 0

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest commit."""
        return self._last_sequence

    def publish(self, commit: FeedCommit) -> None:
        """Add a durable commit and wake whoever waits."""
        self._commits.append(commit)
        self._bytes += commit.size_bytes
        self._last_sequence = commit.sequence
        while len(self._commits) > self._max_commits or self._bytes > self._max_bytes:
            self._bytes -= self._commits.popleft().size_bytes
        self._bell.ring()

    def after(self, sequence: int, limit_bytes: int) -> list[FeedCommit] | None:
        """Commits after `sequence`, about `limit_bytes` of them; None if some have left the ring."""
        if sequence >= self._last_sequence:
            return []
        if not self._commits or sequence + 1 < self._commits[0].sequence:
            return None
        start = max(0, sequence + 1 - self._commits[0].sequence)
        taken: list[FeedCommit] = []
        size = 0
        for commit in islice(self._commits, start, None):
            if size >= limit_bytes:
                break
            taken.append(commit)
            size += commit.size_bytes
        return taken

    def encoded(self, commit: FeedCommit, wanted: WatchFilter) -> bytes:
        """What passes of a commit, encoded once for all who want the same of it."""
        key = commit.sequence, wanted
        data = self._encoded.get(key)
        if data is None:
            data = self._encoded[key] = wanted.encode(commit)
            self._encoded_bytes += len(data) + _ENCODED_OVERHEAD_BYTES
            while self._encoded_bytes > MAX_ENCODED_BYTES:
                _key, dropped = self._encoded.popitem(last=False)
                self._encoded_bytes -= len(dropped) + _ENCODED_OVERHEAD_BYTES
        return data
