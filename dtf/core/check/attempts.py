"""What the checks of grants, results and ends share: who holds a lease, and how a case is settled."""

from dtf.api.v1 import common_pb2
from dtf.core.check.books import Books, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

_NAMES: dict[int, str] = {
    number: name.removeprefix("VERDICT_") for name, number in common_pb2.Verdict.items()
}


def check_holder(
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
        findings.note(
            Property.STALE, f"{task_name(run, task)} is told of under fence {fence}, which is not held"
        )
        return False
    if lease.task != task or lease.run_id != run.run_id:
        findings.note(
            Property.HOLDER,
            f"fence {fence} is of task {lease.task} of run {lease.run_id}, not {task_name(run, task)}",
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


def settle(run: RunBook, findings: Findings, task: int, case: int, verdict: int) -> None:
    """The case has its final verdict."""
    in_run = run.cases(task)[case]
    before = run.verdicts[in_run]
    if before:
        findings.note(
            Property.ONE_VERDICT,
            f"case {case} of {task_name(run, task)} is {verdict_name(before)}, and is judged again: {verdict_name(verdict)}",
        )
    run.verdicts[in_run] = verdict
    if run.deaths:
        run.deaths.pop(in_run, None)


def task_name(run: RunBook, task: int) -> str:
    """A task, as findings say it."""
    return f"task {task} of run {run.run_id}"


def verdict_name(verdict: int) -> str:
    """A verdict, as findings say it."""
    return _NAMES.get(verdict, str(verdict))
