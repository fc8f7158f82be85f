"""What WatchRun sends: durable commits, filtered, from memory or from the log, and scaling decisions.

A watcher that falls behind the commits kept in memory reads the log until it has caught up; the
writer never waits for one.
"""

from collections.abc import AsyncIterator, Iterable

from google.protobuf.message import DecodeError

from dtf.api.v1 import events_pb2, run_service_pb2
from dtf.coordinator.commit_feed import FeedCommit, feed_commit
from dtf.coordinator.desk import Desk
from dtf.core.run.commands import FieldViolation, InvalidRequest
from dtf.core.run.state import Run
from dtf.ports.event_log import LogError
from dtf.rpc.errors import LogUnavailableRefusal

SEND_BYTES = 512 * 1024
"""A message closes at about this much of commits."""
_KINDS = frozenset(field.name for field in events_pb2.Event.DESCRIPTOR.fields)


class Watch:
    """One WatchRun call."""

    def __init__(
        self,
        desk: Desk,
        request: run_service_pb2.WatchRunRequest,
    ) -> None:
        self._desk = desk
        self._run: Run | None = desk.run(request.run_id) if request.run_id else None
        self._run_id = request.run_id
        self._kinds = _kinds(request.event_types)
        self._omits_details = request.omit_details
        self._position = self._start(request.after_sequence)
        self._includes_scaling = request.include_scaling
        self._scaling_since_ns = self._run.created_at_ns if self._run is not None else 0
        self._scaling_position = (
            0 if self._run is not None and not request.after_sequence else desk.scaling.position
        )

    async def responses(self) -> AsyncIterator[run_service_pb2.WatchRunResponse]:
        """Messages until the run has ended. Raises Rejection when the log cannot be read."""
        while True:
            rung = self._desk.bell.next()
            async for commits in self._next_commits():
                response = run_service_pb2.WatchRunResponse(commits=self._filtered(commits))
                self._position = commits[-1].sequence
                self._add_scaling(response)
                if response.commits or response.scaling:
                    yield response
            if self._is_complete():
                return
            if self._position < self._desk.feed.last_sequence:
                continue
            scaling = run_service_pb2.WatchRunResponse()
            self._add_scaling(scaling)
            if scaling.scaling:
                yield scaling
            else:
                await self._desk.bell.wait(rung)

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
        return run is not None and run.is_terminal and self._position >= run.last_sequence

    async def _next_commits(self) -> AsyncIterator[list[FeedCommit]]:
        commits = self._desk.feed.after(self._position, SEND_BYTES)
        if commits is None:
            async for batch in self._read_log():
                yield batch
        elif commits:
            yield commits

    async def _read_log(self) -> AsyncIterator[list[FeedCommit]]:
        try:
            async for batch in self._desk.event_log.read(self._position, self._desk.feed.last_sequence):
                taken: list[FeedCommit] = []
                size = 0
                for stored in batch:
                    if stored.sequence in self._desk.strangers:
                        continue
                    commit = events_pb2.Commit.FromString(stored.payload)
                    size += len(stored.payload)
                    taken.append(
                        feed_commit(
                            stored.sequence, commit.now_unix_nanos, len(stored.payload), commit.events
                        )
                    )
                    if size >= SEND_BYTES:
                        yield taken
                        taken, size = [], 0
                if taken:
                    yield taken
        except (LogError, DecodeError) as error:
            raise LogUnavailableRefusal(f"the event log cannot be read: {error}") from error

    def _filtered(self, commits: Iterable[FeedCommit]) -> list[run_service_pb2.WatchedCommit]:
        watched = []
        for commit in commits:
            events = [
                commit.without_details(index) if self._omits_details else event
                for index, (run_id, kind, event) in enumerate(commit.events)
                if self._concerns(run_id, kind)
            ]
            if events:
                watched.append(
                    run_service_pb2.WatchedCommit(
                        log_sequence=commit.sequence, now_unix_nanos=commit.now_ns, events=events
                    )
                )
        return watched

    def _concerns(self, run_id: str, kind: str) -> bool:
        if self._run_id and run_id != self._run_id:
            return False
        return self._kinds is None or kind in self._kinds

    def _add_scaling(self, response: run_service_pb2.WatchRunResponse) -> None:
        if not self._includes_scaling:
            return
        for kept in self._desk.scaling.after(self._scaling_position, self._scaling_since_ns):
            response.scaling.append(kept.decision)
        self._scaling_position = self._desk.scaling.position


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
