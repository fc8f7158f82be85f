"""What a worker says of itself when it opens a session: whether that can be, and the event it comes to."""

from dtf.api.v1 import events_pb2, worker_service_pb2
from dtf.core.run import limits
from dtf.core.run.limits import Faults

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def check_registration(request: worker_service_pb2.CreateSessionRequest) -> None:
    """Raises InvalidRequest for what no session can be opened with."""
    faults = Faults()
    faults.text("request_id", request.request_id, 1, limits.MAX_REQUEST_ID_LENGTH)
    faults.text("worker_id", request.worker_id, 0, 128)
    if not set(request.worker_id) <= _ID_CHARACTERS:
        faults.add("worker_id", "may hold letters, digits, '-', '_' and '.' only")
    faults.text("pool", request.pool, 0, 128)
    faults.labels("labels", request.labels)
    faults.resources("resources", request.resources)
    faults.number("slots", request.slots, 1, limits.MAX_SLOTS)
    for name in ("host", "version", "launch_id"):
        faults.text(name, getattr(request, name), 0, limits.MAX_LABEL_LENGTH)
    faults.refuse_if_any("the session cannot be opened")


def registration_of(
    worker_id: str, incarnation: int, join_token_id: str, request: worker_service_pb2.CreateSessionRequest
) -> events_pb2.WorkerRegistered:
    """What a session that was asked for is registered as."""
    return events_pb2.WorkerRegistered(
        worker_id=worker_id,
        incarnation=incarnation,
        pool=request.pool,
        labels=request.labels,
        resources=request.resources,
        slots=request.slots,
        host=request.host,
        process_id=request.process_id,
        version=request.version,
        launch_id=request.launch_id,
        request_id=request.request_id,
        join_token_id=join_token_id,
    )
