"""Which worker gets which queued tasks.

Theory. Tasks are taken by priority (higher first); at one priority runs take turns, the one with
the fewest leases first, and in a run the oldest task goes first. Each turn deals tasks to the
workers that can run them so that their loads (leases a slot) become equal, the least loaded first.

How many leases a worker may hold:

- never more than its credits allow, which it says itself;
- for tasks that need resources (cpus, memory, gpus): only as many as what is free on the worker
  satisfies, counting every lease it holds, run or waiting. They are never given in advance beyond
  that, so two tasks of 4 cores never meet on a machine of 4;
- in any case no more in advance than about half a second of work (PREFETCH_SECONDS), and at least
  one a slot. Half a second hides many round trips, keeps batches of no-ops large, and leaves long
  tasks in the queue, where a worker that joins later finds them. At least one, because a pytest
  process holds its last case back until it knows the next.

How long a task takes is its submitter's expectation, else what cases of its template took in this
run, else ASSUMED_SECONDS.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dtf.api.v1 import events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import GrantLeases
from dtf.core.run.placement import fits
from dtf.core.run.state import Run, State, Template
from dtf.core.run.task_queue import TaskQueue

PREFETCH_SECONDS = 0.5
ASSUMED_SECONDS = 0.1
"""A guess for tasks nothing is known of: five in advance, until the first results teach better."""
_MOST_PREFETCHED = 1023
_TURN = 32
"""Tasks a run gets in one turn while others wait at its priority."""


@dataclass(slots=True)
class Desk:
    """A worker while leases are dealt."""

    worker: Worker
    credits: int
    held: int
    free_cpus: float
    free_memory_bytes: int
    free_gpus: int
    dealt: dict[str, list[int]] = field(default_factory=dict)

    @property
    def load(self) -> float:
        """Leases a slot."""
        return self.held / self.worker.slots

    def room(self, template: Template, seconds: float) -> int:
        """How many more tasks of the template, of `seconds` each, it may be given."""
        slots = self.worker.slots
        ahead = int(min(max(PREFETCH_SECONDS / max(seconds, 1e-9), 1), _MOST_PREFETCHED))
        room = min(self.credits, slots * (1 + ahead) - self.held)
        if room > 0 and template.needs_resources:
            room = min(room, self._free_for(template))
        return max(room, 0)

    def _free_for(self, template: Template) -> int:
        counts = [_MOST_PREFETCHED]
        if template.cpus:
            counts.append(int(self.free_cpus / template.cpus + 1e-9))
        if template.memory_bytes:
            counts.append(self.free_memory_bytes // template.memory_bytes)
        if template.gpus:
            counts.append(self.free_gpus // template.gpus)
        return min(counts)

    def take(self, run: Run, template: Template, tasks: list[int]) -> None:
        """Note that the worker gets `tasks`."""
        count = len(tasks)
        self.dealt.setdefault(run.run_id, []).extend(tasks)
        self.credits -= count
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
    return Desk(worker, credits, worker.lease_count, cpus, memory_bytes, gpus)


class _Cursor:
    """Takes tasks from a queue without changing it."""

    def __init__(self, queue: TaskQueue) -> None:
        self._ranges = queue.ranges()
        self._start, self._stop = next(self._ranges, (0, 0))

    @property
    def head(self) -> int | None:
        """The next task; None: there is none."""
        return self._start if self._start < self._stop else None

    def available(self, most: int, below: int | None) -> int:
        """How many tasks, at most `most`, come next before task `below`."""
        if below is None:
            return most
        return max(1, min(most, self._stop - self._start, below - self._start))

    def take(self, count: int) -> list[int]:
        """The next `count` tasks, or as many as there are."""
        taken: list[int] = []
        while len(taken) < count and self._start < self._stop:
            stop = min(self._stop, self._start + count - len(taken))
            taken.extend(range(self._start, stop))
            self._start = stop
            if self._start == self._stop:
                self._start, self._stop = next(self._ranges, (0, 0))
        return taken


class _Line:
    """The queued tasks of one run at one priority."""

    def __init__(self, run: Run, queues: dict[int, TaskQueue]) -> None:
        self.run = run
        self._cursors = {template: _Cursor(queue) for template, queue in queues.items()}
        self._left = {template: len(queue) for template, queue in queues.items()}

    def serve(self, desks: list[Desk], most: int) -> int:
        """Deal up to `most` tasks, the oldest first; 0 means that none can be placed now."""
        while self._cursors:
            index = min(self._cursors, key=self._head)
            template, cursor = self.run.templates[index], self._cursors[index]
            others = [self._head(other) for other in self._cursors if other != index]
            count = cursor.available(min(most, self._left[index]), min(others, default=None))
            dealt = self._deal(desks, template, cursor, count)
            self._left[index] -= dealt
            if not dealt or not self._left[index]:
                del self._cursors[index]
            if dealt:
                return dealt
        return 0

    def _head(self, template: int) -> int:
        head = self._cursors[template].head
        return -1 if head is None else head

    def _deal(self, desks: list[Desk], template: Template, cursor: _Cursor, count: int) -> int:
        seconds = expected_task_seconds(self.run, template, cursor.head or 0)
        rooms = [(desk, desk.room(template, seconds)) for desk in desks if fits(desk.worker, template)]
        dealt = 0
        for desk, share in level(count, [(desk, room) for desk, room in rooms if room > 0]):
            tasks = cursor.take(share)
            desk.take(self.run, template, tasks)
            dealt += len(tasks)
        return dealt


def expected_task_seconds(run: Run, template: Template, task: int) -> float:
    """How long the task should take."""
    if run.expected_seconds is not None and run.expected_seconds[task] > 0:
        return run.expected_seconds[task]
    if template.observed_count:
        return template.observed_seconds / template.observed_count * len(run.case_range(task))
    return ASSUMED_SECONDS


def level(count: int, rooms: list[tuple[Desk, int]]) -> list[tuple[Desk, int]]:
    """Shares of `count` tasks that make the loads as equal as the rooms allow.

    Water-filling: the least loaded desks are raised together to the load of the next, and so on.
    """
    shares = [0] * len(rooms)
    loads = [desk.load for desk, _ in rooms]
    waiting = sorted(range(len(rooms)), key=loads.__getitem__)
    while count > 0 and waiting:
        lowest = loads[waiting[0]]
        group = [index for index in waiting if loads[index] <= lowest]
        above = loads[waiting[len(group)]] if len(group) < len(waiting) else float("inf")
        for position, index in enumerate(group):
            desk, room = rooms[index]
            fair = -(-count // (len(group) - position))
            rise = max(1, int(min((above - lowest) * desk.worker.slots, fair)))
            share = min(fair, rise, room - shares[index])
            shares[index] += share
            count -= share
            loads[index] += share / desk.worker.slots
        waiting = sorted(
            (index for index in waiting if shares[index] < rooms[index][1]), key=loads.__getitem__
        )
    return [(desk, share) for (desk, _), share in zip(rooms, shares, strict=True) if share]


def grant_leases(state: State, command: GrantLeases) -> list[events_pb2.Event]:
    """LeasesGranted, one a run and worker."""
    if not state.queued_count:
        return []
    desks = [
        desk_of(state, state.workers[worker_id], credits)
        for worker_id, credits in command.credits.items()
        if credits > 0 and worker_id in state.workers and state.workers[worker_id].takes_work
    ]
    if not desks:
        return []
    _deal_by_priority(state, desks, command.limit)
    return list(_granted(state, desks))


def _deal_by_priority(state: State, desks: list[Desk], limit: int) -> None:
    runs = [run for run in state.active_runs.values() if run.queues]
    for priority in sorted({priority for run in runs for priority in run.queues}, reverse=True):
        lines = [_Line(run, run.queues[priority]) for run in runs if priority in run.queues]
        lines.sort(key=lambda line: line.run.leased_count)
        while lines and limit > 0:
            for line in list(lines):
                dealt = line.serve(desks, min(limit, _TURN) if len(lines) > 1 else limit)
                limit -= dealt
                if not dealt:
                    lines.remove(line)
                if limit <= 0:
                    return


def _granted(state: State, desks: list[Desk]) -> Iterator[events_pb2.Event]:
    fence = state.next_fence
    for desk in desks:
        for run_id, tasks in desk.dealt.items():
            run = state.runs[run_id]
            event = events_pb2.Event()
            granted = event.leases_granted
            granted.run_id = run_id
            granted.worker_id = desk.worker.worker_id
            granted.incarnation = desk.worker.incarnation
            granted.tasks.extend(tasks)
            granted.first_fence = fence
            attempts = [run.attempts[task] for task in tasks]
            if any(attempts):
                granted.attempts.extend([before + 1 for before in attempts])
            fence += len(tasks)
            yield event
