"""What WatchRun sends: durable commits, filtered, from memory or from the log, and scaling decisions.

A watcher that falls behind the commits kept in memory, because it reads slowly or not at all, waits
by itself: the coordinator holds one message for it and goes on. It reads the log, a slice at a
time, until it has caught up; the writer never waits for one.
"""

from collections.abc import AsyncIterator, Callable, Iterable

from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2, run_service_pb2
from dtf.coordinator.commit_feed import FeedCommit, WatchFilter, feed_commit
from dtf.coordinator.desk import Desk
from dtf.core.run.commands import FieldViolation, InvalidRequest
from dtf.core.run.outline import retired_message
from dtf.core.run.state import RetiredRun, Run
from dtf.core.upcast import read_commit
from dtf.ports.event_log import LogError
from dtf.rpc.encoded import Encoded
from dtf.rpc.errors import LogUnavailableRefusal

SEND_BYTES = 512 * 1024
"""A message closes at about this much of commits."""
FIRST_SLICE = 64
LONGEST_SLICE = 512
"""Commits that are read from the log at once."""
_KINDS = frozenset(field.name for field in events_pb2.Event.DESCRIPTOR.fields)


class Watch:
    """One WatchRun call."""

    def __init__(
        self,
        desk: Desk,
        request: run_service_pb2.WatchRunRequest,
    ) -> None:
        self._desk = desk
        self._run: Run | RetiredRun | None = desk.find(request.run_id) if request.run_id else None
        self._filter = WatchFilter(request.run_id, _kinds(request.event_types), request.omit_details)
        self._position = self._start(request.after_sequence)
        self._slice = FIRST_SLICE
        self._looked_at = 0.0
        self._includes_scaling = request.include_scaling
        self._scaling_since_ns = _created_at_ns(self._run)
        self._scaling_position = (
            0 if self._run is not None and not request.after_sequence else desk.scaling.position
        )

    async def responses(self) -> AsyncIterator[Encoded]:
        """Encoded WatchRunResponses until the run has ended.

        Raises Rejection when the log cannot be read, or does not hold the run any more.
        """
        if self._run is not None and self._desk.feed.after(self._position, 1) is None:
            await self._desk.history.check_held(self._run, self._position)
        with self._desk.audience.seat():
            while True:
                rung = self._desk.bell.next()
                self._looked_at = self._desk.clock.monotonic()
                async for data in self._next_commits():
                    data += self._scaling()
                    if data:
                        yield Encoded(data)
                if self._is_complete():
                    return
                if self._position < self._desk.feed.last_sequence:
                    continue
                if data := self._scaling():
                    yield Encoded(data)
                else:
                    await self._desk.bell.wait(rung)
                    await self._pause()

    def _start(self, after_sequence: int) -> int:
        last = self._desk.feed.last_sequence
        if after_sequence > last:
            text = f"is {after_sequence}, but the log ends at {last}"
            raise InvalidRequest(
                f"after_sequence {text}", violations=[FieldViolation("after_sequence", text)]
            )
        first = self._run.first_sequence - 1 if self._run is not None else 0
        return max(after_sequence, first)

    def _is_complete(self) -> bool:
        run = self._run
        has_ended = isinstance(run, RetiredRun) or (run is not None and run.is_terminal)
        return run is not None and has_ended and self._position >= run.last_sequence

    async def _pause(self) -> None:
        """Wait for this watcher's turn, so that all of them together cost no more than they may."""
        gap = self._desk.audience.gap_seconds
        left = self._looked_at + gap - self._desk.clock.monotonic()
        if gap and left > 0:
            await self._desk.clock.sleep(left)

    # -- commits, encoded

    async def _next_commits(self) -> AsyncIterator[bytes]:
        feed = self._desk.feed
        commits = feed.after(self._position, SEND_BYTES)
        if commits is None:
            for data in self._messages(await self._read_slice(), self._filter.encode):
                yield data
        elif commits:
            for data in self._messages(commits, lambda commit: feed.encoded(commit, self._filter)):
                yield data

    def _messages(
        self, commits: Iterable[FeedCommit], encode: Callable[[FeedCommit], bytes]
    ) -> Iterable[bytes]:
        """Commits put together to messages; the position follows what was handed on."""
        parts: list[bytes] = []
        size = 0
        for commit in commits:
            part = encode(commit)
            if parts and size + len(part) > SEND_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
            if part:
                parts.append(part)
                size += len(part)
            self._position = commit.sequence
        yield b"".join(parts)

    async def _read_slice(self) -> list[FeedCommit]:
        """The next commits of the log, about one message of them. A stranger's messages are passed over."""
        feed, size = self._desk.feed, 0
        found: list[FeedCommit] = []
        while not found and self._position < feed.last_sequence:
            until = min(self._position + self._slice, feed.last_sequence)
            async with self._desk.audience.log_reader:
                try:
                    async for batch in self._desk.event_log.read(self._position, until):
                        for stored in batch:
                            size += len(stored.payload)
                            if stored.sequence not in self._desk.strangers:
                                found.append(_parsed(stored.sequence, stored.payload))
                except (LogError, DecodeError) as error:
                    raise LogUnavailableRefusal(f"the event log cannot be read: {error}") from error
            if not found:
                self._position = until
        if size:
            self._slice = max(16, min(LONGEST_SLICE, SEND_BYTES * len(found) // size))
        return found

    # -- scaling decisions

    def _scaling(self) -> bytes:
        """A response with the decisions that are new; empty: there are none."""
        if not self._includes_scaling or self._scaling_position == self._desk.scaling.position:
            return b""
        kept = self._desk.scaling.after(self._scaling_position, self._scaling_since_ns)
        self._scaling_position = self._desk.scaling.position
        response = run_service_pb2.WatchRunResponse(scaling=[one.decision for one in kept])
        return response.SerializeToString()


def _created_at_ns(run: Run | RetiredRun | None) -> int:
    match run:
        case None:
            return 0
        case Run():
            return run.created_at_ns
        case RetiredRun():
            return int(retired_message(run).created_at * 1e9)


def _parsed(sequence: int, payload: bytes) -> FeedCommit:
    commit = read_commit(payload)
    return feed_commit(sequence, commit.now_unix_nanos, len(payload), commit.events)


def _kinds(names: Iterable[str]) -> frozenset[str] | None:
    """The kinds asked for; None: all. Raises InvalidRequest for a name that no event has."""
    kinds = frozenset(names)
    unknown = sorted(kinds - _KINDS)
    if unknown:
        raise InvalidRequest(
            f"no event is named {unknown[0]!r}",
            violations=[FieldViolation("event_types", f"{name!r} is no field of Event") for name in unknown],
        )
    return kinds or None
