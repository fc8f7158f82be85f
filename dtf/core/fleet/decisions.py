"""Decisions about workers: sessions opened and closed, draining, quarantine, loss."""

from collections.abc import Iterator

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.registration import check_registration, registration_of
from dtf.core.fleet.tokens import admitting_token, check_repeated
from dtf.core.fleet.worker import Worker
from dtf.core.run import limits
from dtf.core.run.commands import (
    CloseSession,
    Conflict,
    DrainWorker,
    ExpireWorkers,
    NotFound,
    NotPossible,
    QuarantineWorker,
    ReconcileLeases,
    RegisterWorker,
    ReleaseWorker,
)
from dtf.core.run.endings import lose_leases
from dtf.core.run.outlook import Outlooks
from dtf.core.run.placement import no_longer_waiting
from dtf.core.run.state import State

COORDINATOR = "coordinator"
"""Who asks for the quarantine that goes on over a new session."""
_HOLDING = frozenset({common_pb2.WORKER_STATE_ACTIVE, common_pb2.WORKER_STATE_DRAINING})
"""States of a worker that may hold leases."""


def find_worker(state: State, worker_id: str) -> Worker:
    """The worker, or NotFound."""
    worker = state.workers.get(worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id[:128]!r} in this namespace", worker_id=worker_id[:128])
    return worker


def present_worker(state: State, worker_id: str) -> Worker:
    """The worker, if its session is open."""
    worker = find_worker(state, worker_id)
    if not worker.is_present:
        name = common_pb2.WorkerState.Name(worker.state).removeprefix("WORKER_STATE_").lower()
        raise NotPossible(f"worker {worker_id} is {name}: {worker.reason or 'its session is closed'}")
    return worker


def open_session(state: State, worker_id: str, incarnation: int) -> Worker:
    """The worker, if this incarnation's session is open."""
    worker = find_worker(state, worker_id)
    if incarnation != worker.incarnation:
        raise Conflict(
            f"incarnation {incarnation} of worker {worker_id} is not the present one ({worker.incarnation}); "
            "open a new session",
            incarnation=str(worker.incarnation),
        )
    return present_worker(state, worker_id)


def register_worker(state: State, command: RegisterWorker, now_ns: int = 0) -> list[events_pb2.Event]:
    """WorkerRegistered; before it the end of what its earlier incarnation held.

    Whoever was in quarantine stays there, though its session ended since: only an operator, by the
    command that releases it or by registering it with the operators' own token, trusts it again.
    """
    request = command.request
    check_registration(request)
    known = state.session_requests.get(request.request_id)
    if known is not None:
        worker = state.workers[known[0]]
        check_repeated(worker, known[1], command)
        if worker.incarnation == known[1] and worker.is_present:
            return []
        raise Conflict(
            f"request id {request.request_id!r} opened incarnation {known[1]} of worker {known[0]}, which is over; "
            "use a new id"
        )
    join_token_id = admitting_token(state, command, now_ns)
    worker_id = request.worker_id or command.worker_id
    if not worker_id or (not request.worker_id and worker_id in state.workers):
        raise Conflict(f"worker {worker_id!r} exists already; give a fresh identifier")
    events: list[events_pb2.Event] = []
    incarnation = state.incarnation_floor + 1
    outlooks = Outlooks()
    before = state.workers.get(worker_id)
    if before is not None:
        incarnation = before.incarnation + 1
        events.extend(_replace(state, before, incarnation, outlooks))
    registered = registration_of(worker_id, incarnation, join_token_id, request)
    events.append(events_pb2.Event(worker_registered=registered))
    distrust = before.distrust if before is not None and not command.is_by_operator else ""
    if distrust:
        quarantined = events_pb2.WorkerQuarantined(
            worker_id=worker_id, requested_by=COORDINATOR, reason=distrust
        )
        events.append(events_pb2.Event(worker_quarantined=quarantined))
    else:
        events.extend(no_longer_waiting(state, _as_it_will_be(registered)))
    return events + outlooks.finishing()


def _replace(
    state: State, before: Worker, incarnation: int, outlooks: Outlooks
) -> Iterator[events_pb2.Event]:
    if not before.is_present:
        return
    reason = f"incarnation {incarnation} of the worker took its place"
    yield _lost(before, 0.0, reason, events_pb2.LOSS_CAUSE_REPLACED)
    yield from lose_leases(state, before, reason, outlooks, is_charged=True)


def _as_it_will_be(registered: events_pb2.WorkerRegistered) -> Worker:
    return Worker(
        registered.worker_id,
        pool=registered.pool,
        labels=dict(registered.labels),
        cpus=registered.resources.cpus,
        memory_bytes=registered.resources.memory_bytes,
        gpus=registered.resources.gpus,
    )


