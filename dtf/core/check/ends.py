"""What is checked of attempts that end without completing, and of tasks that end without one."""

from collections.abc import Sequence

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.check.attempts import check_holder, settle, task_name, verdict_name
from dtf.core.check.books import QUEUED, Books, Presence, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_FAILED = common_pb2.VERDICT_FAILED
_ERROR = common_pb2.VERDICT_ERROR


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
        is_held = check_holder(books, run, findings, said.worker_id, task, fence, speaks=False)
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
                f"{task_name(run, task)} {'goes back' if is_requeued else 'ends'} with {unjudged} cases unjudged",
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
            what = f"ends in case {running - 1} with verdict {verdict_name(verdict)}, which its retries do not allow"
        case common_pb2.OUTCOME_LOST:
            holds = not verdict and not rest
            what = "is lost with no case known to run, and a verdict follows"
        case common_pb2.OUTCOME_TIMED_OUT | common_pb2.OUTCOME_CRASHED:
            deaths = run.task_deaths.get(task, 0)
            is_last = deaths >= run.needs_of(task).infrastructure_retries
            holds = not verdict and rest == (_ERROR if is_last else 0)
            what = f"dies after {deaths} deaths, and the verdict {verdict_name(rest)} follows for all cases"
            run.task_deaths[task] = deaths + 1
        case _:
            findings.note(Property.KNOWN, f"an attempt at {task_name(run, task)} ends with outcome {outcome}")
            return
    if not holds:
        findings.note(Property.RETRIES, f"{task_name(run, task)} {what}")
    if rest:
        for case, in_run in enumerate(run.cases(task)):
            if not run.verdicts[in_run]:
                settle(run, findings, task, case, rest)


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
            Property.ONE_VERDICT, f"case {case} of {task_name(run, task)} was reported, and is said to run"
        )
    if not verdict:
        charges[in_run] = before + 1
        return not is_last
    settle(run, findings, task, case, verdict)
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
        if not check_holder(books, run, findings, said.worker_id, task, fence):
            continue
        if run.is_cancelling or run.reported.get(task):
            findings.note(
                Property.ATTEMPTS, f"{task_name(run, task)} is given back after cases of it were reported"
            )
        books.release(fence)
        run.attempts[task] -= run.attempts[task] > 0
        run.end_attempt(task, is_requeued=True)


def abandoned(run: RunBook, findings: Findings, said: events_pb2.TasksAbandoned) -> None:
    """Queued tasks end in error."""
    findings.checked[Property.QUEUE] += len(said.tasks)
    for task in said.tasks:
        if task >= len(run.tasks) or run.tasks[task] != QUEUED:
            findings.note(Property.QUEUE, f"{task_name(run, task)} is not queued, and is abandoned")
            continue
        if (run.templates[task] if run.templates is not None else 0) not in run.waiting:
            findings.note(
                Property.QUEUE, f"{task_name(run, task)} is abandoned, and was not said to wait for a worker"
            )
        for case, in_run in enumerate(run.cases(task)):
            if not run.verdicts[in_run]:
                settle(run, findings, task, case, _ERROR)
        run.end_attempt(task, is_requeued=False)
