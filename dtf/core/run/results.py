"""ReportResults: each case accepted once, under the fence of its attempt, or refused, or known already.

A fence is *held* while its lease is; then a case without a verdict is accepted, and one that has
its verdict (or was reported in this attempt and awaits its retry) is a repetition. A fence that
*completed* in this incarnation brings only repetitions. Any other fence is stale: its results
are recorded as refused and count for nothing.
"""

from collections.abc import Iterator, Sequence

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run import limits
from dtf.core.run.acceptance import Acceptance, Attempt
from dtf.core.run.commands import FieldViolation, InvalidRequest, NotFound, ReportResults
from dtf.core.run.endings import Ending, end_attempts
from dtf.core.run.outlook import Outlooks
from dtf.core.run.state import Run, State

_REPORTABLE = frozenset(
    {
        common_pb2.VERDICT_PASSED,
        common_pb2.VERDICT_FAILED,
        common_pb2.VERDICT_ERROR,
        common_pb2.VERDICT_SKIPPED,
    }
)
_FINAL_AT_ONCE = frozenset({common_pb2.VERDICT_PASSED, common_pb2.VERDICT_SKIPPED})
_ENDINGS = frozenset({common_pb2.OUTCOME_TIMED_OUT, common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_CANCELLED})
_FAST_ITEMS = 2048
"""Entries that fit one event by their number alone (under 64 bytes each)."""
_REFUSED_PER_EVENT = 16_384


