"""A simulated worker: takes leases in order, runs a case a slot at a time, reports, may be hurt.

registering ──▶ attached ──(coordinator or link gone)──▶ detached ──▶ attached …
     ▲              │
     │              ├── told that its session is lost: forgets everything ──▶ registering
     │              └── drained and empty: leaves
     └── killed: silent for ever
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.run.state import Run
from dtf.core.simulation.agenda import SECOND, Agenda
from dtf.core.simulation.messages import Assigned, Report
from dtf.core.simulation.oracle import Ending, Oracle, Try


class Upstream(Protocol):
    """The coordinator, as a worker reaches it."""

    def run(self, run_id: str) -> Run | None:
        """What the worker was told of a run."""
        ...

    def send(self, worker: "SimulatedWorker", report: Report) -> None:
        """Say something."""
        ...

    def leave(self, worker: "SimulatedWorker") -> None:
        """Close the session."""
        ...


@dataclass(slots=True)
class _Attempt:
    lease: Assigned
    left: deque[int]
    began_ns: int = 0


@dataclass(slots=True)
class Traits:
    """What can be wrong with a worker."""

    slowness: float = 1.0
    """Its cases take this many times as long."""
    delay_ns: int = 0
    """Its messages come this much later."""
    repeats: bool = False
    """Each of its messages comes twice."""
    is_cut_off: bool = False
    """Nothing comes or goes; it works on."""


@dataclass(slots=True)
class SimulatedWorker:
    """One worker process."""

    spec: events_pb2.WorkerRegistered
    agenda: Agenda
    oracle: Oracle
    upstream: Upstream
    traits: Traits = field(default_factory=Traits)
    incarnation: int = 0
    is_alive: bool = True
    is_attached: bool = False
    is_draining: bool = False
    has_left: bool = False
    unacknowledged: deque[Report] = field(default_factory=deque)
    wasted_seconds: float = 0.0
    """Time of work that was stopped or forgotten."""
    _waiting: deque[_Attempt] = field(default_factory=deque)
    _running: dict[int, _Attempt] = field(default_factory=dict)
    _life: int = 0
    """Rises when everything it does is forgotten: what was planned before is void."""
    _count: int = 0

    @property
    def name(self) -> str:
        """Its identity."""
        return self.spec.worker_id

    @property
    def held(self) -> list[int]:
        """Fences of the leases it knows and has not reported in full."""
        return [*self._running, *(attempt.lease.fence for attempt in self._waiting)]

    @property
    def is_silent(self) -> bool:
        """Whether nobody hears of it."""
        return not self.is_alive or self.has_left or self.traits.is_cut_off

    @property
    def life(self) -> int:
        """Which of its lives this is."""
        return self._life

    # -- what happens to it

    def kill(self) -> None:
        """It is gone, as by kill -9."""
        self.is_alive = self.is_attached = False
        self._forget()

    def lose_session(self) -> None:
        """It hears that its session is over: it stops everything."""
        self.is_attached = self.is_draining = False
        self.incarnation = 0
        self._forget()

    def _forget(self) -> None:
        self._life += 1
        for attempt in self._running.values():
            self.wasted_seconds += (self.agenda.now_ns - attempt.began_ns) / SECOND
        self._running.clear()
        self._waiting.clear()
        self.unacknowledged.clear()

    def assign(self, leases: Iterable[Assigned], began_ns: int | None = None) -> None:
        """Leases came. `began_ns`: those that get a slot began then."""
        known = {*self.held, *(fence for report in self.unacknowledged for fence in _over(report))}
        for lease in leases:
            if lease.fence not in known:
                self._waiting.append(_Attempt(lease, deque(lease.cases)))
        self._fill_slots(began_ns)

    def cancel(self, fences: Iterable[int]) -> None:
        """Attempts are to stop."""
        ends = []
        for fence in fences:
            running = self._running.pop(fence, None)
            waiting = [attempt for attempt in self._waiting if attempt.lease.fence == fence]
            if running is not None:
                self.wasted_seconds += (self.agenda.now_ns - running.began_ns) / SECOND
            for attempt in waiting:
                self._waiting.remove(attempt)
            if running is not None or waiting:
                ends.append(
                    worker_service_pb2.AttemptEnd(
                        fence=fence, outcome=common_pb2.OUTCOME_CANCELLED, reason="its run was cancelled"
                    )
                )
        if ends:
            self._say(ends=ends)
        self._fill_slots()

    def drain(self) -> None:
        """It gives back what has not begun, finishes the rest, and leaves."""
        self.is_draining = True
        self.give_back(len(self._waiting))
        self._leave_if_done()

    def give_back(self, count: int) -> None:
        """Its newest leases that have not begun go back."""
        released = [self._waiting.pop().lease.fence for _ in range(min(count, len(self._waiting)))]
        if released:
            self._say(released=released)

    def acknowledge(self, number: int) -> None:
        """Everything up to this report is durable."""
        while self.unacknowledged and self.unacknowledged[0].number <= number:
            self.unacknowledged.popleft()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self.is_draining and self.is_attached and not self.held and not self.unacknowledged:
            self.upstream.leave(self)

    # -- working

    def _fill_slots(self, began_ns: int | None = None) -> None:
        while self._waiting and len(self._running) < max(1, self.spec.slots):
            attempt = self._waiting.popleft()
            self._running[attempt.lease.fence] = attempt
            self._begin_case(attempt, self.agenda.now_ns if began_ns is None else began_ns)

    def _begin_case(self, attempt: _Attempt, began_ns: int) -> None:
        lease = attempt.lease
        run = self.upstream.run(lease.run_id)
        if run is None or not attempt.left:
            self._running.pop(lease.fence, None)
            return
        attempt.began_ns = began_ns
        tried = self.oracle.next_try(run, lease.task, attempt.left[0])
        seconds, limit = tried.seconds * self.traits.slowness, run.template_of(lease.task).timeout_seconds
        if limit and seconds > limit and tried.ending is Ending.REPORTED:
            tried, seconds = Try(Ending.TIMED_OUT, limit), limit
        life = self._life

        def done() -> None:
            if self._life == life and self._running.get(lease.fence) is attempt:
                self._end_case(attempt, tried, seconds)

        self.agenda.at(began_ns + round(seconds * SECOND), done)

    def _end_case(self, attempt: _Attempt, tried: Try, seconds: float) -> None:
        fence, case = attempt.lease.fence, attempt.left.popleft()
        if tried.ending is Ending.REPORTED:
            if not attempt.left:
                del self._running[fence]
            results = worker_service_pb2.CaseResults(
                run_id=attempt.lease.run_id,
                fences=[fence],
                cases=[case],
                verdicts=[tried.verdict],
                durations_seconds=[seconds],
                started_at=[attempt.began_ns / SECOND],
                details=[tried.detail] if tried.detail else [],
            )
            self._say(results=[results])
            if attempt.left:
                self._begin_case(attempt, self.agenda.now_ns)
        else:
            del self._running[fence]
            crashed = tried.ending is Ending.CRASHED
            end = worker_service_pb2.AttemptEnd(
                fence=fence,
                outcome=common_pb2.OUTCOME_CRASHED if crashed else common_pb2.OUTCOME_TIMED_OUT,
                running_case=case + 1,
                reason="its process died" if crashed else f"it ran longer than {seconds:g} s",
                detail=tried.detail,
                duration_seconds=seconds,
            )
            self._say(ends=[end])
        self._fill_slots()

    # -- talking

    def _say(
        self,
        results: list[worker_service_pb2.CaseResults] | None = None,
        ends: list[worker_service_pb2.AttemptEnd] | None = None,
        released: list[int] | None = None,
    ) -> None:
        self._count += 1
        report = Report(self._count, self.incarnation, results or [], ends or [], released or [])
        self.unacknowledged.append(report)
        if self.is_attached:
            self.upstream.send(self, report)


def _over(report: Report) -> list[int]:
    """Fences that a report tells of."""
    told = [fence for entry in report.results for fence in entry.fences]
    return [*told, *(end.fence for end in report.ends), *report.released]
