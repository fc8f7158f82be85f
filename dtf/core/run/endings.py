"""How attempts end otherwise than by reporting every case, and what that costs whom.

Charges. Three counts are kept apart, each against its own allowance:

- a case that timed out failed: it counts as a test failure (`test_retries`);
- a case that ran when its process or worker died is charged with the death; one more death than
  `infrastructure_retries` and its verdict is ERROR. With the usual 1, a case that kills two
  workers is not given a third;
- an attempt that crashed with no case known to run (its process never got that far) is charged to
  the task, by the same allowance.

When a worker is lost nobody can say what ran. Its oldest leases, as many as it has slots, are the
suspects, and of each the first case not yet reported; leases behind them had not started and are
charged with nothing, or else two lost workers in one run could end tasks that never ran.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.worker import Worker
from dtf.core.run.limits import MAX_EVENT_BYTES, MAX_REASON_LENGTH
from dtf.core.run.outlook import Outlook, Outlooks
from dtf.core.run.state import Run, State, Template

_BYTES_AN_ENDING = 48
"""What an ending weighs in its event at most, without reason and detail."""


@dataclass(slots=True)
class Ending:
    """An attempt that ends. `running` is a case of its task, or None if none is known to have run."""

    task: int
    fence: int
    outcome: "common_pb2.Outcome.ValueType"
    running: int | None
    reason: str
    remaining: set[int]
    """Cases of the task without a final verdict."""
    detail: bytes = b""
    duration_seconds: float = 0.0


@dataclass(slots=True)
class _Settlement:
    is_requeued: bool
    verdict: "common_pb2.Verdict.ValueType" = common_pb2.VERDICT_UNSPECIFIED
    remaining_verdict: "common_pb2.Verdict.ValueType" = common_pb2.VERDICT_UNSPECIFIED


def end_attempts(
    run: Run, worker_id: str, endings: Iterable[Ending], outlook: Outlook
) -> Iterator[events_pb2.Event]:
    """AttemptsEnded for `endings`, in as many events as their size asks for."""
    event, size = _begin(run, worker_id), 0
    for ending in endings:
        weight = _BYTES_AN_ENDING + len(ending.reason.encode()) + len(ending.detail)
        if size and size + weight > MAX_EVENT_BYTES:
            yield _close(event)
            event, size = _begin(run, worker_id), 0
        size += weight
        settlement = _settle(run, ending)
        _append(event.attempts_ended, ending, settlement)
        _foresee(outlook, ending, settlement)
    if size:
        yield _close(event)


def _begin(run: Run, worker_id: str) -> events_pb2.Event:
    event = events_pb2.Event()
    event.attempts_ended.run_id = run.run_id
    event.attempts_ended.worker_id = worker_id
    return event


def _close(event: events_pb2.Event) -> events_pb2.Event:
    ended = event.attempts_ended
    if not any(ended.details):
        del ended.details[:]
    if not any(ended.durations_seconds):
        del ended.durations_seconds[:]
    return event


def _settle(run: Run, ending: Ending) -> _Settlement:
    match ending.outcome:
        case common_pb2.OUTCOME_CANCELLED:
            verdict = remaining_verdict = common_pb2.VERDICT_UNSPECIFIED
        case _ if ending.running is not None:
            verdict = _verdict_of_running(run, ending, ending.running)
            remaining_verdict = common_pb2.VERDICT_UNSPECIFIED
        case common_pb2.OUTCOME_LOST:
            verdict = remaining_verdict = common_pb2.VERDICT_UNSPECIFIED
        case _:
            verdict = common_pb2.VERDICT_UNSPECIFIED
            remaining_verdict = _verdict_without_case(run, ending.task)
    left = len(ending.remaining) - (verdict != common_pb2.VERDICT_UNSPECIFIED)
    is_over = remaining_verdict != common_pb2.VERDICT_UNSPECIFIED
    is_requeued = left > 0 and not is_over and not run.is_cancelling
    return _Settlement(is_requeued, verdict, remaining_verdict)


def _verdict_of_running(run: Run, ending: Ending, running: int) -> "common_pb2.Verdict.ValueType":
    template = run.template_of(ending.task)
    in_run = run.case_range(ending.task)[running]
    if ending.outcome == common_pb2.OUTCOME_TIMED_OUT:
        is_retried = run.test_failures.get(in_run, 0) < template.test_retries
        final = common_pb2.VERDICT_FAILED
    else:
        is_retried = run.infrastructure_charges.get(in_run, 0) < template.infrastructure_retries
        final = common_pb2.VERDICT_ERROR
    return common_pb2.VERDICT_UNSPECIFIED if is_retried and not run.is_cancelling else final


def _verdict_without_case(run: Run, task: int) -> "common_pb2.Verdict.ValueType":
    template: Template = run.template_of(task)
    if run.task_charges.get(task, 0) < template.infrastructure_retries:
        return common_pb2.VERDICT_UNSPECIFIED
    return common_pb2.VERDICT_ERROR


def _append(ended: events_pb2.AttemptsEnded, ending: Ending, settlement: _Settlement) -> None:
    ended.tasks.append(ending.task)
    ended.fences.append(ending.fence)
    ended.outcomes.append(ending.outcome)
    ended.requeued.append(settlement.is_requeued)
    ended.running_cases.append(0 if ending.running is None else ending.running + 1)
    ended.verdicts.append(settlement.verdict)
    ended.remaining_verdicts.append(settlement.remaining_verdict)
    ended.reasons.append(ending.reason)
    ended.details.append(ending.detail)
    ended.durations_seconds.append(ending.duration_seconds)


def _foresee(outlook: Outlook, ending: Ending, settlement: _Settlement) -> None:
    outlook.ended_leases += 1
    outlook.finished_tasks += not settlement.is_requeued
    left = len(ending.remaining)
    if settlement.verdict:
        outlook.counts[settlement.verdict] += 1
        left -= 1
    if settlement.remaining_verdict:
        outlook.counts[settlement.remaining_verdict] += left
    if ending.outcome in (common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_LOST):
        outlook.infrastructure_failures += 1


def lose_leases(
    state: State, worker: Worker, reason: str, outlooks: Outlooks, *, is_charged: bool
) -> Iterator[events_pb2.Event]:
    """AttemptsEnded for everything the worker holds."""
    suspects = set(sorted(fence for held in worker.leases.values() for fence in held)[: worker.slots])
    for run_id, held in worker.leases.items():
        run = state.runs[run_id]
        endings = (
            _lost(run, task, fence, reason, is_suspect=is_charged and fence in suspects)
            for fence, task in sorted(held.items())
        )
        yield from end_attempts(run, worker.worker_id, endings, outlooks.of(run))


def _lost(run: Run, task: int, fence: int, reason: str, *, is_suspect: bool) -> Ending:
    remaining = run.unjudged_cases(task)
    pending = run.retry_pending.get(task, set())
    running = next((case for case in remaining if case not in pending), None) if is_suspect else None
    return Ending(
        task=task,
        fence=fence,
        outcome=common_pb2.OUTCOME_LOST,
        running=running,
        reason=reason[:MAX_REASON_LENGTH],
        remaining=set(remaining),
    )
