"""Queued tasks of one run, template and priority, as ranges of task indexes.

A million tasks submitted in order are one pair of numbers here. Tasks that come back (a retry, a
lost worker) go to the front, so that what was begun ends first.
"""

from collections import deque
from collections.abc import Iterator, Sequence


def as_ranges(tasks: Sequence[int]) -> list[tuple[int, int]]:
    """Half-open ranges that together are `tasks`, in the same order."""
    if not tasks:
        return []
    first, count = tasks[0], len(tasks)
    if count == 1:
        return [(first, first + 1)]
    if tasks[-1] - first == count - 1 and list(tasks) == list(range(first, first + count)):
        return [(first, first + count)]
    ranges: list[tuple[int, int]] = []
    start = stop = first
    for task in tasks:
        if task == stop:
            stop += 1
            continue
        ranges.append((start, stop))
        start, stop = task, task + 1
    ranges.append((start, stop))
    return ranges


class TaskQueue:
    """An ordered set of task indexes, cheap where they are contiguous."""

    __slots__ = ("_ranges", "size")

    def __init__(self) -> None:
        self._ranges: deque[tuple[int, int]] = deque()
        self.size = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskQueue) and self._ranges == other._ranges

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"TaskQueue({list(self._ranges)!r})"

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The half-open ranges, from the front."""
        return iter(self._ranges)

    def tasks(self) -> Iterator[int]:
        """Every task, from the front."""
        for start, stop in self._ranges:
            yield from range(start, stop)

    @property
    def head(self) -> int:
        """The task at the front; the queue must not be empty."""
        return self._ranges[0][0]

    def append(self, start: int, stop: int) -> None:
        """Add the range [start, stop) at the back."""
        if stop <= start:
            return
        if self._ranges and self._ranges[-1][1] == start:
            self._ranges[-1] = (self._ranges[-1][0], stop)
        else:
            self._ranges.append((start, stop))
        self.size += stop - start

    def push_front(self, tasks: Sequence[int]) -> None:
        """Put `tasks` at the front, in their order."""
        for start, stop in reversed(as_ranges(tasks)):
            if self._ranges and self._ranges[0][0] == stop:
                self._ranges[0] = (start, self._ranges[0][1])
            else:
                self._ranges.appendleft((start, stop))
            self.size += stop - start

    def remove(self, tasks: Sequence[int]) -> int:
        """Take `tasks` out wherever they are; return how many were there."""
        return self.remove_ranges(as_ranges(tasks))

    def remove_ranges(self, ranges: Sequence[tuple[int, int]]) -> int:
        """The same, of half-open ranges."""
        removed, held = 0, self._ranges
        for start, stop in ranges:
            if held and held[0][0] == start and stop <= held[0][1]:
                _, end = held[0]
                if stop == end:
                    held.popleft()
                else:
                    held[0] = (stop, end)
                self.size -= stop - start
                removed += stop - start
            else:
                removed += self._cut_out(start, stop)
                held = self._ranges
        return removed

    def _cut_out(self, start: int, stop: int) -> int:
        kept: deque[tuple[int, int]] = deque()
        removed = 0
        for low, high in self._ranges:
            cut_low, cut_high = max(low, start), min(high, stop)
            if cut_low >= cut_high:
                kept.append((low, high))
                continue
            removed += cut_high - cut_low
            if low < cut_low:
                kept.append((low, cut_low))
            if cut_high < high:
                kept.append((cut_high, high))
        self._ranges = kept
        self.size -= removed
        return removed
