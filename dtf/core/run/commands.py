"""What can be asked of the coordinator's core. `decide` turns each into events or a Rejection.

Identifiers, times and random numbers are arguments, so that the same command decides the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2, run_service_pb2, worker_service_pb2


@dataclass(frozen=True, slots=True)
class ElectLeader:
    """Take up a reign."""

    leader: str
    lease_seconds: float
    accepted_loss: events_pb2.AcceptedLoss | None = None
    """Set where an operator lets the log go on without commits that it lost."""


@dataclass(frozen=True, slots=True)
class CreateRun:
    """Begin a run. `run_id` is a fresh identifier, used unless the request id is known."""

    run_id: str
    request: run_service_pb2.CreateRunRequest
    task: common_pb2.TaskSpec | None = None
    """Its only task: the run is created, fed and sealed by one decision, so no log has it half made."""


@dataclass(frozen=True, slots=True)
class SubmitTasks:
    """Add tasks to a run, and seal it if asked."""

    request: run_service_pb2.SubmitTasksRequest


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Stop a run."""

    run_id: str
    requested_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class RegisterWorker:
    """Open a session. `worker_id` is a fresh identifier, used when the request names none."""

    worker_id: str
    request: worker_service_pb2.CreateSessionRequest
    join_token_id: str = ""
    """Join token whose secret the caller knows; empty: it knows the operators' own."""
    proved_incarnation: int = 0
    """Incarnation of the worker that the request names whose secret the caller knows; 0: it shows no such."""

    @property
    def is_by_operator(self) -> bool:
        """Whether the caller knows the operators' own token."""
        return not self.join_token_id and not self.proved_incarnation


@dataclass(frozen=True, slots=True)
class IssueToken:
    """Let workers join a pool by a token. `token_id` is fresh; `cluster_id` is used if the log has none."""

    token_id: str
    secret_hash: bytes
    pool: str
    expires_at_ns: int
    cluster_id: str
    is_single_use: bool = False
    launch_id: str = ""
    issued_by: str = ""


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Let a join token admit nobody any more."""

    token_id: str
    revoked_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class GrantLeases:
    """Hand queued tasks to workers.

    `credits` says how many more leases each attached worker takes now; workers are served in
    turn, in the order of the mapping.
    """

    credits: Mapping[str, int]
    limit: int = 4096


@dataclass(frozen=True, slots=True)
class ReportResults:
    """Results, ends and released leases of one worker, as it sent them."""

    worker_id: str
    incarnation: int
    results: Sequence[worker_service_pb2.CaseResults] = ()
    ends: Sequence[worker_service_pb2.AttemptEnd] = ()
    released_fences: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ReconcileLeases:
    """What a worker holds when it attaches. Leases it should hold and does not are granted anew by the shell."""

    worker_id: str
    incarnation: int
    held_fences: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Let a worker take nothing new."""

    worker_id: str
    requested_by: str
    reason: str
    only_if_idle: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineWorker:
    """Trust a worker with nothing more and requeue what it holds."""

    worker_id: str
    requested_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseWorker:
    """Let a drained or quarantined worker work again."""

    worker_id: str
    requested_by: str


@dataclass(frozen=True, slots=True)
class CloseSession:
    """A worker leaves."""

    worker_id: str
    incarnation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ExpireWorkers:
    """Workers not heard from for longer than the lease: (worker, incarnation, silent seconds).

    With none, it ends what a decision left half done when the reign before ended between its commits.
    """

    silent: Sequence[tuple[str, int, float]]
    reason: str = ""
    """How they ended, where that is known (their provider saw it); empty: they fell silent."""


@dataclass(frozen=True, slots=True)
class ReviewPlacement:
    """Say which queued templates no present worker can run, and end those that waited too long."""

    worker_expected: bool = field(default=False)


@dataclass(frozen=True, slots=True)
class ScalePool:
    """Wish bounds or a size of a pool; what is None is left to the pool's settings."""

    pool: str
    min_workers: int | None
    max_workers: int | None
    workers: int | None
    requested_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class PausePool:
    """Let a pool's size stay as it is."""

    pool: str
    requested_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResumePool:
    """Let a paused pool change its size again."""

    pool: str
    requested_by: str


@dataclass(frozen=True, slots=True)
class RetireRuns:
    """Let ended runs leave the working state; the newest stay, by number and by the tasks they hold."""

    kept_runs: int
    kept_tasks: int
    grace_seconds: float
    """A run stays at least as long after it ended."""
    kept_outlines: int = 10_000
    """Retired runs of which an outline stays at hand: ten megabytes."""


@dataclass(frozen=True, slots=True)
class ForgetWorkers:
    """Let workers leave the working state whose sessions ended; the last to go stay."""

    kept_workers: int
    grace_seconds: float
    kept_requests: int = 10_000
    """Keys of earlier sessions of workers that are known."""


Command = (
    ElectLeader
    | CreateRun
    | SubmitTasks
    | CancelRun
    | RegisterWorker
    | IssueToken
    | RevokeToken
    | GrantLeases
    | ReportResults
    | ReconcileLeases
    | DrainWorker
    | QuarantineWorker
    | ReleaseWorker
    | CloseSession
    | ExpireWorkers
    | ReviewPlacement
    | ScalePool
    | PausePool
    | ResumePool
    | RetireRuns
    | ForgetWorkers
)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One fault of a request."""

    field: str
    description: str


class Rejection(Exception):
    """A command that cannot be done, and why.

    Rejection
    ├── InvalidRequest       the request itself is at fault (violations say where)
    ├── NotFound             it names something that is not there
    ├── Conflict             it contradicts what is there
    ├── NotPossible          the state does not allow it now
    ├── TokenRefused         the join token, or the session, does not admit this worker
    └── Unplaceable          nothing could ever run it
    """

    reason = "REJECTED"

    def __init__(self, message: str, *, violations: Sequence[FieldViolation] = (), **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.metadata = metadata


class InvalidRequest(Rejection):
    """The request itself is at fault."""

    reason = "INVALID_REQUEST"


class NotFound(Rejection):
    """It names something that is not there."""

    reason = "NOT_FOUND"


class Conflict(Rejection):
    """It contradicts what is there."""

    reason = "CONFLICT"


class NotPossible(Rejection):
    """The state does not allow it now."""

    reason = "NOT_POSSIBLE"


class TokenRefused(Rejection):
    """The join token, or the session, does not admit this worker."""

    reason = "TOKEN_REFUSED"


class Unplaceable(Rejection):
    """Nothing could ever run it."""

    reason = "UNPLACEABLE"
