"""The demand that a log tells of, and what the pool that met it came to.

A task's duration is the time that it kept a slot: from its lease, or from the end of the task before it
on that slot, until its result was accepted. So it holds what execution costs around the task, and a
task that was leased in advance does not count the wait for its turn. What was lost and run again
counts with its last attempt; what never ended (cancelled, abandoned, still running) is left out.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from dtf.api.v1 import events_pb2
from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.rates import NANOS
from dtf.core.simulation.scaling.trace import Trace


@dataclass(slots=True)
class Lifetime:
    """A worker as the log has it."""

    worker_id: str
    registered_ns: int
    leased_ns: int = 0
    """Its first lease: only from then on is it known to take tasks, for warm processes start first. 0: none."""
    gone_ns: int = 0
    """0: it was there when the log ended."""


@dataclass(slots=True)
class RecordedDemand:
    """A trace, and the log's own figures for it."""

    trace: Trace
    first_ns: int
    """The first submission."""
    makespan_seconds: float
    waits: "array[float]"
    """From each submission until its task took a slot."""
    lifetimes: dict[str, Lifetime]
    """By worker and incarnation."""


@dataclass(slots=True)
class _Task:
    submitted_ns: int
    expected: float
    leased_ns: int = 0
    started_ns: int = 0
    ended_ns: int = 0


@dataclass(slots=True)
class DemandReader:
    """Reads a log, commit by commit."""

    name: str
    _projection: DemandProjection = field(default_factory=DemandProjection)
    _tasks: dict[str, dict[int, _Task]] = field(default_factory=dict)
    """Of each run, by index."""
    _slots: dict[str, list[int]] = field(default_factory=dict)
    """When each slot of a worker became free, a heap."""
    _lifetimes: dict[str, Lifetime] = field(default_factory=dict)
    _present: dict[str, str] = field(default_factory=dict)
    """The lifetime of each worker that is there."""

    def take(self, sequence: int, message_id: str, commit: events_pb2.Commit) -> None:
        """Fold one commit."""
        self._projection.apply(sequence, message_id, commit)
        now_ns = self._projection.last_ns
        for event in commit.events:
            self._take_event(now_ns, event)

    def finish(self) -> RecordedDemand:
        """What was read."""
        done = [task for tasks in self._tasks.values() for task in tasks.values() if task.ended_ns]
        done.sort(key=lambda task: task.submitted_ns)
        trace = Trace(self.name)
        first_ns = done[0].submitted_ns if done else 0
        trace.submits.extend((task.submitted_ns - first_ns) / NANOS for task in done)
        trace.durations.extend((task.ended_ns - task.started_ns) / NANOS for task in done)
        if any(task.expected for task in done):
            trace.expected.extend(task.expected for task in done)
        last_ns = max((task.ended_ns for task in done), default=0)
        waits = array("d", ((task.started_ns - task.submitted_ns) / NANOS for task in done))
        return RecordedDemand(trace, first_ns, (last_ns - first_ns) / NANOS, waits, self._lifetimes)

    def _take_event(self, now_ns: int, event: events_pb2.Event) -> None:
        match event.WhichOneof("event"):
            case "tasks_submitted":
                self._submitted(now_ns, event.tasks_submitted)
            case "leases_granted":
                self._leased(now_ns, event.leases_granted)
            case "results_accepted":
                results = event.results_accepted
                completed = set(results.tasks) if results.all_completed else self._completed(results)
                for task in completed - set(results.requeued):
                    self._ended(now_ns, results.run_id, results.worker_id, task)
            case "attempts_ended":
                ended = event.attempts_ended
                for task, is_requeued in zip(ended.tasks, ended.requeued, strict=False):
                    if not is_requeued:
                        self._ended(now_ns, ended.run_id, ended.worker_id, task)
            case "worker_registered":
                self._registered(now_ns, event.worker_registered)
            case "worker_left":
                self._gone(now_ns, event.worker_left.worker_id)
            case "worker_lost":
                self._gone(now_ns, event.worker_lost.worker_id)
            case _:
                pass  # nothing in it of when a task came, ran or ended

    def _submitted(self, now_ns: int, event: events_pb2.TasksSubmitted) -> None:
        tasks = self._tasks.setdefault(event.run_id, {})
        run = self._projection.runs.get(event.run_id)
        expected = run.seconds if run is not None else []
        for index in range(event.first_task, event.first_task + len(event.names)):
            tasks[index] = _Task(now_ns, expected[index] if index < len(expected) else 0.0)

    def _leased(self, now_ns: int, event: events_pb2.LeasesGranted) -> None:
        for task in self._known(event.run_id, event.tasks):
            task.leased_ns = now_ns
        lifetime = self._lifetimes.get(self._present.get(event.worker_id, ""))
        if lifetime is not None and not lifetime.leased_ns:
            lifetime.leased_ns = now_ns

    @staticmethod
    def _completed(event: events_pb2.ResultsAccepted) -> set[int]:
        completed = set(event.completed)
        pairs = zip(event.tasks, event.fences, strict=False)
        return {task for task, fence in pairs if fence in completed}

    def _ended(self, now_ns: int, run_id: str, worker_id: str, index: int) -> None:
        for task in self._known(run_id, (index,)):
            slots = self._slots.setdefault(worker_id, [0])
            task.started_ns = min(now_ns, max(task.leased_ns, task.submitted_ns, heappop(slots)))
            task.ended_ns = now_ns
            heappush(slots, now_ns)

    def _known(self, run_id: str, indices: Iterable[int]) -> list[_Task]:
        tasks = self._tasks.get(run_id, {})
        return [tasks[index] for index in indices if index in tasks]

    def _registered(self, now_ns: int, event: events_pb2.WorkerRegistered) -> None:
        self._gone(now_ns, event.worker_id)
        self._slots[event.worker_id] = [now_ns] * max(1, event.slots)
        key = f"{event.worker_id}/{event.incarnation}"
        self._present[event.worker_id] = key
        self._lifetimes[key] = Lifetime(event.worker_id, now_ns)

    def _gone(self, now_ns: int, worker_id: str) -> None:
        key = self._present.pop(worker_id, None)
        if key is not None:
            self._lifetimes[key].gone_ns = now_ns
