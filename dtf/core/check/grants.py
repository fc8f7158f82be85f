"""What is checked of leases as they begin."""

from dtf.api.v1 import events_pb2
from dtf.core.check import plain
from dtf.core.check.attempts import task_name
from dtf.core.check.books import ENDED, LEASED, Books, Lease, Presence, RunBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings


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
        findings.note(Property.QUEUE, f"{task_name(run, task)} does not exist and is granted")
        return
    state = run.tasks[task]
    if state == LEASED:
        findings.note(
            Property.ONE_LEASE, f"{task_name(run, task)} is leased, and is granted again under fence {fence}"
        )
    elif state == ENDED:
        findings.note(Property.QUEUE, f"{task_name(run, task)} has ended, and is granted under fence {fence}")
    if attempt != run.attempts[task] + 1 and run.attempts[task] < 65_535:
        findings.note(
            Property.ATTEMPTS, f"{task_name(run, task)} begins attempt {attempt} after {run.attempts[task]}"
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
