"""The checker's own model of a history: open runs, workers, leases. It believes what events say.

A run is dropped when it ends, but for its name: what is kept is bounded by what is open. Task
states here are three, as nothing else matters to what is checked.
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import NamedTuple

from dtf.api.v1 import common_pb2, events_pb2

QUEUED, LEASED, ENDED = 0, 1, 2
_QUEUED_TO_ENDED = bytes(ENDED if value == QUEUED else value for value in range(256))
_MOST_ATTEMPTS = 65_535


class Presence(Enum):
    """Where a worker stands."""

    ACTIVE = "active"
    DRAINING = "draining"
    QUARANTINED = "quarantined"
    LOST = "lost"
    LEFT = "left"

    @property
    def is_present(self) -> bool:
        """Whether its session is open."""
        return self in (Presence.ACTIVE, Presence.DRAINING, Presence.QUARANTINED)


class Lease(NamedTuple):
    """Who holds a task, and which."""

    run_id: str
    task: int
    worker_id: str
    incarnation: int


@dataclass(slots=True)
class Needs:
    """What a template asks of a worker, and what it allows."""

    cpus: float
    memory_bytes: int
    gpus: int
    labels: dict[str, str]
    pool: str
    test_retries: int
    infrastructure_retries: int

    @property
    def are_any(self) -> bool:
        """Whether an attempt takes a part of its worker."""
        return self.cpus > 0 or self.memory_bytes > 0 or self.gpus > 0

    @classmethod
    def of(cls, template: common_pb2.TaskTemplate) -> "Needs":
        """The needs of a template."""
        asked = template.requirements
        return cls(
            asked.resources.cpus,
            asked.resources.memory_bytes,
            asked.resources.gpus,
            dict(asked.labels),
            asked.pool,
            template.retry.test_retries,
            template.retry.infrastructure_retries,
        )


@dataclass(slots=True)
class RunBook:
    """What the checker keeps of an open run."""

    run_id: str
    request_id: str
    first_sequence: int
    needs: list[Needs]
    is_sealed: bool = False
    is_cancelling: bool = False
    last_batch: int = 0
    batch_decision: int = 0
    """The decision that brought the last batch: only that one may bring more of it."""
    batch_sizes: "array[int]" = field(default_factory=lambda: array("I"))
    tasks: bytearray = field(default_factory=bytearray)
    attempts: "array[int]" = field(default_factory=lambda: array("H"))
    templates: "array[int] | None" = None
    offsets: "array[int] | None" = None
    """Index of each task's first case, then the number of cases; None: task n has case n."""
    verdicts: bytearray = field(default_factory=bytearray)
    reported: dict[int, set[int]] = field(default_factory=dict)
    """Leased task → its cases reported in this attempt that are to be tried again."""
    failures: dict[int, int] = field(default_factory=dict)
    """Case (in the run) → times it failed and was to be tried again."""
    deaths: dict[int, int] = field(default_factory=dict)
    """Case (in the run) → times its process or worker died, and it was to be tried again."""
    task_deaths: dict[int, int] = field(default_factory=dict)
    """Task → attempts that died with no case known to run, and were to be tried again."""
    waiting: set[int] = field(default_factory=set)
    """Templates that no worker can run, as was said."""
    infrastructure_failures: int = 0
    leased: int = 0
    ended: int = 0

    def add(self, names: int, templates: "list[int]", case_counts: "list[int]") -> None:
        """Tasks join."""
        first, first_case = len(self.tasks), len(self.verdicts)
        if templates and self.templates is None:
            self.templates = array("I", bytes(4 * first))
        if self.templates is not None:
            self.templates.extend(templates or [0] * names)
        if case_counts and self.offsets is None:
            self.offsets = array("I", range(first + 1))
        if self.offsets is not None:
            counts = case_counts or [1] * names
            self.offsets.extend(list(accumulate(counts, initial=first_case))[1:])
        self.tasks += bytes(names)
        self.attempts.frombytes(bytes(names * self.attempts.itemsize))
        self.verdicts += bytes(sum(case_counts) if case_counts else names)

    def cases(self, task: int) -> range:
        """The cases of a task, by index in the run."""
        if self.offsets is None:
            return range(task, task + 1)
        return range(self.offsets[task], self.offsets[task + 1])

    def unjudged(self, task: int) -> int:
        """How many of its cases have no verdict."""
        cases = self.cases(task)
        return self.verdicts.count(0, cases.start, cases.stop)

    def needs_of(self, task: int) -> Needs:
        """What its template asks."""
        return self.needs[self.templates[task] if self.templates is not None else 0]

    def cancel(self) -> None:
        """What is queued ends."""
        self.is_cancelling = True
        self.ended += self.tasks.count(QUEUED)
        self.tasks = self.tasks.translate(_QUEUED_TO_ENDED)

    def begin_attempt(self, task: int) -> None:
        """A lease is granted."""
        if self.tasks[task] == ENDED:
            self.ended -= 1
        self.leased += self.tasks[task] != LEASED
        self.tasks[task] = LEASED
        self.attempts[task] = min(self.attempts[task] + 1, _MOST_ATTEMPTS)

    def end_attempt(self, task: int, *, is_requeued: bool) -> None:
        """A lease is over."""
        self.leased -= self.tasks[task] == LEASED
        self.tasks[task] = QUEUED if is_requeued else ENDED
        self.ended += not is_requeued
        self.reported.pop(task, None)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        if self.is_cancelling:
            return not self.leased
        return self.is_sealed and self.ended == len(self.tasks)


