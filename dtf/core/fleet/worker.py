"""A worker as the log knows it."""

from array import array
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2

PRESENT = frozenset(
    {
        common_pb2.WORKER_STATE_ACTIVE,
        common_pb2.WORKER_STATE_DRAINING,
        common_pb2.WORKER_STATE_QUARANTINED,
    }
)
"""States of a worker whose session is open."""

_GENERATION = 8192


@dataclass(slots=True)
class CompletedFences:
    """The fences under which one incarnation completed attempts of late.

    A worker sends a result again until it is acknowledged. Its fence is then no longer held, and
    this is how a repetition is told from a stale result. Two generations of 8,192 bound the memory;
    they are several times the largest window of a worker, so only a worker that repeats what was
    acknowledged long ago is answered with a refusal.
    """

    recent: "array[int]" = field(default_factory=lambda: array("Q"))
    """In the order of completion, so that a hash need only be fed what is new."""
    older: "array[int]" = field(default_factory=lambda: array("Q"))
    generation: int = 0
    """How often an older generation was forgotten."""
    _recent: set[int] = field(default_factory=set, repr=False)
    _older: set[int] = field(default_factory=set, repr=False)

    @classmethod
    def of(cls, recent: "array[int]", older: "array[int]", generation: int) -> "CompletedFences":
        """What was saved."""
        return cls(recent, older, generation, set(recent), set(older))

    def __contains__(self, fence: int) -> bool:
        return fence in self._recent or fence in self._older

    def update(self, fences: list[int]) -> None:
        """Remember `fences`, and forget the oldest generation when this one is full."""
        if len(fences) == 1:
            self.recent.append(fences[0])
            self._recent.add(fences[0])
        else:
            self.recent.extend(fences)
            self._recent.update(fences)
        if len(self._recent) >= _GENERATION:
            self.older, self.recent = self.recent, array("Q")
            self._older, self._recent = self._recent, set()
            self.generation += 1


@dataclass(slots=True)
class Worker:
    """One worker in its present or last incarnation. Only evolve changes it."""

    worker_id: str
    incarnation: int = 0
    state: "common_pb2.WorkerState.ValueType" = common_pb2.WORKER_STATE_ACTIVE
    pool: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0
    slots: int = 1
    host: str = ""
    process_id: int = 0
    version: str = ""
    launch_id: str = ""
    request_id: str = ""
    join_token_id: str = ""
    """Join token it was admitted by; empty: it came with the operators' own."""
    reason: str = ""
    """Why it is drained, quarantined, lost or gone, in words."""
    quarantine: str = ""
    """Why it was in quarantine when its session ended; empty: it was not, or its session is open."""
    registered_at_ns: int = 0
    gone_at_ns: int = 0
    """When its session ended; 0: it is open."""
    leases: dict[str, dict[int, int]] = field(default_factory=dict)
    """Run → fence → task of every lease it holds; fences rise in the order of granting."""
    lease_count: int = 0
    completed: CompletedFences = field(default_factory=CompletedFences)
    completed_count: int = 0
    """Cases accepted from this incarnation."""

    @property
    def is_present(self) -> bool:
        """Whether its session is open."""
        return self.state in PRESENT

    @property
    def distrust(self) -> str:
        """Why it is in quarantine, or was when its session ended; "": neither."""
        if self.state == common_pb2.WORKER_STATE_QUARANTINED:
            return self.reason or "no reason was given"
        return self.quarantine

    @property
    def takes_work(self) -> bool:
        """Whether it may be granted leases."""
        return self.state == common_pb2.WORKER_STATE_ACTIVE
