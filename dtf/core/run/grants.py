"""Which worker gets which queued tasks.

Theory. Tasks are taken by priority (higher first); at one priority runs take turns (turns.py), and
in a run the oldest task goes first. Each turn deals tasks to the workers that can run them so that
their loads (leases a slot) become equal, the least loaded first. How many leases a worker may hold
is said in window.py; whether its window has room does not depend on who asks, and so whatever
streams in at a run's own priority or below, its turn comes after a bounded number of completions.

Tasks that need resources (cpus, memory, gpus) could starve all the same: those that need less take
each part of a worker as it becomes free. Therefore a claim is laid when all that a task needs is
free on no more than one worker: of those that could run it the one with the fewest leases that
occupy resources is kept from

- what comes after it in this grant and could not be placed before it: tasks of lower priority, and
  younger ones of its own run;
- the tasks of its priority that belong to runs which hold more leases,

if they need resources too. So that worker empties until the task fits; the others go on. Runs that
hold equally few leases are told apart by their turns alone, so one whose turn comes when nothing is
free waits for another turn: seldom, where tasks without needs fill the windows, for some hundred
completions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dtf.api.v1 import events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.commands import GrantLeases
from dtf.core.run.placement import fits
from dtf.core.run.state import Run, State, Template
from dtf.core.run.task_queue import TaskQueue
from dtf.core.run.turns import Turns
from dtf.core.run.window import Desk, desk_of, expected_task_seconds


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


@dataclass(slots=True)
class _Claim:
    """A task that needs resources and waits for them."""

    template: Template
    least_leases: int
    """Runs that hold as many leases, or more, yield to it."""
    kept: list[Worker] | None = None
    """The worker kept for it, if one has to be; None: nobody asked since it was laid."""


class _Hall:
    """The desks of one grant, and what is claimed of them."""

    def __init__(self, state: State, desks: list[Desk]) -> None:
        self._state = state
        self._desks = desks
        self._claims: dict[tuple[object, ...], _Claim] = {}

    @property
    def workers(self) -> int:
        """How many workers there are, whether they are offered work or not."""
        return len(self._state.workers)

    @property
    def is_full(self) -> bool:
        """Whether no desk has room for anything; those that have none are forgotten."""
        self._desks = [desk for desk in self._desks if desk.has_room]
        return not self._desks

    def rooms(self, run: Run, template: Template, seconds: float) -> list[tuple[Desk, int]]:
        """Where there is room for tasks of the template, and for how many."""
        rooms = [
            (desk, room)
            for desk in self._desks
            if fits(desk.worker, template) and (room := desk.room(template, seconds))
        ]
        if rooms and self._claims and template.needs_resources:
            kept = self._kept_from(run)
            rooms = [(desk, room) for desk, room in rooms if desk.worker not in kept]
        return rooms

    def claim(self, template: Template, least_leases: int) -> None:
        """Tasks of runs that hold so many leases yield to one of the template, if resources are short."""
        if not template.needs_resources:
            return
        claim = self._claims.setdefault(template.needs, _Claim(template, least_leases))
        claim.least_leases = min(claim.least_leases, least_leases)
        claim.kept = None

    def descend(self) -> None:
        """What comes now is of lower priority: it yields to every claim."""
        for claim in self._claims.values():
            claim.least_leases = 0

    def _kept_from(self, run: Run) -> list[Worker]:
        kept: list[Worker] = []
        for claim in self._claims.values():
            if run.leased_count >= claim.least_leases:
                if claim.kept is None:
                    claim.kept = self._worker_for(claim.template)
                kept.extend(claim.kept)
        return kept

    def _worker_for(self, template: Template) -> list[Worker]:
        free = sum(fits(desk.worker, template) and desk.room(template, 0.0) > 0 for desk in self._desks)
        if free > 1:
            return []
        workers = self._state.workers.values()
        able = [worker for worker in workers if worker.takes_work and fits(worker, template)]
        return [min(able, key=lambda worker: _occupation(self._state, worker))] if able else []


def _occupation(state: State, worker: Worker) -> tuple[int, str]:
    """How many of its leases occupy resources; equal ones by name."""
    count = 0
    for run_id, leases in worker.leases.items():
        run = state.runs[run_id]
        if any(template.needs_resources for template in run.templates):
            count += sum(run.template_of(task).needs_resources for task in leases.values())
    return count, worker.worker_id


class _Line:
    """The queued tasks of one run at one priority."""

    def __init__(self, run: Run, queues: dict[int, TaskQueue]) -> None:
        self.run = run
        self._cursors = {template: _Cursor(queue) for template, queue in queues.items()}
        self._left = {template: len(queue) for template, queue in queues.items()}

    @property
    def next_template(self) -> Template:
        """Of the oldest task."""
        return self.run.templates[min(self._cursors, key=self._head)]

    @property
    def next_seconds(self) -> float:
        """How long the oldest task should take."""
        template = self.next_template
        return expected_task_seconds(self.run, template, self._head(template.index))

    def serve(self, hall: _Hall, most: int) -> int:
        """Deal up to `most` tasks, the oldest first; 0 means that none can be placed now."""
        while self._cursors:
            index = min(self._cursors, key=self._head)
            template, cursor = self.run.templates[index], self._cursors[index]
            others = [self._head(other) for other in self._cursors if other != index]
            count = cursor.available(min(most, self._left[index]), min(others, default=None))
            dealt = self._deal(hall, template, cursor, count)
            self._left[index] -= dealt
            if not dealt or not self._left[index]:
                del self._cursors[index]
            if dealt:
                return dealt
            hall.claim(template, self.run.leased_count)
        return 0

    def _head(self, template: int) -> int:
        head = self._cursors[template].head
        return -1 if head is None else head

    def _deal(self, hall: _Hall, template: Template, cursor: _Cursor, count: int) -> int:
        seconds = expected_task_seconds(self.run, template, cursor.head or 0)
        dealt = 0
        for desk, share in level(count, hall.rooms(self.run, template, seconds)):
            tasks = cursor.take(share)
            desk.take(self.run, template, tasks, seconds)
            dealt += len(tasks)
        return dealt


def level(count: int, rooms: list[tuple[Desk, int]]) -> list[tuple[Desk, int]]:
    """Shares of `count` tasks that make the loads as equal as the rooms allow.

    Water-filling: the least loaded desks are raised together to the load of the next, and so on.
    """
    if count == 1 and rooms:
        return [(min(rooms, key=lambda each: each[0].load)[0], 1)]
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
    _deal_by_priority(state, _Hall(state, desks), command.limit)
    return list(_granted(state, desks))


def _deal_by_priority(state: State, hall: _Hall, limit: int) -> None:
    runs = [run for run in state.active_runs.values() if run.queues]
    first_fence = state.next_fence
    for priority in sorted({priority for run in runs for priority in run.queues}, reverse=True):
        lines = [_Line(run, run.queues[priority]) for run in runs if priority in run.queues]
        dealt = _deal_in_turns(lines, hall, limit, first_fence)
        limit -= dealt
        first_fence += dealt
        if limit <= 0 or hall.is_full:
            return
        hall.descend()


def _deal_in_turns(lines: Sequence[_Line], hall: _Hall, limit: int, first_fence: int) -> int:
    """Deal up to `limit` tasks of these lines; how many it were."""
    if len(lines) == 1:
        return _deal_all(lines[0], hall, limit)
    for line in lines:
        hall.claim(line.next_template, line.run.leased_count + 1)
    turns = Turns([line.next_seconds for line in lines], hall.workers)
    dealt = 0
    while dealt < limit and not hall.is_full:
        turn = turns.next(first_fence + dealt)
        if turn is None:
            break
        count = lines[turn.index].serve(hall, min(turn.count, limit - dealt))
        dealt += count
        if not count:
            turns.drop(turn.index)
    return dealt


def _deal_all(line: _Line, hall: _Hall, limit: int) -> int:
    dealt = 0
    while dealt < limit and (count := line.serve(hall, limit - dealt)):
        dealt += count
    return dealt


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
