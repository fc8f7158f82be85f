"""What the log says: runs, their tasks and cases in columns, workers and their leases.

Only `evolve` changes any of it; everyone else reads attributes. A task is its index in its run's
columns and a lease an entry of its worker's `leases`, so a queued task costs its strings and
about twenty bytes, and nothing that the garbage collector must visit.

    task:  QUEUED ──LeasesGranted──▶ LEASED ──every case reported──▶ FINISHED
             ▲  │                      │  │
             │  │                      │  └─ AttemptsEnded, not requeued ─▶ FINISHED or CANCELLED
             │  └─ RunCancelRequested ─┼─▶ CANCELLED         (TasksAbandoned: QUEUED ─▶ FINISHED)
             └───── requeued, released ┘

    run:   ACTIVE ──sealed, every task ended──▶ FINISHED
             └──RunCancelRequested──▶ CANCELLING ──no lease left──▶ CANCELLED
"""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.join_token import JoinToken
from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.fleet.worker import Worker
from dtf.core.run.task_queue import TaskQueue

VERDICTS = len(common_pb2.Verdict.keys())
TERMINAL = frozenset({common_pb2.RUN_STATE_FINISHED, common_pb2.RUN_STATE_CANCELLED})


@dataclass(slots=True)
class Template:
    """What the scheduler needs of a TaskTemplate, and what it has learned of its cases."""

    index: int
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    pool: str = ""
    test_retries: int = 0
    infrastructure_retries: int = 0
    timeout_seconds: float = 0.0
    is_waiting: bool = False
    """No present worker can run its tasks, and PlacementChanged said so."""
    waiting_reason: str = ""
    waiting_since_ns: int = 0
    observed_seconds: float = 0.0
    """Sum of accepted durations of `observed_count` cases; both are halved at 4,096, so old ones fade."""
    observed_count: int = 0

    @classmethod
    def of(cls, index: int, template: common_pb2.TaskTemplate) -> "Template":
        """A template as its run declares it, with nothing learned yet."""
        needs = template.requirements
        return cls(
            index=index,
            cpus=needs.resources.cpus,
            memory_bytes=needs.resources.memory_bytes,
            gpus=needs.resources.gpus,
            labels=dict(needs.labels),
            pool=needs.pool,
            test_retries=template.retry.test_retries,
            infrastructure_retries=template.retry.infrastructure_retries,
            timeout_seconds=template.timeout_seconds,
        )

    @property
    def needs_resources(self) -> bool:
        """Whether an attempt occupies part of its worker."""
        return self.cpus > 0 or self.memory_bytes > 0 or self.gpus > 0

    @property
    def needs(self) -> tuple[object, ...]:
        """Equal for templates whose tasks the same workers can run."""
        labels = tuple(sorted(self.labels.items()))
        return self.cpus, self.memory_bytes, self.gpus, self.pool, labels


@dataclass(slots=True)
class Batch:
    """Tasks that one numbered message of a submitter added."""

    first_task: int
    task_count: int
    sequence: int


