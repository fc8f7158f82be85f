"""What is checked of workers: sessions, draining, loss; and that the idle ones alone are let go."""

from dtf.api.v1 import events_pb2
from dtf.core.check.books import Books, Presence, WorkerBook
from dtf.core.check.properties import Property
from dtf.core.check.report import Findings

RESOURCE_MANAGER = "resource-manager"
"""How the resource manager names itself where it asks for a drain."""


def registered(books: Books, findings: Findings, said: events_pb2.WorkerRegistered) -> None:
    """A session begins."""
    worker = books.workers.setdefault(said.worker_id, WorkerBook(said.worker_id))
    highest = worker.incarnation or books.incarnation_floor
    rises = said.incarnation > highest
    what = f"worker {said.worker_id} registers as incarnation {said.incarnation} after {highest}"
    findings.expect(Property.INCARNATIONS, rises, what)
    is_over = not worker.presence.is_present
    what = (
        f"worker {said.worker_id} registers while incarnation {worker.incarnation} is {worker.presence.value}"
    )
    findings.expect(Property.INCARNATIONS, is_over, what)
    what = f"worker {said.worker_id} registers while {worker.held} leases of the incarnation before are held"
    findings.expect(Property.ORPHANS, not worker.held, what)
    worker.register(said)


def find(books: Books, findings: Findings, worker_id: str, kind: str) -> WorkerBook | None:
    """The worker; one that never registered is at fault."""
    worker = books.workers.get(worker_id)
    if worker is None:
        findings.note(
            Property.INCARNATIONS, f"{kind} of worker {worker_id}, which never registered or is forgotten"
        )
    return worker


def drain_requested(worker: WorkerBook, findings: Findings, said: events_pb2.WorkerDrainRequested) -> None:
    """It finishes what it holds."""
    _expect_presence(worker, findings, "drained", Presence.ACTIVE)
    if said.requested_by == RESOURCE_MANAGER:
        what = f"the resource manager drains worker {worker.worker_id}, which holds {worker.held} leases"
        findings.expect(Property.BUSY, not worker.held, what)
    worker.presence = Presence.DRAINING


def quarantined(worker: WorkerBook, findings: Findings) -> None:
    """It is trusted with nothing."""
    _expect_presence(worker, findings, "quarantined", Presence.ACTIVE, Presence.DRAINING)
    worker.presence = Presence.QUARANTINED


def released(worker: WorkerBook, findings: Findings) -> None:
    """It works again."""
    _expect_presence(worker, findings, "released", Presence.DRAINING, Presence.QUARANTINED)
    worker.presence = Presence.ACTIVE


def _expect_presence(worker: WorkerBook, findings: Findings, what: str, *expected: Presence) -> None:
    holds = worker.presence in expected
    seen = f"worker {worker.worker_id} is {what} while it is {worker.presence.value}"
    findings.expect(Property.INCARNATIONS, holds, seen)


def gone(worker: WorkerBook, findings: Findings, incarnation: int, presence: Presence) -> None:
    """Its session ends."""
    holds = worker.presence.is_present and worker.incarnation == incarnation
    what = (
        f"incarnation {incarnation} of worker {worker.worker_id} is {presence.value}, "
        f"while incarnation {worker.incarnation} is {worker.presence.value}"
    )
    findings.expect(Property.INCARNATIONS, holds, what)
    if presence is Presence.LEFT:
        what = f"worker {worker.worker_id} leaves with {worker.held} leases"
        findings.expect(Property.ORPHANS, not worker.held, what)
    worker.presence = presence


def forgotten(books: Books, findings: Findings, said: events_pb2.WorkersForgotten) -> None:
    """Workers long gone leave the coordinator's memory."""
    for worker_id in said.worker_ids:
        worker = books.workers.get(worker_id)
        what = f"worker {worker_id} is forgotten, and {'is present' if worker else 'was not known'}"
        is_gone = worker is not None and not worker.presence.is_present and not worker.held
        findings.expect(Property.RETIREMENT, is_gone, what)
        if worker is None:
            continue
        what = f"worker {worker_id} is forgotten at incarnation {worker.incarnation}, above the floor"
        findings.expect(Property.INCARNATIONS, worker.incarnation <= said.incarnation_floor, what)
        if not worker.held:
            del books.workers[worker_id]
    books.incarnation_floor = max(books.incarnation_floor, said.incarnation_floor)


def check_orphans(worker: WorkerBook, findings: Findings) -> None:
    """After the decision that took its work away, it holds none."""
    if worker.presence not in (Presence.ACTIVE, Presence.DRAINING):
        what = (
            f"worker {worker.worker_id} is {worker.presence.value}, and {worker.held} leases of it are held"
        )
        findings.expect(Property.ORPHANS, not worker.held, what)
