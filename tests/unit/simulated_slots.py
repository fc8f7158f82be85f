"""Workers in virtual time: each runs its leases in the order it got them, one a slot, until nobody feeds it more."""

import heapq
from collections import deque
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, run_service_pb2, worker_service_pb2
from dtf.core.run.commands import (
    Command,
    CreateRun,
    ElectLeader,
    GrantLeases,
    RegisterWorker,
    ReportResults,
    SubmitTasks,
)
from dtf.core.run.decide import decide
from dtf.core.run.evolve import evolve
from dtf.core.run.invariants import check
from dtf.core.run.state import State
from tests.unit.core_world import template

_QUEUED = 64
"""Tasks of an endless run that are queued at least."""


@dataclass(slots=True)
class Endless:
    """A run that never runs out of tasks, unless it is told to, and what came of it."""

    seconds: float
    priority: int = 0
    is_endless: bool = True
    worked_seconds: float = 0.0
    completed: int = 0
    waited: int = 0
    """Completions of others of its priority or above, while the run had nothing at work."""
    longest_wait: int = 0


@dataclass(slots=True)
class _Seat:
    waiting: deque[tuple[str, int]] = field(default_factory=deque)
    running: int = 0


class Slots:
    """A pool of workers with nothing around it but the core's decisions."""

    def __init__(self, workers: int, *, slots: int = 1, cpus: float = 4, credits: int = 64) -> None:
        self.state = State()
        self.now = 0.0
        self.runs: dict[str, Endless] = {}
        self._slots = slots
        self._credits = credits
        self._ends: list[tuple[float, int, str, str]] = []
        self._seats = {f"w{index}": _Seat() for index in range(workers)}
        self._do(ElectLeader("host", 10.0))
        for name in self._seats:
            resources = common_pb2.Resources(cpus=cpus)
            request = worker_service_pb2.CreateSessionRequest(
                worker_id=name, request_id=name, slots=slots, resources=resources
            )
            self._do(RegisterWorker("", request))

    def endless(self, run_id: str, seconds: float, *, priority: int = 0, cpus: float = 0) -> Endless:
        """A run whose tasks take so long each."""
        request = run_service_pb2.CreateRunRequest(
            request_id=run_id, suite="s", templates=[template(cpus=cpus)], priority=priority
        )
        self._do(CreateRun(run_id, request))
        self.runs[run_id] = Endless(seconds, priority)
        return self.runs[run_id]

    def submit(self, run_id: str, count: int, expected_seconds: float = 0.0) -> None:
        """More tasks of a run."""
        tasks = [common_pb2.TaskSpec(name="t", expected_seconds=expected_seconds)] * count
        batch = len(self.state.runs[run_id].batches) + 1
        self._do(SubmitTasks(run_service_pb2.SubmitTasksRequest(run_id=run_id, batch=batch, tasks=tasks)))

    def work(self, seconds: float, *, most_completions: int = 2**31, together_seconds: float = 0.0) -> None:
        """Let the time pass; what ends within `together_seconds` is reported together."""
        until = self.now + seconds
        while self.now < until and sum(run.completed for run in self.runs.values()) < most_completions:
            for run_id, run in self.runs.items():
                if run.is_endless and self.state.runs[run_id].queued_count < _QUEUED:
                    self.submit(run_id, _QUEUED)
            self.grant()
            self._complete(together_seconds)
        assert check(self.state) == []

    def grant(self) -> None:
        """Offer what the workers can take."""
        workers = self.state.workers
        credits = {name: self._credits - workers[name].lease_count for name in self._seats}
        self._do(GrantLeases(credits))

    def shares(self) -> dict[str, float]:
        """Run → part of the time in which slots were at work."""
        total = sum(run.worked_seconds for run in self.runs.values())
        return {run_id: run.worked_seconds / total for run_id, run in self.runs.items()}

    def _complete(self, together_seconds: float) -> None:
        """Go to the next moment at which a task ends, and report."""
        until = self._ends[0][0] + together_seconds
        done: dict[tuple[str, str], list[int]] = {}
        while self._ends and self._ends[0][0] <= until:
            self.now, fence, name, run_id = heapq.heappop(self._ends)
            done.setdefault((name, run_id), []).append(fence)
            self._note(run_id)
            self._seats[name].running -= 1
            self._start(name)
        for (name, run_id), fences in done.items():
            durations = [self.runs[run_id].seconds] * len(fences)
            results = worker_service_pb2.CaseResults(
                run_id=run_id, fences=fences, durations_seconds=durations
            )
            self._do(ReportResults(name, 1, [results]))

    def _note(self, run_id: str) -> None:
        for other, run in self.runs.items():
            is_at_work = other == run_id or self.state.runs[other].leased_count
            if self.runs[run_id].priority >= run.priority:
                run.waited = 0 if is_at_work else run.waited + 1
            run.longest_wait = max(run.longest_wait, run.waited)
        self.runs[run_id].worked_seconds += self.runs[run_id].seconds
        self.runs[run_id].completed += 1

    def _start(self, name: str) -> None:
        seat = self._seats[name]
        while seat.waiting and seat.running < self._slots:
            run_id, fence = seat.waiting.popleft()
            seat.running += 1
            heapq.heappush(self._ends, (self.now + self.runs[run_id].seconds, fence, name, run_id))

    def _do(self, command: Command) -> None:
        now_ns = round(self.now * 1e9)
        for event in decide(self.state, command, now_ns):
            evolve(self.state, event, now_ns, self.state.last_sequence + 1)
            if event.HasField("leases_granted"):
                said = event.leases_granted
                leases = enumerate(said.tasks, said.first_fence)
                self._seats[said.worker_id].waiting.extend((said.run_id, fence) for fence, _ in leases)
                self._start(said.worker_id)
