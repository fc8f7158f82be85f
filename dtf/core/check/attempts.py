"""What is checked of leases and of what comes of them: results, ends, releases."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.check import plain
from dtf.core.check.books import ENDED, LEASED, QUEUED, Books, Lease, Presence, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_PASSED = common_pb2.VERDICT_PASSED
_FAILED = common_pb2.VERDICT_FAILED
_ERROR = common_pb2.VERDICT_ERROR
_FLAKY = common_pb2.VERDICT_FLAKY
_BAD = (_FAILED, _ERROR)
_NAMES: dict[int, str] = {
    number: name.removeprefix("VERDICT_") for name, number in common_pb2.Verdict.items()
}
_VERDICTS = frozenset(common_pb2.Verdict.values()) - {common_pb2.VERDICT_UNSPECIFIED}


def granted(books: Books, run: RunBook, findings: Findings, said: events_pb2.LeasesGranted) -> None:
    """Leases begin."""
    count = len(said.tasks)
    _check_receiver(books, run, findings, said)
    holds = said.first_fence > books.last_fence
    findings.expect(Property.FENCES, holds, f"fence {said.first_fence} comes after {books.last_fence}")
    books.last_fence = max(books.last_fence, said.first_fence + count - 1)
    if said.attempts and len(said.attempts) != count:
        findings.note(Property.KNOWN, f"{len(said.attempts)} attempts for {count} leases")
        return
    for which in (Property.ONE_LEASE, Property.QUEUE, Property.ATTEMPTS):
        findings.checked[which] += count
    if not plain.grant(books, run, said, is_fresh=holds):
        attempts = said.attempts or [1] * count
        for fence, task, attempt in zip(
            range(said.first_fence, said.first_fence + count), said.tasks, attempts, strict=True
        ):
            _begin(books, run, findings, said, fence, task, attempt)
    _check_room(books, run, findings, said)


def _check_receiver(books: Books, run: RunBook, findings: Findings, said: events_pb2.LeasesGranted) -> None:
    worker = books.workers.get(said.worker_id)
    grants = Property.GRANTS
    if not findings.expect(grants, worker is not None, f"worker {said.worker_id} never registered"):
        return
    assert worker is not None
    present = worker.presence is Presence.ACTIVE
    findings.expect(
        grants, present, f"worker {said.worker_id} is {worker.presence.value} and is granted leases"
    )
    same = worker.incarnation == said.incarnation
    what = f"worker {said.worker_id} is at incarnation {worker.incarnation}; granted to {said.incarnation}"
    findings.expect(grants, same, what)
    findings.expect(
        grants, not run.is_cancelling, f"run {run.run_id} is being cancelled and is granted leases"
    )


def _begin(
    books: Books,
    run: RunBook,
    findings: Findings,
    said: events_pb2.LeasesGranted,
    fence: int,
    task: int,
    attempt: int,
) -> None:
    if task >= len(run.tasks):
        findings.note(Property.QUEUE, f"{_task(run, task)} does not exist and is granted")
        return
    state = run.tasks[task]
    if state == LEASED:
        findings.note(
            Property.ONE_LEASE, f"{_task(run, task)} is leased, and is granted again under fence {fence}"
        )
    elif state == ENDED:
        findings.note(Property.QUEUE, f"{_task(run, task)} has ended, and is granted under fence {fence}")
    if attempt != run.attempts[task] + 1 and run.attempts[task] < 65_535:
        findings.note(
            Property.ATTEMPTS, f"{_task(run, task)} begins attempt {attempt} after {run.attempts[task]}"
        )
    if fence in books.leases:
        books.release(fence)
    run.begin_attempt(task)
    worker = books.workers.get(said.worker_id)
    if worker is not None:
        books.leases[fence] = Lease(run.run_id, task, said.worker_id, said.incarnation)
        worker.held += 1


def _check_room(books: Books, run: RunBook, findings: Findings, said: events_pb2.LeasesGranted) -> None:
    """The worker can run these tasks, all at once where they occupy a part of it."""
    worker = books.workers.get(said.worker_id)
    if worker is None:
        return
    tasks = [task for task in said.tasks if task < len(run.tasks)]
    templates = range(1) if run.templates is None else sorted({run.templates[task] for task in tasks})
    for template in templates:
        holds = worker.matches(run.needs[template])
        findings.expect(
            Property.GRANTS,
            holds,
            f"worker {worker.worker_id} does not fit template {template} of run {run.run_id}",
        )
    if any(run.needs[template].are_any for template in templates):
        for task in tasks:
            worker.take(run.needs_of(task))
        findings.expect(
            Property.GRANTS,
            not worker.is_overfull,
            f"worker {worker.worker_id} has no room for what it is granted",
        )


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
        _check_holder(books, run, findings, said.worker_id, task, fence)
        if task >= len(run.tasks) or case >= len(run.cases(task)) or verdict not in _VERDICTS:
            findings.note(Property.KNOWN, f"case {case} of {_task(run, task)} gets verdict {verdict}")
        elif index in retried:
            _report(run, findings, task, case, verdict)
        else:
            _judge(run, findings, task, case, verdict)
    _complete(books, run, findings, said)


def _fits(said: events_pb2.ResultsAccepted) -> bool:
    count = len(said.tasks)
    columns: tuple[Sequence[object], ...] = (said.cases, said.verdicts, said.details)
    return len(said.fences) == count and all(len(column) in (0, count) for column in columns)


def _check_holder(
    books: Books,
    run: RunBook,
    findings: Findings,
    worker_id: str,
    task: int,
    fence: int,
    *,
    speaks: bool = True,
) -> bool:
    """Whether the fence is held; by whom is looked at too. `speaks`: the worker itself said it."""
    lease = books.leases.get(fence)
    if lease is None:
        findings.note(Property.STALE, f"{_task(run, task)} is told of under fence {fence}, which is not held")
        return False
    if lease.task != task or lease.run_id != run.run_id:
        findings.note(
            Property.HOLDER,
            f"fence {fence} is of task {lease.task} of run {lease.run_id}, not {_task(run, task)}",
        )
        return False
    worker = books.workers[lease.worker_id]
    if lease.worker_id != worker_id or (lease.incarnation != worker.incarnation):
        findings.note(
            Property.HOLDER,
            f"fence {fence} is held by {lease.worker_id}, incarnation {lease.incarnation}; told of by "
            f"{worker_id}, incarnation {books.workers[worker_id].incarnation if worker_id in books.workers else 0}",
        )
    elif speaks and not worker.presence.is_present:
        findings.note(
            Property.HOLDER, f"worker {worker_id} is {worker.presence.value}, and its results are accepted"
        )
    return True


def _report(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """A verdict that is not final: the case will be tried again."""
    in_run = run.cases(task)[case]
    reported = run.reported.setdefault(task, set())
    if run.verdicts[in_run] or case in reported:
        findings.note(
            Property.ONE_VERDICT, f"case {case} of {_task(run, task)} is reported twice in one attempt"
        )
    failures, allowed = run.failures.get(in_run, 0), run.needs_of(task).test_retries
    if verdict not in _BAD or failures >= allowed or run.is_cancelling:
        findings.note(
            Property.RETRIES,
            f"case {case} of {_task(run, task)} is to be tried again with verdict {_name(verdict)}, "
            f"after {failures} failures of {allowed} allowed",
        )
    reported.add(case)
    run.failures[in_run] = failures + 1


def _judge(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """A final verdict that a worker reported."""
    in_run = run.cases(task)[case]
    if run.reported and case in run.reported.get(task, ()):
        findings.note(
            Property.ONE_VERDICT, f"case {case} of {_task(run, task)} is reported twice in one attempt"
        )
    _settle(run, findings, task, case, verdict)
    failures = run.failures.pop(in_run, 0) if run.failures else 0
    if verdict in _BAD:
        allowed = run.needs_of(task).test_retries
        holds = failures >= allowed or run.is_cancelling
    else:
        holds = (verdict == _FLAKY) == (failures > 0) or verdict not in (_PASSED, _FLAKY)
    if not holds:
        findings.note(
            Property.RETRIES,
            f"case {case} of {_task(run, task)} ends {_name(verdict)} after {failures} failures",
        )


def _settle(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """The case has its final verdict."""
    in_run = run.cases(task)[case]
    before = run.verdicts[in_run]
    if before:
        findings.note(
            Property.ONE_VERDICT,
            f"case {case} of {_task(run, task)} is {_name(before)}, and is judged again: {_name(verdict)}",
        )
    run.verdicts[in_run] = verdict
    if run.deaths:
        run.deaths.pop(in_run, None)


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
            f"an attempt at {_task(run, task)} completes with {unjudged - pending} cases unreported",
        )
    if is_requeued != (pending > 0 and not run.is_cancelling):
        findings.note(
            Property.ATTEMPTS,
            f"{_task(run, task)} {'goes back' if is_requeued else 'ends'} with {pending} cases to be tried again",
        )
    run.end_attempt(task, is_requeued=is_requeued)


def _check_unfinished(books: Books, run: RunBook, findings: Findings, fence: int) -> None:
    lease = books.leases.get(fence)
    if lease is None or lease.run_id != run.run_id:
        return
    if run.unjudged(lease.task) == len(run.reported.get(lease.task, ())):
        what = f"each case of {_task(run, lease.task)} is reported, and the attempt does not complete"
        findings.note(Property.ATTEMPTS, what)


def ended(books: Books, run: RunBook, findings: Findings, said: events_pb2.AttemptsEnded) -> None:
    """Attempts end otherwise."""
    count = len(said.tasks)
    columns: tuple[Sequence[object], ...] = (
        said.fences,
        said.outcomes,
        said.requeued,
        said.running_cases,
        said.verdicts,
        said.remaining_verdicts,
    )
    if any(len(column) != count for column in columns):
        findings.note(
            Property.KNOWN, f"the columns of ended attempts of run {run.run_id} have different lengths"
        )
        return
    for which in (Property.STALE, Property.HOLDER, Property.ATTEMPTS, Property.RETRIES):
        findings.checked[which] += count
    worker = books.workers.get(said.worker_id)
    if common_pb2.OUTCOME_LOST in said.outcomes and worker is not None:
        is_gone = worker.presence in (Presence.LOST, Presence.QUARANTINED)
        what = f"attempts of worker {said.worker_id} are lost, which is {worker.presence.value}"
        findings.expect(Property.ATTEMPTS, is_gone, what)
    for index, (task, fence) in enumerate(zip(said.tasks, said.fences, strict=True)):
        is_held = _check_holder(books, run, findings, said.worker_id, task, fence, speaks=False)
        if task >= len(run.tasks):
            continue
        _charge(run, findings, said, index)
        if not is_held:
            continue
        books.release(fence)
        unjudged, is_requeued = run.unjudged(task), said.requeued[index]
        if is_requeued != (unjudged > 0 and not run.is_cancelling):
            findings.note(
                Property.ATTEMPTS,
                f"{_task(run, task)} {'goes back' if is_requeued else 'ends'} with {unjudged} cases unjudged",
            )
        run.end_attempt(task, is_requeued=is_requeued)


def _charge(run: RunBook, findings: Findings, said: events_pb2.AttemptsEnded, index: int) -> None:
    """Who is charged with the end, and whether a verdict follows as it must."""
    task, outcome = said.tasks[index], said.outcomes[index]
    running, verdict, rest = said.running_cases[index], said.verdicts[index], said.remaining_verdicts[index]
    run.infrastructure_failures += outcome in (common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_LOST)
    match outcome:
        case common_pb2.OUTCOME_CANCELLED:
            holds = not verdict and not rest
            what = "is cancelled, and a verdict follows"
        case common_pb2.OUTCOME_TIMED_OUT | common_pb2.OUTCOME_CRASHED | common_pb2.OUTCOME_LOST if running:
            holds = running <= len(run.cases(task)) and not rest and _charge_case(run, findings, said, index)
            what = f"ends in case {running - 1} with verdict {_name(verdict)}, which its retries do not allow"
        case common_pb2.OUTCOME_LOST:
            holds = not verdict and not rest
            what = "is lost with no case known to run, and a verdict follows"
        case common_pb2.OUTCOME_TIMED_OUT | common_pb2.OUTCOME_CRASHED:
            deaths = run.task_deaths.get(task, 0)
            is_last = deaths >= run.needs_of(task).infrastructure_retries
            holds = not verdict and rest == (_ERROR if is_last else 0)
            what = f"dies after {deaths} deaths, and the verdict {_name(rest)} follows for all cases"
            run.task_deaths[task] = deaths + 1
        case _:
            findings.note(Property.KNOWN, f"an attempt at {_task(run, task)} ends with outcome {outcome}")
            return
    if not holds:
        findings.note(Property.RETRIES, f"{_task(run, task)} {what}")
    if rest:
        for case, in_run in enumerate(run.cases(task)):
            if not run.verdicts[in_run]:
                _settle(run, findings, task, case, rest)


def _charge_case(run: RunBook, findings: Findings, said: events_pb2.AttemptsEnded, index: int) -> bool:
    """The case that ran is charged; whether its allowance and its verdict agree."""
    task, verdict = said.tasks[index], said.verdicts[index]
    case = said.running_cases[index] - 1
    in_run, needs = run.cases(task)[case], run.needs_of(task)
    is_time_out = said.outcomes[index] == common_pb2.OUTCOME_TIMED_OUT
    charges = run.failures if is_time_out else run.deaths
    before = charges.get(in_run, 0)
    is_last = (
        before >= (needs.test_retries if is_time_out else needs.infrastructure_retries) or run.is_cancelling
    )
    if case in run.reported.get(task, ()) or (run.verdicts[in_run] and not verdict):
        findings.note(
            Property.ONE_VERDICT, f"case {case} of {_task(run, task)} was reported, and is said to run"
        )
    if not verdict:
        charges[in_run] = before + 1
        return not is_last
    _settle(run, findings, task, case, verdict)
    run.failures.pop(in_run, None)
    return is_last and verdict == (_FAILED if is_time_out else _ERROR)


def released(books: Books, run: RunBook, findings: Findings, said: events_pb2.LeasesReleased) -> None:
    """Leases go back as if they had not been."""
    if len(said.fences) != len(said.tasks):
        findings.note(Property.KNOWN, f"{len(said.fences)} fences for {len(said.tasks)} released leases")
        return
    for which in (Property.STALE, Property.HOLDER, Property.ATTEMPTS):
        findings.checked[which] += len(said.tasks)
    for task, fence in zip(said.tasks, said.fences, strict=True):
        if not _check_holder(books, run, findings, said.worker_id, task, fence):
            continue
        if run.is_cancelling or run.reported.get(task):
            findings.note(
                Property.ATTEMPTS, f"{_task(run, task)} is given back after cases of it were reported"
            )
        books.release(fence)
        run.attempts[task] -= run.attempts[task] > 0
        run.end_attempt(task, is_requeued=True)


def abandoned(run: RunBook, findings: Findings, said: events_pb2.TasksAbandoned) -> None:
    """Queued tasks end in error."""
    findings.checked[Property.QUEUE] += len(said.tasks)
    for task in said.tasks:
        if task >= len(run.tasks) or run.tasks[task] != QUEUED:
            findings.note(Property.QUEUE, f"{_task(run, task)} is not queued, and is abandoned")
            continue
        if (run.templates[task] if run.templates is not None else 0) not in run.waiting:
            findings.note(
                Property.QUEUE, f"{_task(run, task)} is abandoned, and was not said to wait for a worker"
            )
        for case, in_run in enumerate(run.cases(task)):
            if not run.verdicts[in_run]:
                _settle(run, findings, task, case, _ERROR)
        run.end_attempt(task, is_requeued=False)


def _task(run: RunBook, task: int) -> str:
    return f"task {task} of run {run.run_id}"


def _name(verdict: int) -> str:
    return _NAMES.get(verdict, str(verdict))
