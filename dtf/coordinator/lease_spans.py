"""Leases on their way to a worker, in the columns they were granted in.

A span is what one event granted; it is cut where a message is full. Nothing is done to a lease by
itself unless one of its span ended before it was told, or their strings fill a message.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dtf.core.fleet.worker import Worker
from dtf.core.run.state import Run, State

LEASE_OVERHEAD_BYTES = 24
"""What a lease takes in a message beside its strings."""


@dataclass(slots=True)
class LeaseSpan:
    """Leases of one run, in columns."""

    run_id: str
    fences: list[int]
    tasks: list[int]

    def cut(self, count: int) -> "LeaseSpan":
        """The first `count` leases; this span keeps the others."""
        head = LeaseSpan(self.run_id, self.fences[:count], self.tasks[:count])
        del self.fences[:count], self.tasks[:count]
        return head

    def only(self, held: "dict[int, int]") -> "LeaseSpan":
        """The leases that are held."""
        if all(map(held.__contains__, self.fences)):
            return self
        kept = [(fence, task) for fence, task in zip(self.fences, self.tasks, strict=True) if fence in held]
        return LeaseSpan(self.run_id, [fence for fence, _ in kept], [task for _, task in kept])


class LeaseSpans:
    """Leases that a stream has not been told yet, the oldest first."""

    def __init__(self) -> None:
        self._spans: deque[LeaseSpan] = deque()
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, run_id: str, fences: Sequence[int], tasks: Sequence[int]) -> None:
        """Leases were granted."""
        if fences:
            self._spans.append(LeaseSpan(run_id, list(fences), list(tasks)))
            self.count += len(fences)

    def take(self, state: State, worker: Worker, max_items: int, max_bytes: int) -> Iterator[LeaseSpan]:
        """What one message takes: at most `max_items` leases, and one more than fits `max_bytes`.

        Leases that ended or were taken back since they were granted are left out: the worker never
        hears of them.
        """
        items, room = max_items, max_bytes
        while self._spans and items > 0 and room > 0:
            span = self._spans[0].cut(items)
            self.count -= len(span.fences)
            span = span.only(worker.leases.get(span.run_id, {}))
            if span.fences:
                run = state.runs[span.run_id]
                size = span_bytes(run, span.tasks)
                if size > room:
                    span = self._fit(run, span, room)
                    size = room
                items -= len(span.fences)
                room -= size
                yield span
            if not self._spans[0].fences:
                self._spans.popleft()

    def _fit(self, run: Run, span: LeaseSpan, room: int) -> LeaseSpan:
        """Cut the span where the room ends; the rest waits in front."""
        count = 0
        while room > 0:
            room -= span_bytes(run, span.tasks[count : count + 1])
            count += 1
        head = span.cut(count)
        self._spans[0].fences[:0] = span.fences
        self._spans[0].tasks[:0] = span.tasks
        self.count += len(span.fences)
        return head


def span_bytes(run: Run, tasks: Sequence[int]) -> int:
    """About what leases of these tasks take in a message."""
    names = run.names
    size = LEASE_OVERHEAD_BYTES * len(tasks) + sum([len(names[task]) for task in tasks])
    if run.payloads is not None:
        payloads = run.payloads
        size += sum([len(payloads[task]) for task in tasks])
    if run.case_names is not None:
        for task in tasks:
            cases = run.case_range(task)
            size += sum([len(name) + 8 for name in run.case_names[cases.start : cases.stop]])
    return size
