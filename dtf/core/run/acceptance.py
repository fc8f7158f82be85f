"""Results taken case by case: which verdict is final, which case is tried again, which attempt is complete."""

from dataclasses import dataclass

from dtf.api.v1 import common_pb2, events_pb2, worker_service_pb2
from dtf.core.run import limits
from dtf.core.run.commands import FieldViolation, InvalidRequest
from dtf.core.run.outlook import Outlook
from dtf.core.run.state import Run

_FAILED = frozenset({common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR})
_BYTES_AN_ENTRY = 64


@dataclass(slots=True)
class Attempt:
    """What is left of a leased attempt while a report is decided."""

    run: Run
    task: int
    fence: int
    remaining: set[int]
    """Cases of the task without a final verdict."""
    pending: set[int]
    """Those of `remaining` that were reported in this attempt and will be tried again."""
    is_begun: bool

    @classmethod
    def begin(cls, run: Run, task: int, fence: int) -> "Attempt":
        """The attempt as the state has it."""
        remaining = set(run.unjudged_cases(task))
        pending = set(run.retry_pending.get(task, ()))
        return cls(run, task, fence, remaining, pending, bool(pending))

    @property
    def is_complete(self) -> bool:
        """Whether every case of the attempt was reported."""
        return self.remaining == self.pending


class Acceptance:
    """Builds ResultsAccepted for one run out of the entries that count."""

    def __init__(
        self, run: Run, worker_id: str, entry: worker_service_pb2.CaseResults, outlook: Outlook
    ) -> None:
        self._run = run
        self._worker_id = worker_id
        self._entry = entry
        self._outlook = outlook
        self._events: list[events_pb2.Event] = []
        self._chosen: list[int] = []
        self._size = 0
        self._accepted = events_pb2.ResultsAccepted()

    def add(self, index: int, attempt: Attempt) -> bool:
        """Take entry `index` into account; whether it completed its attempt."""
        entry = self._entry
        case = entry.cases[index] if entry.cases else 0
        cases = self._run.case_range(attempt.task)
        if case >= len(cases):
            description = f"names case {case} of task {attempt.task}, which has {len(cases)}"
            raise InvalidRequest(
                f"the results cannot be read: {description}",
                violations=[FieldViolation("cases", description)],
            )
        if case not in attempt.remaining or case in attempt.pending:
            return False
        self._make_room(len(entry.details[index]) if entry.details else 0)
        reported = entry.verdicts[index] if entry.verdicts else common_pb2.VERDICT_PASSED
        verdict, is_retried = self._judge(attempt, cases[case], reported)
        self._append(index, attempt, case, verdict)
        attempt.is_begun = True
        if is_retried:
            self._accepted.retried.append(len(self._chosen) - 1)
            attempt.pending.add(case)
        else:
            attempt.remaining.discard(case)
            self._outlook.counts[verdict] += 1
        if attempt.is_complete:
            self._complete(attempt)
            return True
        return False

    def _judge(
        self, attempt: Attempt, case_in_run: int, reported: "common_pb2.Verdict.ValueType"
    ) -> "tuple[common_pb2.Verdict.ValueType, bool]":
        """The verdict to record, and whether the case is tried again."""
        failures = self._run.test_failures.get(case_in_run, 0)
        if reported in _FAILED:
            allowed = self._run.template_of(attempt.task).test_retries
            return reported, failures < allowed and not self._run.is_cancelling
        if reported == common_pb2.VERDICT_PASSED and failures:
            return common_pb2.VERDICT_FLAKY, False
        return reported, False

    def _make_room(self, detail_bytes: int) -> None:
        weight = _BYTES_AN_ENTRY + detail_bytes
        if self._chosen and self._size + weight > limits.MAX_EVENT_BYTES:
            self._flush()
        self._size += weight

    def _append(
        self, index: int, attempt: Attempt, case: int, verdict: "common_pb2.Verdict.ValueType"
    ) -> None:
        accepted = self._accepted
        self._chosen.append(index)
        accepted.tasks.append(attempt.task)
        accepted.fences.append(attempt.fence)
        accepted.cases.append(case)
        accepted.verdicts.append(verdict)

    def _complete(self, attempt: Attempt) -> None:
        self._accepted.completed.append(attempt.fence)
        self._outlook.ended_leases += 1
        if attempt.pending and not self._run.is_cancelling:
            self._accepted.requeued.append(attempt.task)
        else:
            self._outlook.finished_tasks += 1

    def _flush(self) -> None:
        accepted, entry, chosen = self._accepted, self._entry, self._chosen
        accepted.run_id = self._run.run_id
        accepted.worker_id = self._worker_id
        accepted.durations_seconds.extend([entry.durations_seconds[index] for index in chosen])
        if entry.cpu_seconds:
            accepted.cpu_seconds.extend([entry.cpu_seconds[index] for index in chosen])
        if entry.peak_memory_bytes:
            accepted.peak_memory_bytes.extend([entry.peak_memory_bytes[index] for index in chosen])
        if entry.started_at:
            accepted.started_at.extend([entry.started_at[index] for index in chosen])
        if entry.details:
            details = [entry.details[index] for index in chosen]
            if any(details):
                accepted.details.extend(details)
        _drop_defaults(accepted)
        self._events.append(events_pb2.Event(results_accepted=accepted))
        self._accepted, self._chosen, self._size = events_pb2.ResultsAccepted(), [], 0

    def close(self) -> list[events_pb2.Event]:
        """The events, none if nothing was accepted."""
        if self._chosen:
            self._flush()
        return self._events


def _drop_defaults(accepted: events_pb2.ResultsAccepted) -> None:
    """A column of defaults is left out, as the schema says."""
    if not any(accepted.cases):
        del accepted.cases[:]
    if set(accepted.verdicts) == {common_pb2.VERDICT_PASSED}:
        del accepted.verdicts[:]
    if len(accepted.completed) == len(accepted.tasks):
        del accepted.completed[:]
        accepted.all_completed = True