def drain_worker(state: State, command: DrainWorker) -> list[events_pb2.Event]:
    """WorkerDrainRequested; nothing if it drains already."""
    worker = present_worker(state, command.worker_id)
    if command.only_if_idle and worker.lease_count:
        raise NotPossible(f"worker {worker.worker_id} holds {worker.lease_count} leases; it is not idle")
    if worker.state != common_pb2.WORKER_STATE_ACTIVE:
        return []
    requested = events_pb2.WorkerDrainRequested(
        worker_id=worker.worker_id,
        requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    return [events_pb2.Event(worker_drain_requested=requested)]


def quarantine_worker(state: State, command: QuarantineWorker) -> list[events_pb2.Event]:
    """WorkerQuarantined, and what it holds is requeued without a charge; nothing if it is already."""
    worker = present_worker(state, command.worker_id)
    if worker.state == common_pb2.WORKER_STATE_QUARANTINED:
        return []
    quarantined = events_pb2.WorkerQuarantined(
        worker_id=worker.worker_id,
        requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH],
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    outlooks = Outlooks()
    endings = lose_leases(state, worker, "its worker was quarantined", outlooks, is_charged=False)
    return [events_pb2.Event(worker_quarantined=quarantined), *endings, *outlooks.finishing()]


def release_worker(state: State, command: ReleaseWorker) -> list[events_pb2.Event]:
    """WorkerReleased; nothing if it works already."""
    worker = present_worker(state, command.worker_id)
    if worker.takes_work:
        return []
    released = events_pb2.WorkerReleased(
        worker_id=worker.worker_id, requested_by=command.requested_by[: limits.MAX_LABEL_LENGTH]
    )
    return [events_pb2.Event(worker_released=released), *no_longer_waiting(state, worker)]


def close_session(state: State, command: CloseSession) -> list[events_pb2.Event]:
    """WorkerLeft, if it holds nothing; nothing if it left already."""
    worker = find_worker(state, command.worker_id)
    if worker.state == common_pb2.WORKER_STATE_LEFT and worker.incarnation == command.incarnation:
        return []
    worker = open_session(state, command.worker_id, command.incarnation)
    if worker.lease_count:
        raise NotPossible(
            f"worker {worker.worker_id} holds {worker.lease_count} leases; report or release them first"
        )
    left = events_pb2.WorkerLeft(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        reason=command.reason[: limits.MAX_REASON_LENGTH],
    )
    return [events_pb2.Event(worker_left=left)]


def expire_workers(state: State, command: ExpireWorkers) -> list[events_pb2.Event]:
    """WorkerLost and the end of its leases, for each silent worker whose session is still open.

    With no worker named: what a decision left that was too large for one commit, when its reign ended
    between two of them. A worker may then be lost or quarantined and hold leases all the same, and a
    run may have nothing left to do and not have ended. Whom a loss is charged to was said in what
    landed, or will not be: a case that killed its worker may so get one try more.
    """
    events: list[events_pb2.Event] = []
    outlooks = Outlooks()
    if not command.silent:
        for holder in state.workers.values():
            if holder.lease_count and holder.state not in _HOLDING:
                events.extend(lose_leases(state, holder, holder.reason, outlooks, is_charged=False))
        for run in state.active_runs.values():
            outlooks.of(run)
    seen: set[str] = set()
    for worker_id, incarnation, silent_seconds in command.silent:
        worker = state.workers.get(worker_id)
        if worker is None or worker_id in seen:
            continue
        if worker.incarnation != incarnation or not worker.is_present:
            continue
        seen.add(worker_id)
        silence = f"nothing heard of worker {worker_id} for {silent_seconds:.1f} s"
        reason = command.reason[: limits.MAX_REASON_LENGTH] or silence
        cause = events_pb2.LOSS_CAUSE_REPORTED if command.reason else events_pb2.LOSS_CAUSE_SILENT
        events.append(_lost(worker, silent_seconds, reason, cause))
        events.extend(lose_leases(state, worker, reason, outlooks, is_charged=True))
    return events + outlooks.finishing()


def _lost(
    worker: Worker, silent_seconds: float, reason: str, cause: "events_pb2.LossCause.ValueType"
) -> events_pb2.Event:
    lost = events_pb2.WorkerLost(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        silent_seconds=silent_seconds,
        reason=reason,
        cause=cause,
    )
    return events_pb2.Event(worker_lost=lost)


def reconcile_leases(state: State, command: ReconcileLeases) -> list[events_pb2.Event]:
    """Decides nothing, but refuses a session that is over (queries.reconcile says what to send)."""
    open_session(state, command.worker_id, command.incarnation)
    return []