@dataclass(slots=True)
class Run:
    """A run. Columns are indexed by task, or by case where the comment says so."""

    run_id: str
    created: events_pb2.RunCreated
    templates: list[Template]
    state: "common_pb2.RunState.ValueType" = common_pb2.RUN_STATE_ACTIVE
    created_at_ns: int = 0
    finished_at_ns: int = 0
    first_sequence: int = 0
    last_sequence: int = 0
    is_sealed: bool = False
    cancel_requested_by: str = ""
    cancel_reason: str = ""
    batches: list[Batch] = field(default_factory=list)
    """Batch n of the submitter is entry n - 1."""

    names: list[str] = field(default_factory=list)
    task_states: bytearray = field(default_factory=bytearray)
    """Numbers of TaskState."""
    attempts: "array[int]" = field(default_factory=lambda: array("H"))
    """Attempts begun, the present one included; 65,535 stands for more."""
    task_templates: "array[int] | None" = None
    """None: all 0."""
    payloads: list[str] | None = None
    """None: none has one."""
    expected_seconds: "array[float] | None" = None
    """None: all unknown."""
    priorities: "array[int] | None" = None
    """The run's included; None: all the run's own."""

    case_offsets: "array[int] | None" = None
    """Index of each task's first case, and the number of cases at the end; None: task n has case n."""
    case_names: list[str] | None = None
    """By case; None: each is named as its task."""
    case_positions: "array[int] | None" = None
    """By case; -1: unknown; None: all unknown."""
    verdicts: bytearray = field(default_factory=bytearray)
    """By case; numbers of Verdict, 0 until it is final."""

    retry_pending: dict[int, set[int]] = field(default_factory=dict)
    """Leased task → its cases (in the task) reported in this attempt and to be tried again."""
    test_failures: dict[int, int] = field(default_factory=dict)
    """Case (in the run) → times it failed without being final."""
    infrastructure_charges: dict[int, int] = field(default_factory=dict)
    """Case (in the run) → times it ran when a process or worker died."""
    task_charges: dict[int, int] = field(default_factory=dict)
    """Task → attempts that ended by fault of the infrastructure with no case known to run."""

    queues: dict[int, dict[int, TaskQueue]] = field(default_factory=dict)
    """Priority → template → queued tasks; empty queues are removed."""
    queued_count: int = 0
    leased_count: int = 0
    finished_count: int = 0
    """Tasks that ended, cancelled ones included."""
    counts: list[int] = field(default_factory=lambda: [0] * VERDICTS)
    """Final verdicts by number of Verdict."""
    infrastructure_failures: int = 0

    @classmethod
    def begun(cls, created: events_pb2.RunCreated, now_ns: int = 0, sequence: int = 0) -> "Run":
        """The run as it is when it was created, which the log says at `sequence`; it keeps `created`."""
        templates = [Template.of(index, template) for index, template in enumerate(created.templates)]
        return cls(
            run_id=created.run_id,
            created=created,
            templates=templates or [Template(0)],
            created_at_ns=now_ns,
            first_sequence=sequence,
        )

    @property
    def task_count(self) -> int:
        """Tasks submitted."""
        return len(self.task_states)

    @property
    def case_count(self) -> int:
        """Cases submitted."""
        return len(self.verdicts)

    @property
    def is_terminal(self) -> bool:
        """Whether it ended."""
        return self.state in TERMINAL

    @property
    def is_cancelling(self) -> bool:
        """Whether it was asked to stop and some attempt still runs."""
        return self.state == common_pb2.RUN_STATE_CANCELLING

    def template_of(self, task: int) -> Template:
        """The template of a task."""
        return self.templates[self.task_templates[task] if self.task_templates is not None else 0]

    def priority_of(self, task: int) -> int:
        """The priority of a task, the run's included."""
        return self.priorities[task] if self.priorities is not None else self.created.priority

    def payload_of(self, task: int) -> str:
        """The payload of a task."""
        return self.payloads[task] if self.payloads is not None else ""

    def case_range(self, task: int) -> range:
        """The cases (in the run) of a task."""
        if self.case_offsets is None:
            return range(task, task + 1)
        return range(self.case_offsets[task], self.case_offsets[task + 1])

    def unjudged_cases(self, task: int) -> list[int]:
        """The cases (in the task) without a final verdict."""
        cases = self.case_range(task)
        return [index - cases.start for index in cases if not self.verdicts[index]]

    def case_name(self, task: int, case: int) -> str:
        """The name of a case (in its task)."""
        return self.names[task] if self.case_names is None else self.case_names[self.case_range(task)[case]]

    def cases_named(self, task: int) -> Sequence[str]:
        """The names of a task's cases."""
        cases = self.case_range(task)
        return [self.names[task]] if self.case_names is None else self.case_names[cases.start : cases.stop]


@dataclass(slots=True)
class RetiredRun:
    """The outline of a run that left the working state."""

    run_id: str
    suite: str
    first_sequence: int
    last_sequence: int
    request_id: str
    content_digest: bytes
    """Of how it was created, by which a repeated CreateRun is told from another (content_digest)."""
    outline: bytes
    """What GetRun answers: an encoded dtf.api.v1.Run."""


def content_digest(created: events_pb2.RunCreated) -> bytes:
    """16 bytes that say how a run was created."""
    return hashlib.blake2b(created.SerializeToString(deterministic=True), digest_size=16).digest()


