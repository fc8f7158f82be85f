"""A queue, the workers of one pool, and a controller that decides how many there are, in virtual time.

    submitted ─▶ queue ─▶ running ─▶ done          launched ─startup─▶ ready ⇄ busy
                   ▲         │                          └────────┬────────┘
                   └─killed──┘                     drained (idle only) or stopped ─▶ gone

The queue is first in, first out. A worker costs from its launch until it is gone. `drain` is what dtf
does: it takes away workers that hold nothing, and leaves a busy one alone. `stop` is what Kubernetes
does: the worker takes nothing new and is killed after a grace period, with what it still runs; that
goes back to the head of the queue, begins anew, and is counted.

The order at one instant is fixed: what ended, what became ready, what was submitted, then the
controller; so a trace and a policy give the same outcome always.
"""

from array import array
from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush
from math import ceil, inf
from typing import Protocol

from dtf.core.simulation.scaling.outcome import Outcome, PoolShape, SizeCurve, count_flaps, waits_of
from dtf.core.simulation.scaling.simulated_worker import OpenWorkers, SimulatedWorker, widths_of
from dtf.core.simulation.scaling.trace import Trace

REST_SECONDS = 3600.0
"""A pool that is not back at its minimum so long after the last task is billed until then."""
HORIZON_SECONDS = 1e9
"""Virtual time ends here: nobody waits for that, and nanoseconds beyond do not fit 64 bits for long."""

_DONE, _READY, _KILL = 0, 1, 2


class Controller(Protocol):
    """Decides the size of a pool."""

    @property
    def name(self) -> str:
        """What the policy is called."""
        ...

    @property
    def pace_seconds(self) -> float:
        """Decisions on what happened are at least so far apart; inf: it decides by its own timer alone."""
        ...

    @property
    def relaxed_seconds(self) -> float:
        """The same where all that happened is that tasks ended: no more is wanted than before."""
        ...

    @property
    def is_periodic(self) -> bool:
        """Whether it decides at multiples of `pace_seconds` only."""
        ...

    def least(self, shape: PoolShape) -> int:
        """Workers below which the pool never is."""
        ...

    def decide(self, pool: "SimulatedPool") -> float:
        """Change the pool if need be; return the instant of the next decision if nothing happens before."""
        ...

    def begin(self, pool: "SimulatedPool") -> None:
        """The trace begins; the pool has its minimum, ready."""
        ...

    def submitted(self, pool: "SimulatedPool", task: int) -> None:
        """A task was queued."""
        ...

    def started(self, pool: "SimulatedPool", task: int, worker: SimulatedWorker) -> None:
        """A worker took a task."""
        ...

    def finished(self, pool: "SimulatedPool", task: int, worker: SimulatedWorker) -> None:
        """A task is done."""
        ...

    def ready(self, pool: "SimulatedPool", worker: SimulatedWorker) -> None:
        """A worker takes tasks from now on."""
        ...


