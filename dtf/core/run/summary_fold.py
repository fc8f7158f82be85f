"""The fold that makes a RunSummary from a run's events, in the order of the log."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.summary import (
    FAILING,
    NANOS,
    UNSPECIFIED,
    Bar,
    CaseSummary,
    Ending,
    Fault,
    QueuePoint,
    RunSummary,
    Try,
    Verdict,
)

_QUIET = frozenset({common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED})


@dataclass(slots=True)
class _Lease:
    task: int
    attempt: int
    worker_id: str
    granted_ns: int


@dataclass(slots=True)
class _Task:
    first_case: int
    """Position of its first case in `RunSummary.cases`."""
    case_count: int


@dataclass(slots=True)
class RunFold:
    """One run, as far as its events were applied."""

    summary: RunSummary = field(default_factory=RunSummary)
    _tasks: list[_Task] = field(default_factory=list)
    _leases: dict[int, _Lease] = field(default_factory=dict)
    _queued: int = 0
    _leased: int = 0

    def apply(self, sequence: int, now_ns: int, event: events_pb2.Event) -> None:
        """Fold one event of the run. What is not of a run changes nothing."""
        self.summary.last_sequence = max(self.summary.last_sequence, sequence)
        match event.WhichOneof("event"):
            case "run_created":
                self._run_created(sequence, now_ns, event.run_created)
            case "tasks_submitted":
                self._tasks_submitted(event.tasks_submitted)
            case "leases_granted":
                self._leases_granted(now_ns, event.leases_granted)
            case "results_accepted":
                self._results_accepted(now_ns, event.results_accepted)
            case "attempts_ended":
                self._attempts_ended(now_ns, event.attempts_ended)
            case "leases_released":
                for fence in event.leases_released.fences:
                    self._end_lease(fence, requeued=True)
            case "tasks_abandoned":
                self._tasks_abandoned(event.tasks_abandoned)
            case "results_refused":
                self.summary.refused_count += len(event.results_refused.fences)
            case "run_cancel_requested":
                self.summary.cancel_reason = event.run_cancel_requested.reason
                self._queued = 0
            case "run_finished":
                self._run_finished(now_ns, event.run_finished)
            case _:
                return
        self._note_queue(now_ns)

    def _run_created(self, sequence: int, now_ns: int, event: events_pb2.RunCreated) -> None:
        self.summary.run_id, self.summary.suite, self.summary.revision = (
            event.run_id,
            event.suite,
            event.revision,
        )
        self.summary.owner, self.summary.labels = event.owner, dict(event.labels)
        self.summary.created_ns, self.summary.first_sequence = now_ns, sequence
        if event.templates:
            self.summary.kind = event.templates[0].WhichOneof("spec") or ""

    def _tasks_submitted(self, event: events_pb2.TasksSubmitted) -> None:
        names = iter(event.case_names)
        for offset, name in enumerate(event.names):
            count = event.case_counts[offset] if event.case_counts else 1
            is_multiple = bool(event.case_counts)
            task = len(self._tasks)
            self._tasks.append(_Task(len(self.summary.cases), count))
            for case in range(count):
                self.summary.cases.append(CaseSummary(next(names, name) if is_multiple else name, task, case))
        self._queued += len(event.names)

    def _leases_granted(self, now_ns: int, event: events_pb2.LeasesGranted) -> None:
        attempts = event.attempts or [1] * len(event.tasks)
        for offset, (task, attempt) in enumerate(zip(event.tasks, attempts, strict=False)):
            fence = event.first_fence + offset
            self._leases[fence] = _Lease(task, attempt, event.worker_id, now_ns)
        self._queued -= len(event.tasks)
        self._leased += len(event.tasks)

    def _results_accepted(self, now_ns: int, event: events_pb2.ResultsAccepted) -> None:
        retried = set(event.retried)
        for position, (task, fence) in enumerate(zip(event.tasks, event.fences, strict=False)):
            index = event.cases[position] if event.cases else 0
            case = self.summary.cases[self._tasks[task].first_case + index]
            lease = self._leases.get(fence)
            self._result(now_ns, event, position, case, lease, is_final=position not in retried)
        requeued = set(event.requeued)
        ended = event.fences if event.all_completed else event.completed
        for fence in list(ended):
            task_of = self._leases[fence].task if fence in self._leases else -1
            self._end_lease(fence, requeued=task_of in requeued)

    def _result(
        self,
        now_ns: int,
        event: events_pb2.ResultsAccepted,
        position: int,
        case: CaseSummary,
        lease: _Lease | None,
        *,
        is_final: bool,
    ) -> None:
        verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_PASSED
        seconds = _at(event.durations_seconds, position)
        case.seconds, case.worker_id = seconds, event.worker_id
        case.cpu_seconds = _at(event.cpu_seconds, position)
        case.peak_memory_bytes = int(_at(event.peak_memory_bytes, position))
        detail = event.details[position] if event.details else b""
        if is_final:
            case.verdict = verdict
        if case.tries or verdict not in _QUIET or (detail and verdict == common_pb2.VERDICT_SKIPPED):
            case.message = events_pb2.CaseDetail.FromString(detail).message if detail else ""
        if case.tries or verdict not in _QUIET:
            fault = Fault.TEST if verdict in FAILING else None
            attempt = lease.attempt if lease else 0
            case.tries.append(
                Try(
                    attempt,
                    event.worker_id,
                    common_pb2.OUTCOME_COMPLETED,
                    verdict,
                    seconds,
                    case.message,
                    fault,
                    detail,
                )
            )
        began = _at(event.started_at, position)
        self.summary.bars.append(_bar(now_ns, case.name, event.worker_id, verdict, seconds, began, lease))

    def _attempts_ended(self, now_ns: int, event: events_pb2.AttemptsEnded) -> None:
        for position, fence in enumerate(event.fences):
            task = self._tasks[event.tasks[position]]
            lease = self._leases.get(fence)
            running = event.running_cases[position] if event.running_cases else 0
            one: Try | None = None
            if running:
                case = self.summary.cases[task.first_case + running - 1]
                one = self._ended(now_ns, event, position, case, lease)
            remaining = event.remaining_verdicts[position] if event.remaining_verdicts else UNSPECIFIED
            if remaining != UNSPECIFIED:
                self._condemn(task, remaining, event.reasons[position], event, position, lease)
            if event.outcomes[position] in (common_pb2.OUTCOME_LOST, common_pb2.OUTCOME_CRASHED):
                self._note_ending(now_ns, event.worker_id, event.reasons[position], one)
            self._end_lease(fence, requeued=event.requeued[position])

    def _ended(
        self,
        now_ns: int,
        event: events_pb2.AttemptsEnded,
        position: int,
        case: CaseSummary,
        lease: _Lease | None,
    ) -> Try | None:
        """The case that ran when its attempt ended; None if it had its verdict already."""
        if case.verdict != UNSPECIFIED:
            return None
        verdict = event.verdicts[position] if event.verdicts else UNSPECIFIED
        outcome = event.outcomes[position]
        seconds = _at(event.durations_seconds, position)
        detail = event.details[position] if event.details else b""
        attempt = lease.attempt if lease else 0
        case.tries.append(
            Try(attempt, event.worker_id, outcome, verdict, seconds, event.reasons[position], None, detail)
        )
        case.verdict, case.worker_id = verdict, event.worker_id
        case.seconds = seconds or case.seconds
        case.message = event.reasons[position]
        _blame(case)
        if outcome != common_pb2.OUTCOME_CANCELLED or seconds:
            self.summary.bars.append(_bar(now_ns, case.name, event.worker_id, verdict, seconds, 0.0, lease))
        return case.tries[-1]

    def _note_ending(self, now_ns: int, worker_id: str, reason: str, one: Try | None) -> None:
        """One line for all the leases of a lost worker that had not started."""
        text = reason if worker_id in reason else f"{worker_id}: {reason}"
        last = self.summary.endings[-1] if self.summary.endings else None
        if one is not None or last is None or (last.at_ns, last.text) != (now_ns, text):
            self.summary.endings.append(Ending(now_ns, text, one))

    def _condemn(
        self,
        task: _Task,
        verdict: Verdict,
        reason: str,
        event: events_pb2.AttemptsEnded | None,
        position: int,
        lease: _Lease | None,
    ) -> None:
        """Every case of the task without a verdict gets one, and never ran for it."""
        for case in self.summary.cases[task.first_case : task.first_case + task.case_count]:
            if case.verdict != UNSPECIFIED:
                continue
            case.verdict, case.message = verdict, reason
            if not case.tries:
                worker_id = event.worker_id if event else ""
                outcome = event.outcomes[position] if event else common_pb2.OUTCOME_UNSPECIFIED
                detail = event.details[position] if event and event.details else b""
                attempt = lease.attempt if lease else 0
                case.tries.append(
                    Try(attempt, worker_id, outcome, verdict, 0.0, reason, Fault.INFRASTRUCTURE, detail)
                )
            case.tries[-1].verdict = verdict

    def _tasks_abandoned(self, event: events_pb2.TasksAbandoned) -> None:
        for task in event.tasks:
            self._condemn(self._tasks[task], common_pb2.VERDICT_ERROR, event.reason, None, 0, None)
        self._queued -= len(event.tasks)

    def _end_lease(self, fence: int, *, requeued: bool) -> None:
        if self._leases.pop(fence, None) is not None:
            self._leased -= 1
            if requeued and not self.summary.cancel_reason:
                self._queued += 1

    def _run_finished(self, now_ns: int, event: events_pb2.RunFinished) -> None:
        self.summary.finished_ns, self.summary.state = now_ns, event.state
        self.summary.counts = event.counts
        self.summary.unjudged = event.unjudged
        self.summary.infrastructure_failures = event.infrastructure_failures
        self._queued = self._leased = 0

    def _note_queue(self, now_ns: int) -> None:
        point = QueuePoint(now_ns, max(0, self._queued), max(0, self._leased))
        if self.summary.queue and self.summary.queue[-1].at_ns == now_ns:
            self.summary.queue[-1] = point
        elif not self.summary.queue or (self.summary.queue[-1].queued, self.summary.queue[-1].leased) != (
            point.queued,
            point.leased,
        ):
            self.summary.queue.append(point)


def _blame(case: CaseSummary) -> None:
    """Say anew whose fault the tries of a case are that ended without a report."""
    deadly = all(t.outcome == common_pb2.OUTCOME_CRASHED for t in case.tries)
    for one in case.tries:
        match one.outcome:
            case common_pb2.OUTCOME_TIMED_OUT:
                one.fault = Fault.TEST
            case common_pb2.OUTCOME_CRASHED:
                is_final = deadly and case.verdict in FAILING
                one.fault = Fault.TEST if is_final else Fault.INFRASTRUCTURE
            case common_pb2.OUTCOME_LOST:
                one.fault = Fault.INFRASTRUCTURE
            case _:
                pass


def _at(column: Sequence[float], position: int) -> float:
    return column[position] if column else 0.0


def _bar(
    now_ns: int,
    name: str,
    worker_id: str,
    verdict: Verdict,
    seconds: float,
    began_at: float,
    lease: _Lease | None,
) -> Bar:
    """By the worker's clock if that agrees with when the lease was granted and the result committed."""
    granted = lease.granted_ns if lease else 0
    length = round(seconds * NANOS)
    began = round(began_at * NANOS)
    if not (granted <= began and began + length <= now_ns):
        began = max(granted, now_ns - length)
    if not length and verdict == UNSPECIFIED:
        return Bar(worker_id, granted or now_ns, now_ns, name, verdict)
    return Bar(worker_id, began, min(began + length, now_ns), name, verdict)


def fold_run(events: Iterable[tuple[int, int, events_pb2.Event]]) -> RunSummary:
    """The summary of (sequence, time in nanoseconds, event), in order."""
    fold = RunFold()
    for sequence, now_ns, event in events:
        fold.apply(sequence, now_ns, event)
    return fold.summary


def iterate_commit(
    sequence: int, commit: events_pb2.Commit, run_id: str
) -> Iterator[tuple[int, int, events_pb2.Event]]:
    """The events of a commit that are of one run."""
    for event in commit.events:
        kind = event.WhichOneof("event")
        if kind and getattr(getattr(event, kind), "run_id", "") == run_id:
            yield sequence, commit.now_unix_nanos, event
