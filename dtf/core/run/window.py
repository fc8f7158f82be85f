"""How much a worker may hold.

- Never more than its credits allow, which it says itself.
- For tasks that need resources (cpus, memory, gpus): only as many as what is free on the worker
  satisfies, counting every lease it holds, run or waiting. They are never given in advance beyond
  that, so two tasks of 4 cores never meet on a machine of 4.
- In any case no more in advance than about half a second of work a slot (PREFETCH_SECONDS). Half a
  second hides many round trips, keeps batches of no-ops large, and leaves long tasks in the queue,
  where a worker that joins later finds them.

A worker runs its oldest leases, one a slot; the others wait. What waits is counted in seconds, a
lease at most half a second: so there is always one a slot in advance, however long tasks are,
because a pytest process holds its last case back until it knows the next. The last task given may
go beyond the half second: whether a worker has room depends on what it holds and not on what is
next, so quick tasks that keep its window full leave long ones no less room than their own kind.

How long a task takes is its submitter's expectation, else what cases of its template took in this
run, else ASSUMED_SECONDS.
"""

import math
from dataclasses import dataclass, field
from itertools import islice

from dtf.core.fleet.worker import Worker
from dtf.core.run.state import Run, State, Template

PREFETCH_SECONDS = 0.5
ASSUMED_SECONDS = 0.1
"""A guess for tasks nothing is known of: five in advance, until the first results teach better."""
_MOST_PREFETCHED = 1023
_LEAST_PART = PREFETCH_SECONDS / _MOST_PREFETCHED
_EPSILON = 1e-9
"""Sums of seconds are not exact; a window that is full but for this is full."""


@dataclass(slots=True)
class Desk:
    """A worker while leases are dealt."""

    worker: Worker
    credits: int
    held: int
    waiting_seconds: float
    """Expected seconds of what it holds beyond one lease a slot, a lease at most PREFETCH_SECONDS."""
    free_cpus: float
    free_memory_bytes: int
    free_gpus: int
    dealt: dict[str, list[int]] = field(default_factory=dict)

    @property
    def load(self) -> float:
        """Leases a slot."""
        return self.held / self.worker.slots

    @property
    def has_room(self) -> bool:
        """Whether it may be given anything."""
        is_open = self.waiting_seconds < self.worker.slots * PREFETCH_SECONDS - _EPSILON
        return is_open and self.credits > 0

    def room(self, template: Template, seconds: float) -> int:
        """How many more tasks of the template, of `seconds` each, it may be given."""
        if not self.has_room:
            return 0
        slots = self.worker.slots
        ahead = (slots * PREFETCH_SECONDS - self.waiting_seconds) / window_part(seconds) - _EPSILON
        room = min(self.credits, max(0, slots - self.held) + math.ceil(ahead))
        return max(0, min(room, self._free_for(template))) if template.needs_resources else room

    def _free_for(self, template: Template) -> int:
        counts = [_MOST_PREFETCHED]
        if template.cpus:
            counts.append(int(self.free_cpus / template.cpus + _EPSILON))
        if template.memory_bytes:
            counts.append(self.free_memory_bytes // template.memory_bytes)
        if template.gpus:
            counts.append(self.free_gpus // template.gpus)
        return min(counts)

    def take(self, run: Run, template: Template, tasks: list[int], seconds: float) -> None:
        """Note that the worker gets `tasks`, of `seconds` each."""
        count = len(tasks)
        self.dealt.setdefault(run.run_id, []).extend(tasks)
        self.credits -= count
        waiting = count - max(0, self.worker.slots - self.held)
        self.waiting_seconds += max(0, min(count, waiting)) * window_part(seconds)
        self.held += count
        self.free_cpus -= template.cpus * count
        self.free_memory_bytes -= template.memory_bytes * count
        self.free_gpus -= template.gpus * count


def desk_of(state: State, worker: Worker, credits: int) -> Desk:
    """The worker with what is free on it now."""
    cpus, memory_bytes, gpus = worker.cpus, worker.memory_bytes, worker.gpus
    for run_id, leases in worker.leases.items():
        run = state.runs[run_id]
        if not any(template.needs_resources for template in run.templates):
            continue
        for task in leases.values():
            template = run.template_of(task)
            cpus -= template.cpus
            memory_bytes -= template.memory_bytes
            gpus -= template.gpus
    waiting_seconds = _waiting_seconds(state, worker)
    return Desk(worker, credits, worker.lease_count, waiting_seconds, cpus, memory_bytes, gpus)


def window_part(seconds: float) -> float:
    """How much of a window a task of `seconds` takes."""
    return min(max(seconds, _LEAST_PART), PREFETCH_SECONDS)


def expected_task_seconds(run: Run, template: Template, task: int) -> float:
    """How long the task should take."""
    if run.expected_seconds is not None and run.expected_seconds[task] > 0:
        return run.expected_seconds[task]
    if template.observed_count:
        return template.observed_seconds / template.observed_count * len(run.case_range(task))
    return ASSUMED_SECONDS


def _waiting_seconds(state: State, worker: Worker) -> float:
    """Parts of the window taken by leases that wait behind the oldest, one a slot."""
    slots = worker.slots
    if worker.lease_count <= slots:
        return 0.0
    if len(worker.leases) == 1:
        [(run_id, leases)] = worker.leases.items()
        return _parts(state.runs[run_id], leases, slots)
    oldest = sorted(fence for leases in worker.leases.values() for fence in islice(leases, slots))
    parts = []
    for run_id, leases in worker.leases.items():
        running = sum(fence <= oldest[slots - 1] for fence in islice(leases, slots))
        parts.append(_parts(state.runs[run_id], leases, running))
    return math.fsum(parts)  # the order of the runs does not matter


def _parts(run: Run, leases: dict[int, int], running: int) -> float:
    """Parts of the window that leases of one run take, but for the oldest `running`."""
    expected = run.expected_seconds
    if expected is None and run.case_offsets is None and len(run.templates) == 1:
        return (len(leases) - running) * window_part(expected_task_seconds(run, run.templates[0], 0))
    waiting = list(islice(leases.values(), running, None))
    if expected is not None:
        seconds = [expected[task] for task in waiting]
        if all(seconds):
            least, most = _LEAST_PART, PREFETCH_SECONDS
            return sum([least if each < least else each if each < most else most for each in seconds])
    return sum(window_part(expected_task_seconds(run, run.template_of(task), task)) for task in waiting)