TASKS_A_CHUNK_BITS = 12
"""4,096 tasks a chunk: 16 KiB of columns to hash again for each chunk that changed."""


@dataclass(slots=True)
class RunHash:
    """What state_hash remembers of a run: digests by chunk, and hashes of columns that only grow."""

    created: bytes = b""
    chunks: list[bytes] = field(default_factory=list)
    task_count: int = 0
    """Tasks in `chunks`."""
    changed_chunks: set[int] = field(default_factory=set)
    streams: dict[str, tuple[Any, int]] = field(default_factory=dict)


@dataclass(slots=True)
class FencesHash:
    """What state_hash remembers of the fences a worker completed."""

    version: tuple[int, int]
    """Incarnation and generation."""
    recent: Any
    older: bytes
    count: int = 0


@dataclass(slots=True)
class HashCache:
    """What state_hash remembers from call to call, and what changed since (state_hash.py)."""

    is_in_use: bool = False
    """Whether the state was hashed; before that nothing is noted, and the first call looks at everything."""
    total: int = 0
    digests: dict[str, int] = field(default_factory=dict)
    runs: dict[str, RunHash] = field(default_factory=dict)
    """Runs that were hashed; of others nothing need be noted."""
    fences: dict[str, FencesHash] = field(default_factory=dict)
    changed_runs: set[str] = field(default_factory=set)
    changed_retired: set[str] = field(default_factory=set)
    changed_workers: set[str] = field(default_factory=set)
    changed_sessions: set[str] = field(default_factory=set)
    changed_tokens: set[str] = field(default_factory=set)

    def note_retired(self, run_id: str) -> None:
        """A run was retired, or its outline went."""
        if self.is_in_use:
            self.changed_runs.add(run_id)
            self.changed_retired.add(run_id)

    def note_sessions(self, workers: Iterable[str], request_ids: Iterable[str]) -> None:
        """These workers and keys of sessions came or went."""
        if self.is_in_use:
            self.changed_workers.update(workers)
            self.changed_sessions.update(request_ids)

    def note_tokens(self, token_ids: Iterable[str]) -> None:
        """These join tokens came, changed or went."""
        if self.is_in_use:
            self.changed_tokens.update(token_ids)

    def touch(self, run_id: str, tasks: Iterable[int]) -> None:
        """State, attempts or verdicts of `tasks` changed."""
        known = self.runs.get(run_id)
        if known is not None:
            known.changed_chunks.update([task >> TASKS_A_CHUNK_BITS for task in tasks])

    def touch_all(self, run_id: str) -> None:
        """Any task of the run may have changed."""
        known = self.runs.get(run_id)
        if known is not None:
            known.task_count = 0


@dataclass(slots=True)
class State:
    """The fold of the log."""

    epoch: int = 0
    leader: str = ""
    lease_seconds: float = 0.0
    now_ns: int = 0
    """Time of the newest commit; never falls."""
    last_sequence: int = 0
    next_fence: int = 1
    runs: dict[str, Run] = field(default_factory=dict)
    """Every run that was not retired, in the order of creation."""
    active_runs: dict[str, Run] = field(default_factory=dict)
    """Those that have not ended."""
    run_requests: dict[str, str] = field(default_factory=dict)
    """Request id of CreateRun → run, retired ones included."""
    retired_runs: dict[str, RetiredRun] = field(default_factory=dict)
    """The newest that were retired, in that order."""
    workers: dict[str, Worker] = field(default_factory=dict)
    """Every worker that was not forgotten; incarnations go on rising from here."""
    incarnation_floor: int = 0
    """The highest incarnation of those forgotten; one that comes anew begins above it."""
    session_requests: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Request id of CreateSession → worker and incarnation."""
    cluster_id: str = ""
    """What join tokens call this cluster; empty until the first is issued."""
    tokens: dict[str, JoinToken] = field(default_factory=dict)
    """Join tokens, in the order in which they were issued."""
    pools: dict[str, PoolWish] = field(default_factory=dict)
    """What operators wish of pools, those of which nothing is wished left out."""
    queued_count: int = 0
    leased_count: int = 0
    hash_cache: HashCache = field(default_factory=HashCache, compare=False, repr=False)