def report_results(state: State, command: ReportResults) -> list[events_pb2.Event]:
    """ResultsAccepted, AttemptsEnded, LeasesReleased and ResultsRefused, then RunFinished where one ends."""
    worker = state.workers.get(command.worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {command.worker_id[:128]!r}", worker_id=command.worker_id[:128])
    for entry in command.results:
        _check_columns(entry)
    for end in command.ends:
        _check_end(end)
    report = _Report(state, worker, command)
    report.take_results(command.results)
    report.take_ends(command.ends)
    report.take_releases(command.released_fences)
    return [*report.events, *report.refusals(), *report.outlooks.finishing()]


def _check_columns(entry: worker_service_pb2.CaseResults) -> None:
    count = len(entry.fences)
    columns: dict[str, Sequence[object]] = {
        "cases": entry.cases,
        "verdicts": entry.verdicts,
        "cpu_seconds": entry.cpu_seconds,
        "peak_memory_bytes": entry.peak_memory_bytes,
        "started_at": entry.started_at,
        "details": entry.details,
    }
    if len(entry.durations_seconds) != count:
        _refuse("durations_seconds", f"has {len(entry.durations_seconds)} entries for {count} fences")
    for name, column in columns.items():
        if len(column) not in (0, count):
            _refuse(name, f"has {len(column)} entries for {count} fences; all or none are allowed")
    if not limits.are_durations(entry.durations_seconds) or not limits.are_durations(entry.cpu_seconds):
        _refuse("durations_seconds", f"must be finite and in [0, {limits.MAX_SECONDS:g}]")
    if entry.verdicts and not _REPORTABLE.issuperset(entry.verdicts):
        _refuse("verdicts", "must be PASSED, FAILED, ERROR or SKIPPED")
    if entry.details and max(map(len, entry.details)) > limits.MAX_DETAIL_BYTES:
        _refuse(
            "details", f"are at most {limits.MAX_DETAIL_BYTES:,} bytes each; put more into the blob store"
        )


def _check_end(end: worker_service_pb2.AttemptEnd) -> None:
    if end.outcome not in _ENDINGS:
        _refuse("ends.outcome", "must be TIMED_OUT, CRASHED or CANCELLED")
    if len(end.detail) > limits.MAX_DETAIL_BYTES:
        _refuse("ends.detail", f"is at most {limits.MAX_DETAIL_BYTES:,} bytes; put more into the blob store")
    if not limits.is_duration(end.duration_seconds):
        _refuse("ends.duration_seconds", f"must be finite and in [0, {limits.MAX_SECONDS:g}]")


def _refuse(field: str, description: str) -> None:
    raise InvalidRequest(
        f"the results cannot be read: {field} {description}", violations=[FieldViolation(field, description)]
    )


class _Report:
    """One worker's report while it is decided."""

    def __init__(self, state: State, worker: Worker, command: ReportResults) -> None:
        self._state = state
        self._worker = worker
        self._incarnation = command.incarnation
        self._leases = worker.leases if command.incarnation == worker.incarnation else {}
        self._is_plain = not command.ends and not command.released_fences
        self._attempts: dict[int, Attempt] = {}
        self._gone: set[int] = set()
        self._refused: list[int] = []
        self.outlooks = Outlooks()
        self.events: list[events_pb2.Event] = []

    def take_results(self, results: Sequence[worker_service_pb2.CaseResults]) -> None:
        """Accept, refuse or pass over each entry."""
        is_plain = self._is_plain and len({entry.run_id for entry in results}) == len(results)
        for entry in results:
            if not (is_plain and self._accept_whole(entry)):
                self._accept_one_by_one(entry)

    def _accept_whole(self, entry: worker_service_pb2.CaseResults) -> bool:
        """The common case at the cost of a few passes in C: single cases, all held, all final."""
        run, held = self._state.runs.get(entry.run_id), self._leases.get(entry.run_id)
        count = len(entry.fences)
        if run is None or held is None or run.case_offsets is not None or not 0 < count <= _FAST_ITEMS:
            return False
        if any(entry.cases) or run.test_failures or not self._is_final(run, entry.verdicts):
            return False
        tasks = list(map(held.get, entry.fences))
        if None in tasks or len(set(tasks)) != count:
            return False
        if entry.details and sum(map(len, entry.details)) > limits.MAX_EVENT_BYTES // 2:
            return False
        event = events_pb2.Event()
        accepted = event.results_accepted
        accepted.run_id = run.run_id
        accepted.worker_id = self._worker.worker_id
        accepted.tasks.extend(tasks)  # type: ignore[arg-type]  # None is not in it
        accepted.all_completed = True
        counts = self.outlooks.of(run).counts
        _copy_columns(entry, accepted)
        if entry.verdicts and set(entry.verdicts) != {common_pb2.VERDICT_PASSED}:
            accepted.verdicts.extend(entry.verdicts)
            for verdict in entry.verdicts:
                counts[verdict] += 1
        else:
            counts[common_pb2.VERDICT_PASSED] += count
        outlook = self.outlooks.of(run)
        outlook.finished_tasks += count
        outlook.ended_leases += count
        self.events.append(event)
        return True

    def _is_final(self, run: Run, verdicts: Sequence[int]) -> bool:
        if not verdicts or _FINAL_AT_ONCE.issuperset(verdicts):
            return True
        return run.is_cancelling or not any(template.test_retries for template in run.templates)

    def _accept_one_by_one(self, entry: worker_service_pb2.CaseResults) -> None:
        run = self._state.runs.get(entry.run_id)
        if run is None and entry.run_id in self._state.retired_runs:
            for fence in entry.fences:
                self._note_unheld(fence)
            return
        if run is None:
            self._refused.extend(entry.fences)
            return
        acceptance = Acceptance(run, self._worker.worker_id, entry, self.outlooks.of(run))
        for index, fence in enumerate(entry.fences):
            attempt = self._attempt_of(run, fence)
            if attempt is None:
                self._note_unheld(fence)
            elif acceptance.add(index, attempt):
                self._let_go(fence)
        self.events.extend(acceptance.close())

    def _attempt_of(self, run: Run, fence: int) -> Attempt | None:
        """What is left of the attempt, this report's earlier entries included; None: it is not held."""
        attempt = self._attempts.get(fence)
        if attempt is not None:
            return attempt if attempt.run is run else None
        task = self._leases.get(run.run_id, {}).get(fence)
        if task is None or fence in self._gone:
            return None
        attempt = Attempt.begin(run, task, fence)
        self._attempts[fence] = attempt
        return attempt

    def _let_go(self, fence: int) -> None:
        """The attempt ends in this report: what comes after about it is a repetition."""
        self._gone.add(fence)
        self._attempts.pop(fence, None)

    def _note_unheld(self, fence: int) -> None:
        is_current = self._incarnation == self._worker.incarnation
        if not (is_current and (fence in self._gone or fence in self._worker.completed)):
            self._refused.append(fence)

    def _run_of(self, fence: int) -> Run | None:
        for run_id, held in self._leases.items():
            if fence in held:
                return self._state.runs[run_id]
        return None

    def take_ends(self, ends: Sequence[worker_service_pb2.AttemptEnd]) -> None:
        """End attempts that the worker says ended."""
        endings: dict[str, list[Ending]] = {}
        for end in ends:
            run = self._run_of(end.fence)
            attempt = self._attempt_of(run, end.fence) if run is not None else None
            if run is None or attempt is None:
                self._note_unheld(end.fence)
                continue
            if end.running_case > len(run.case_range(attempt.task)):
                _refuse("ends.running_case", f"is {end.running_case}; the task has fewer cases")
            self._let_go(end.fence)
            endings.setdefault(run.run_id, []).append(_ending(attempt, end))
        self._end(endings)

    def _end(self, endings: dict[str, list[Ending]]) -> None:
        for run_id, members in endings.items():
            run = self._state.runs[run_id]
            self.events.extend(end_attempts(run, self._worker.worker_id, members, self.outlooks.of(run)))

    def take_releases(self, fences: Sequence[int]) -> None:
        """Leases that had not started go back; in a run being cancelled, or half reported, they end."""
        endings: dict[str, list[Ending]] = {}
        released: dict[str, list[tuple[int, int]]] = {}
        for fence in fences:
            run = self._run_of(fence)
            attempt = self._attempt_of(run, fence) if run is not None else None
            if run is None or attempt is None:
                continue
            self._let_go(fence)
            if run.is_cancelling or attempt.is_begun:
                endings.setdefault(run.run_id, []).append(_given_back(attempt))
            else:
                released.setdefault(run.run_id, []).append((attempt.task, fence))
        self._end(endings)
        for run_id, leases in released.items():
            tasks, their_fences = zip(*leases, strict=True)
            event = events_pb2.LeasesReleased(
                run_id=run_id, worker_id=self._worker.worker_id, tasks=tasks, fences=their_fences
            )
            self.events.append(events_pb2.Event(leases_released=event))

    def refusals(self) -> Iterator[events_pb2.Event]:
        """ResultsRefused for the stale fences."""
        fences = list(dict.fromkeys(self._refused))
        for start in range(0, len(fences), _REFUSED_PER_EVENT):
            refused = events_pb2.ResultsRefused(
                worker_id=self._worker.worker_id,
                incarnation=self._incarnation,
                fences=fences[start : start + _REFUSED_PER_EVENT],
                reason="the lease is not valid: it was never granted to this incarnation, or it ended",
            )
            yield events_pb2.Event(results_refused=refused)


def _copy_columns(entry: worker_service_pb2.CaseResults, accepted: events_pb2.ResultsAccepted) -> None:
    accepted.fences.extend(entry.fences)
    accepted.durations_seconds.extend(entry.durations_seconds)
    if entry.cpu_seconds:
        accepted.cpu_seconds.extend(entry.cpu_seconds)
    if entry.peak_memory_bytes:
        accepted.peak_memory_bytes.extend(entry.peak_memory_bytes)
    if entry.started_at:
        accepted.started_at.extend(entry.started_at)
    if entry.details and any(entry.details):
        accepted.details.extend(entry.details)


def _ending(attempt: Attempt, end: worker_service_pb2.AttemptEnd) -> Ending:
    unreported = attempt.remaining - attempt.pending
    running: int | None = end.running_case - 1 if end.running_case else None
    if running is not None and running not in unreported:
        running = None
    if running is None and len(unreported) == 1 and end.outcome != common_pb2.OUTCOME_CANCELLED:
        running = next(iter(unreported))
    return Ending(
        task=attempt.task,
        fence=attempt.fence,
        outcome=end.outcome,
        running=running,
        reason=end.reason[: limits.MAX_REASON_LENGTH],
        remaining=attempt.remaining,
        detail=end.detail,
        duration_seconds=end.duration_seconds,
    )


def _given_back(attempt: Attempt) -> Ending:
    return Ending(
        task=attempt.task,
        fence=attempt.fence,
        outcome=common_pb2.OUTCOME_CANCELLED,
        running=None,
        reason="given back by its worker",
        remaining=attempt.remaining,
    )
