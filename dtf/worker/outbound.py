"""What the worker has to say, from the moment it knows it until the coordinator has it for good.

Results, ends and releases gather here; `next_message` packs what has gathered, at most 256 items
or 1 MiB, numbers it and keeps it until its number is acknowledged. After a broken connection every
message not acknowledged is said again, in order, under its old number.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from dtf.api.v1 import common_pb2, worker_service_pb2
from dtf.runner.channel import ResultItem

MAX_ITEMS = 256
MAX_BYTES = 2**20
PACE_SECONDS = 0.004
"""Mere results are said no sooner than this after what was said before, unless a message is full: it
costs both sides some 150 µs, whatever its size."""
T = TypeVar("T")
_PASSED = common_pb2.VERDICT_PASSED


class Outbound:
    """The worker's side of one session's upward stream."""

    def __init__(
        self, on_durable: Callable[[worker_service_pb2.AttachRequest], None] = lambda message: None
    ) -> None:
        self._on_durable = on_durable
        self._results: deque[tuple[str, ResultItem, bytes, bool]] = deque()
        self._ends: deque[worker_service_pb2.AttemptEnd] = deque()
        self._released: deque[int] = deque()
        self._unacknowledged: deque[tuple[worker_service_pb2.AttachRequest, list[int]]] = deque()
        self._unacknowledged_fences: set[int] = set()
        self._unsent_index = 0
        self._sequence = 0
        self._is_heartbeat_due = False
        self._telemetry: worker_service_pb2.Telemetry | None = None
        self._woken = asyncio.Event()
        self._due = asyncio.Event()
        """There is a full message, or more than results."""

    # What there is to say.

    def add_result(self, run_id: str, item: ResultItem, detail: bytes, *, is_last: bool) -> None:
        """A case ended; `is_last`: its attempt is thereby reported in full."""
        self._results.append((run_id, item, detail, is_last))
        if len(self._results) >= MAX_ITEMS:
            self._due.set()
        self._woken.set()

    def add_end(self, end: worker_service_pb2.AttemptEnd) -> None:
        """An attempt ended otherwise than by reporting every case."""
        self._ends.append(end)
        self._woken.set()
        self._due.set()

    def add_released(self, fences: Iterable[int]) -> None:
        """Leases are given back."""
        self._released.extend(fences)
        self._woken.set()
        self._due.set()

    def beat(self, telemetry: worker_service_pb2.Telemetry | None = None) -> None:
        """Something is to be said soon, if only that the worker lives."""
        self._is_heartbeat_due = True
        self._telemetry = telemetry or self._telemetry
        self._woken.set()
        self._due.set()

    # Saying it.

    async def wait(self) -> None:
        """Return when there is something to say."""
        while not self.has_more:
            self._woken.clear()
            await self._woken.wait()

    async def until_due(self, at: float) -> None:
        """Return when what there is to say cannot wait, or at `at` of the loop's time."""
        self._due.clear()
        if self.can_wait and at > asyncio.get_running_loop().time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(at):
                    await self._due.wait()

    @property
    def has_more(self) -> bool:
        """Whether there is something to say."""
        return bool(
            self._unsent_index < len(self._unacknowledged)
            or self._results
            or self._ends
            or self._released
            or self._is_heartbeat_due
        )

    @property
    def can_wait(self) -> bool:
        """Whether there is nothing to say but new results, and not a message full of them."""
        is_mere_results = not (self._ends or self._released or self._is_heartbeat_due)
        is_new = self._unsent_index == len(self._unacknowledged)
        return is_new and is_mere_results and len(self._results) < MAX_ITEMS

    @property
    def is_settled(self) -> bool:
        """Whether everything was said and acknowledged."""
        return not (self._unacknowledged or self._results or self._ends or self._released)

    @property
    def unacknowledged_count(self) -> int:
        """Messages that were packed and are not known to be durable."""
        return len(self._unacknowledged)

    @property
    def first_unacknowledged(self) -> int:
        """Number of the first of them; 0: there is none."""
        return self._unacknowledged[0][0].sequence if self._unacknowledged else 0

    @property
    def next_sequence(self) -> int:
        """Number of the message that is said first after `rewind`."""
        return self.first_unacknowledged or self._sequence + 1

    @property
    def unacknowledged_fences(self) -> set[int]:
        """Fences of leases reported in full, or about to be, as far as that is not known to be durable."""
        waiting = {item.fence for _, item, _, is_last in self._results if is_last}
        waiting.update(end.fence for end in self._ends)
        waiting.update(self._released)
        return self._unacknowledged_fences | waiting

    def is_unacknowledged(self, fence: int) -> bool:
        """Whether a lease was said to be over and that is not known to be durable."""
        return fence in self._unacknowledged_fences

    def next_message(
        self, credits: int, state: "common_pb2.WorkerState.ValueType"
    ) -> worker_service_pb2.AttachRequest:
        """The next message: one said before and lost, a new one, or a mere heartbeat."""
        self._is_heartbeat_due = False
        if self._unsent_index < len(self._unacknowledged):
            message = self._unacknowledged[self._unsent_index][0]
            self._unsent_index += 1
        else:
            message = self._pack()
        message.credits = credits
        message.state = state
        message.ClearField("telemetry")
        if self._telemetry is not None:
            message.telemetry.CopyFrom(self._telemetry)
            self._telemetry = None
        return message

    def _pack(self) -> worker_service_pb2.AttachRequest:
        message = worker_service_pb2.AttachRequest()
        fences = self._pack_results(message)
        is_said = bool(message.results)
        ends = _take(self._ends, MAX_ITEMS)
        message.ends.extend(ends)
        released = _take(self._released, MAX_ITEMS)
        message.released_fences.extend(released)
        fences += [end.fence for end in ends]
        fences += released
        if fences or is_said:
            self._sequence += 1
            message.sequence = self._sequence
            self._unacknowledged.append((message, fences))
            self._unacknowledged_fences.update(fences)
            self._unsent_index = len(self._unacknowledged)
        return message

    def _pack_results(self, message: worker_service_pb2.AttachRequest) -> list[int]:
        """Put results into the message; return the fences reported in full with them."""
        by_run: dict[str, list[tuple[ResultItem, bytes]]] = {}
        fences = []
        count = size = 0
        while self._results and count < MAX_ITEMS and size < MAX_BYTES:
            run_id, item, detail, is_last = self._results.popleft()
            by_run.setdefault(run_id, []).append((item, detail))
            if is_last:
                fences.append(item.fence)
            count += 1
            size += 64 + len(detail)
        message.results.extend(pack_results(run_id, entries) for run_id, entries in by_run.items())
        return fences

    # What came back.

    def acknowledge(self, sequence: int) -> None:
        """Everything up to `sequence` is durable."""
        while self._unacknowledged and self._unacknowledged[0][0].sequence <= sequence:
            message, fences = self._unacknowledged.popleft()
            self._on_durable(message)
            self._unacknowledged_fences.difference_update(fences)
            self._unsent_index = max(0, self._unsent_index - 1)

    def rewind(self) -> None:
        """The connection broke: say again what was not acknowledged, as it was said."""
        self._unsent_index = 0
        for message, _ in self._unacknowledged:
            message.ClearField("session")
        self._woken.set()


def pack_results(run_id: str, entries: list[tuple[ResultItem, bytes]]) -> worker_service_pb2.CaseResults:
    """Results of one run in columns; columns of defaults are left empty."""
    items = [item for item, _ in entries]
    columns = worker_service_pb2.CaseResults(
        run_id=run_id,
        fences=[item.fence for item in items],
        durations_seconds=[item.duration_seconds for item in items],
        cpu_seconds=[item.cpu_seconds for item in items],
        peak_memory_bytes=[item.peak_memory_bytes for item in items],
        started_at=[item.started_at for item in items],
    )
    if any(item.case for item in items):
        columns.cases.extend(item.case for item in items)
    if any(item.verdict != _PASSED for item in items):
        columns.verdicts.extend(common_pb2.Verdict.ValueType(item.verdict) for item in items)
    if any(detail for _, detail in entries):
        columns.details.extend(detail for _, detail in entries)
    return columns


def _take(queue: "deque[T]", count: int) -> "list[T]":
    return [queue.popleft() for _ in range(min(count, len(queue)))]
