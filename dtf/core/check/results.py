"""What is checked of results, and of the attempts that they complete."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.check import plain
from dtf.core.check.attempts import check_holder, settle, task_name, verdict_name
from dtf.core.check.books import Books, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_PASSED = common_pb2.VERDICT_PASSED
_FLAKY = common_pb2.VERDICT_FLAKY
_BAD = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR)
_VERDICTS = frozenset(common_pb2.Verdict.values()) - {common_pb2.VERDICT_UNSPECIFIED}


def accepted(books: Books, run: RunBook, findings: Findings, said: events_pb2.ResultsAccepted) -> None:
    """Verdicts are accepted, attempts complete."""
    count = len(said.tasks)
    if not _fits(said):
        findings.note(Property.KNOWN, f"the columns of results of run {run.run_id} have different lengths")
        return
    for which in (Property.STALE, Property.HOLDER, Property.ONE_VERDICT, Property.RETRIES):
        findings.checked[which] += count
    if plain.accept(books, run, said):
        findings.checked[Property.ATTEMPTS] += count
        return
    retried = frozenset(said.retried)
    cases = said.cases or [0] * count
    verdicts: Sequence[int] = said.verdicts or [_PASSED] * count
    rows = zip(said.tasks, said.fences, cases, verdicts, strict=True)
    for index, (task, fence, case, verdict) in enumerate(rows):
        check_holder(books, run, findings, said.worker_id, task, fence)
        if task >= len(run.tasks) or case >= len(run.cases(task)) or verdict not in _VERDICTS:
            findings.note(Property.KNOWN, f"case {case} of {task_name(run, task)} gets verdict {verdict}")
        elif index in retried:
            _report(run, findings, task, case, verdict)
        else:
            _judge(run, findings, task, case, verdict)
    _complete(books, run, findings, said)


def _fits(said: events_pb2.ResultsAccepted) -> bool:
    count = len(said.tasks)
    columns: tuple[Sequence[object], ...] = (said.cases, said.verdicts, said.details)
    return len(said.fences) == count and all(len(column) in (0, count) for column in columns)


def _report(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """A verdict that is not final: the case will be tried again."""
    in_run = run.cases(task)[case]
    reported = run.reported.setdefault(task, set())
    if run.verdicts[in_run] or case in reported:
        findings.note(
            Property.ONE_VERDICT, f"case {case} of {task_name(run, task)} is reported twice in one attempt"
        )
    failures, allowed = run.failures.get(in_run, 0), run.needs_of(task).test_retries
    if verdict not in _BAD or failures >= allowed or run.is_cancelling:
        findings.note(
            Property.RETRIES,
            f"case {case} of {task_name(run, task)} is to be tried again with verdict {verdict_name(verdict)}, "
            f"after {failures} failures of {allowed} allowed",
        )
    reported.add(case)
    run.failures[in_run] = failures + 1


def _judge(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """A final verdict that a worker reported."""
    in_run = run.cases(task)[case]
    if run.reported and case in run.reported.get(task, ()):
        findings.note(
            Property.ONE_VERDICT, f"case {case} of {task_name(run, task)} is reported twice in one attempt"
        )
    settle(run, findings, task, case, verdict)
    failures = run.failures.pop(in_run, 0) if run.failures else 0
    if verdict in _BAD:
        allowed = run.needs_of(task).test_retries
        holds = failures >= allowed or run.is_cancelling
    else:
        holds = (verdict == _FLAKY) == (failures > 0) or verdict not in (_PASSED, _FLAKY)
    if not holds:
        findings.note(
            Property.RETRIES,
            f"case {case} of {task_name(run, task)} ends {verdict_name(verdict)} after {failures} failures",
        )


def _complete(books: Books, run: RunBook, findings: Findings, said: events_pb2.ResultsAccepted) -> None:
    completed = said.fences if said.all_completed else said.completed
    requeued = set(said.requeued)
    findings.checked[Property.ATTEMPTS] += len(completed)
    for fence in completed:
        lease = books.release(fence)
        if lease is None:
            findings.note(Property.STALE, f"an attempt completes under fence {fence}, which is not held")
        elif lease.run_id == run.run_id:
            _end_whole(run, findings, lease.task, is_requeued=lease.task in requeued)
            requeued.discard(lease.task)
    if requeued:
        findings.note(
            Property.ATTEMPTS, f"tasks {sorted(requeued)[:8]} go back without an attempt that completed"
        )
    if not said.all_completed:
        for fence in set(said.fences) - set(completed):
            _check_unfinished(books, run, findings, fence)


def _end_whole(run: RunBook, findings: Findings, task: int, *, is_requeued: bool) -> None:
    pending = len(run.reported.get(task, ())) if run.reported else 0
    unjudged = run.unjudged(task)
    if unjudged != pending:
        findings.note(
            Property.ATTEMPTS,
            f"an attempt at {task_name(run, task)} completes with {unjudged - pending} cases unreported",
        )
    if is_requeued != (pending > 0 and not run.is_cancelling):
        findings.note(
            Property.ATTEMPTS,
            f"{task_name(run, task)} {'goes back' if is_requeued else 'ends'} with {pending} cases to be tried again",
        )
    run.end_attempt(task, is_requeued=is_requeued)


def _check_unfinished(books: Books, run: RunBook, findings: Findings, fence: int) -> None:
    lease = books.leases.get(fence)
    if lease is None or lease.run_id != run.run_id:
        return
    if run.unjudged(lease.task) == len(run.reported.get(lease.task, ())):
        what = f"each case of {task_name(run, lease.task)} is reported, and the attempt does not complete"
        findings.note(Property.ATTEMPTS, what)