class SimulatedPool:
    """What a controller sees and does. `now` is in seconds since the first submission."""

    def __init__(self, trace: Trace, shape: PoolShape, controller: Controller) -> None:
        self.trace = trace
        self.shape = shape
        self.now = 0.0
        self.queue: deque[int] = deque()
        self.workers: dict[int, SimulatedWorker] = {}
        """Launched, and neither stopping nor gone, by number; the oldest first."""
        self.starting_count = 0
        self.running_count = 0
        """Tasks that run, on stopping workers too."""
        self.busy_seconds = 0.0
        """Integral of the busy slots of workers that are ready and not stopping."""
        self.ready_seconds = 0.0
        """Integral of all their slots."""
        self.decisions = 0
        self._controller = controller
        self._leaving: dict[int, SimulatedWorker] = {}
        self._open = OpenWorkers(shape.is_packed)
        self._events: list[tuple[float, int, int, int, SimulatedWorker]] = []
        self._count = 0
        self._next_number = 1
        self._waits = array("d", bytes(8 * len(trace)))
        self._queued_at = array("d", trace.submits)
        self._spent = 0.0
        self._wake, self._decided_at = 0.0, -inf
        self._moves: list[tuple[float, int]] = []
        self._busy_kills = 0
        self._done = 0
        self._last_done = 0.0
        self._integrated_at = 0.0
        self._busy_slots = self._ready_slots = 0
        self._curve = SizeCurve()
        self._widths = widths_of(trace, shape)

    @property
    def queued_count(self) -> int:
        """Tasks that wait."""
        return len(self.queue)

    @property
    def ready_count(self) -> int:
        """Workers that take tasks."""
        return len(self.workers) - self.starting_count

    @property
    def busy_slots(self) -> int:
        """Slots in use on the workers that are ready and not stopping."""
        return self._busy_slots

    def launch(self, count: int) -> list[SimulatedWorker]:
        """Ask for more workers; the maximum holds whatever is asked."""
        count = min(count, self.shape.max_workers - len(self.workers))
        if count <= 0:
            return []
        self._moves.append((self.now, count))
        return [self._launch(self.shape.startup_seconds) for _ in range(count)]

    def drain(self, numbers: Iterable[int]) -> list[int]:
        """Take away those of the workers that hold nothing; return which."""
        going = [n for n in numbers if (worker := self.workers.get(n)) is not None and not worker.running]
        for number in going:
            self._end(self._detach(number))
        if going:
            self._moves.append((self.now, -len(going)))
        return going

    def stop(self, numbers: Iterable[int], grace_seconds: float) -> None:
        """End workers, busy or not; what a worker runs has `grace_seconds` to finish."""
        count = 0
        for number in numbers:
            worker = self._detach(number)
            count += 1
            if not worker.running:
                self._end(worker)
                continue
            worker.is_stopping = True
            self._leaving[number] = worker
            self._push(self.now + grace_seconds, _KILL, 0, worker)
        if count:
            self._moves.append((self.now, -count))

    def integrate(self) -> None:
        """Bring `busy_seconds` and `ready_seconds` up to now."""
        elapsed = self.now - self._integrated_at
        self.busy_seconds += self._busy_slots * elapsed
        self.ready_seconds += self._ready_slots * elapsed
        self._integrated_at = self.now

    def run(self) -> Outcome:
        """Replay the whole trace. Raises SimulationStuck."""
        controller, submits, total, events = (
            self._controller,
            self.trace.submits,
            len(self.trace),
            self._events,
        )
        least = controller.least(self.shape)
        for _ in range(least):
            self._launch(self.shape.first_ready_seconds)
        controller.begin(self)
        coming = 0
        while True:
            now = min(submits[coming] if coming < total else inf, self._wake)
            if events and events[0][0] < now:
                now = events[0][0]
            if self._done == total and self._is_at_rest(least, now):
                return self._outcome()
            if now > HORIZON_SECONDS:
                left = total - self._done
                raise SimulationStuck(
                    f"{controller.name}: {left:,} of {total:,} tasks not done after 31 years"
                )
            self.now = now
            while events and events[0][0] <= now:
                _, kind, _, task, worker = heappop(events)
                self._happen(kind, task, worker)
            if coming < total and submits[coming] <= now:
                self._due(controller.pace_seconds)
                while coming < total and submits[coming] <= now:
                    self.queue.append(coming)
                    controller.submitted(self, coming)
                    coming += 1
            self._assign()
            if now >= self._wake:
                self._decide()

    def _is_at_rest(self, least: int, now: float) -> bool:
        """Whether nothing is left to be billed; `now` is what would come next."""
        if self._leaving:
            return False
        if now > self._last_done + REST_SECONDS:
            self.now = self._last_done + REST_SECONDS
            return True
        return len(self.workers) <= least

    def _due(self, pace: float) -> None:
        """Something happened: a decision is due, `pace` after the last one at the earliest."""
        if self._controller.is_periodic:
            at = next_tick(self.now, self._decided_at, pace)
        else:
            at = max(self.now, self._decided_at + pace)
        if at < self._wake:
            self._wake = at

    def _decide(self) -> None:
        now, self._decided_at = self.now, self.now
        self.decisions += 1
        self._wake = self._controller.decide(self)
        if self._wake <= now:
            raise SimulationStuck(
                f"{self._controller.name} asked at {now:g} s to be asked again at {self._wake:g} s"
            )
        self._assign()
        self._curve.note(self.now, len(self.workers) + len(self._leaving), len(self.queue))

    def _happen(self, kind: int, task: int, worker: SimulatedWorker) -> None:
        if worker.is_gone:
            return
        if kind == _DONE:
            self._due(self._controller.relaxed_seconds)
            self._finish(task, worker)
            return
        self._due(self._controller.pace_seconds)
        if kind == _READY:
            self._become_ready(worker)
        else:
            self._kill(worker)

    def _launch(self, startup_seconds: float) -> SimulatedWorker:
        worker = SimulatedWorker(self._next_number, self.now, self.shape.slots)
        self._next_number += 1
        self.workers[worker.number] = worker
        self.starting_count += 1
        self._push(self.now + startup_seconds, _READY, 0, worker)
        return worker

    def _become_ready(self, worker: SimulatedWorker) -> None:
        self.integrate()
        worker.is_ready = True
        worker.idle_since = self.now
        self.starting_count -= 1
        self._ready_slots += self.shape.slots
        self._open.admit(worker)
        self._controller.ready(self, worker)

    def _assign(self) -> None:
        queue, open_workers = self.queue, self._open
        while queue and open_workers:
            task = queue[0]
            worker = open_workers.take(self._widths[task] if self._widths else 1)
            if worker is None:
                return
            queue.popleft()
            self._start(task, worker)

    def _start(self, task: int, worker: SimulatedWorker) -> None:
        self.integrate()
        width = self._widths[task] if self._widths else 1
        worker.free -= width
        worker.running[task] = self.now
        worker.idle_since = inf
        self.running_count += 1
        self._busy_slots += width
        self._waits[task] += self.now - self._queued_at[task]
        self._push(self.now + self.trace.durations[task], _DONE, task, worker)
        if worker.free:
            self._open.admit(worker)
        self._controller.started(self, task, worker)

    def _finish(self, task: int, worker: SimulatedWorker) -> None:
        self._release(task, worker)
        self._done += 1
        self._last_done = self.now
        self._controller.finished(self, task, worker)
        if worker.is_stopping:
            if not worker.running:
                self._end(worker)
        else:
            self._open.admit(worker)

    def _release(self, task: int, worker: SimulatedWorker) -> None:
        self.integrate()
        width = self._widths[task] if self._widths else 1
        del worker.running[task]
        worker.free += width
        self.running_count -= 1
        if not worker.is_stopping:
            self._busy_slots -= width
        if not worker.running:
            worker.idle_since = self.now

    def _detach(self, number: int) -> SimulatedWorker:
        """It is no worker of the pool any more; what it runs goes on."""
        self.integrate()
        worker = self.workers.pop(number)
        if worker.is_ready:
            self._ready_slots -= self.shape.slots
            self._busy_slots -= self.shape.slots - worker.free
        else:
            self.starting_count -= 1
        return worker

    def _kill(self, worker: SimulatedWorker) -> None:
        for task in reversed(list(worker.running)):
            self._release(task, worker)
            self._queued_at[task] = self.now
            self.queue.appendleft(task)
            self._busy_kills += 1
        self._end(worker)

    def _end(self, worker: SimulatedWorker) -> None:
        worker.is_gone = True
        self._leaving.pop(worker.number, None)
        self._spent += self.now - worker.launched_at

    def _push(self, at: float, kind: int, task: int, worker: SimulatedWorker) -> None:
        self._count += 1
        heappush(self._events, (at, kind, self._count, task, worker))

    def _outcome(self) -> Outcome:
        end = max(self.now, self._last_done)
        spent = self._spent + sum(end - worker.launched_at for worker in self.workers.values())
        return Outcome(
            policy=self._controller.name,
            makespan_seconds=self._last_done,
            waits=waits_of(self._waits),
            worker_seconds=spent,
            cost=spent / 3600 * self.shape.price,
            actions=len(self._moves),
            flaps=count_flaps(self._moves),
            busy_kills=self._busy_kills,
            task_count=len(self.trace),
            decisions=self.decisions,
            sizes=self._curve.points,
        )


class SimulationStuck(RuntimeError):
    """A controller left tasks in the queue for ever, or the tasks are too long for its workers."""


def simulate(trace: Trace, shape: PoolShape, controller: Controller) -> Outcome:
    """What `controller`, which has not been used before, makes of `trace` in a pool of this shape."""
    return SimulatedPool(trace, shape, controller).run()


def next_tick(at: float, after: float, period: float) -> float:
    """The first multiple of `period` that is not before `at` and is after `after`."""
    tick = ceil(max(at, after) / period) * period
    return tick if tick > after else tick + period