@dataclass(slots=True)
class WorkerBook:
    """What the checker keeps of a worker."""

    worker_id: str
    incarnation: int = 0
    presence: Presence = Presence.LEFT
    pool: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    """Of these three: what is free."""
    launch_id: str = ""
    join_token_id: str = ""
    held: int = 0
    """Leases."""

    def register(self, said: events_pb2.WorkerRegistered) -> None:
        """A session begins."""
        self.incarnation = said.incarnation
        self.presence = Presence.ACTIVE
        self.pool, self.labels, self.launch_id = said.pool, dict(said.labels), said.launch_id
        self.join_token_id = said.join_token_id
        self.cpus, self.gpus = said.resources.cpus, said.resources.gpus
        self.memory_bytes = said.resources.memory_bytes

    def matches(self, needs: Needs) -> bool:
        """Whether it carries the labels and is of the pool."""
        if needs.pool and needs.pool != self.pool:
            return False
        return all(self.labels.get(key) == value for key, value in needs.labels.items())

    def take(self, needs: Needs, sign: int = 1) -> None:
        """An attempt occupies a part of it (or, with -1, gives it back)."""
        self.cpus -= sign * needs.cpus
        self.memory_bytes -= sign * needs.memory_bytes
        self.gpus -= sign * needs.gpus

    @property
    def is_overfull(self) -> bool:
        """Whether its attempts occupy more than it has."""
        return self.cpus < -1e-6 or self.memory_bytes < 0 or self.gpus < 0


@dataclass(slots=True)
class TokenBook:
    """What the checker keeps of a join token."""

    pool: str
    launch_id: str
    expires_at_ns: int
    is_single_use: bool
    use_count: int = 0
    is_revoked: bool = False


@dataclass(slots=True)
class Books:
    """Everything that is open."""

    epoch: int = 0
    elected_epoch: int = 0
    """Of the last LeaderElected."""
    nonce: bytes = b""
    counter: int = 0
    now_ns: int = 0
    decision: int = 0
    """Number of the decision being read; all events of one command have it."""
    cut_decision: int = 0
    """The last decision whose reign ended in the middle of it."""
    last_fence: int = 0
    runs: dict[str, RunBook] = field(default_factory=dict)
    ended_runs: dict[str, str] = field(default_factory=dict)
    """Ended and not retired → request id."""
    retired_runs: dict[str, str] = field(default_factory=dict)
    """Retired and not forgotten → request id."""
    requests: dict[str, str] = field(default_factory=dict)
    """Request id → run, of those that are not forgotten."""
    workers: dict[str, WorkerBook] = field(default_factory=dict)
    tokens: dict[str, TokenBook] = field(default_factory=dict)
    """Join tokens that are not forgotten."""
    leases: dict[int, Lease] = field(default_factory=dict)
    """By fence, those that are held."""
    incarnation_floor: int = 0
    """Highest incarnation of a forgotten worker."""
    ended_count: int = 0
    accepted_losses: int = 0
    """Times an operator let the log go on without its lost tail."""

    def release(self, fence: int) -> Lease | None:
        """The lease is over; who held it, if anyone did."""
        lease = self.leases.pop(fence, None)
        if lease is None:
            return None
        worker, run = self.workers[lease.worker_id], self.runs.get(lease.run_id)
        worker.held -= 1
        if run is not None:
            needs = run.needs_of(lease.task)
            if needs.are_any:
                worker.take(needs, -1)
        return lease
