"""What the pool did while a run went on: how large it was, and why it moved."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from dtf.api.v1 import events_pb2, scaling_pb2

NANOS = 1_000_000_000
_MOVES = {
    scaling_pb2.SCALING_ACTION_SCALE_OUT: "scale out",
    scaling_pb2.SCALING_ACTION_SCALE_IN: "scale in",
    scaling_pb2.SCALING_ACTION_REPLACE: "replace",
}


@dataclass(frozen=True, slots=True)
class SizePoint:
    """Workers registered from this instant on."""

    at_ns: int
    workers: int


@dataclass(frozen=True, slots=True)
class ScaleMark:
    """A scale action."""

    at_ns: int
    action: str
    """scale out, scale in or replace."""
    change: int
    """Workers asked for, or (negative) let go."""
    desired: int
    reason: str
    pool: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What the resource manager wanted and saw at a decision, added over the pools."""

    at_ns: int
    desired: int
    requested: int
    """Workers asked of providers that have not registered yet."""
    backlog_seconds: float


@dataclass(slots=True)
class PoolSummary:
    """Size and moves, folded from events of the fleet and decisions of the resource manager.

    `begin` is told who was there; `apply` and `decide` come in the order of time.
    """

    sizes: list[SizePoint] = field(default_factory=list)
    marks: list[ScaleMark] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    """Attempts each worker seen runs at once."""
    _present: set[str] = field(default_factory=set)
    _read: dict[str, scaling_pb2.ScalingDecision] = field(default_factory=dict)
    """By pool, its newest decision that measured demand."""

    def begin(self, at_ns: int, workers: Iterable[str]) -> None:
        """These workers were there at the start."""
        self._present = set(workers)
        self._note(at_ns)

    def apply(self, now_ns: int, event: events_pb2.Event) -> None:
        """Fold one event of the fleet; others change nothing."""
        match event.WhichOneof("event"):
            case "worker_registered":
                self._present.add(event.worker_registered.worker_id)
                self.slots[event.worker_registered.worker_id] = max(1, event.worker_registered.slots)
            case "worker_left":
                self._present.discard(event.worker_left.worker_id)
            case "worker_lost":
                self._present.discard(event.worker_lost.worker_id)
            case _:
                return
        self._note(now_ns)

    def decide(self, decision: scaling_pb2.ScalingDecision) -> None:
        """Note a decision: what was wanted and seen, and, of one that moved the pool, the move."""
        if decision.HasField("demand"):
            self._read[decision.pool] = decision
            latest = self._read.values()
            self.readings.append(
                Reading(
                    decision.now_unix_nanos,
                    desired=sum(each.desired for each in latest),
                    requested=sum(each.requested for each in latest),
                    backlog_seconds=sum(each.demand.backlog_seconds for each in latest),
                )
            )
        if decision.action not in _MOVES:
            return
        change = len(decision.launch_ids) - len(decision.worker_ids)
        self.marks.append(
            ScaleMark(
                decision.now_unix_nanos,
                _MOVES[decision.action],
                change,
                decision.desired,
                decision.reason,
                decision.pool,
            )
        )

    def _note(self, at_ns: int) -> None:
        point = SizePoint(at_ns, len(self._present))
        if self.sizes and self.sizes[-1].at_ns == at_ns:
            self.sizes[-1] = point
        elif not self.sizes or self.sizes[-1].workers != point.workers:
            self.sizes.append(point)

    def keep_between(self, begin_ns: int, end_ns: int) -> None:
        """Drop what was decided before or after, but for the last reading before, which still held."""
        self.marks[:] = [mark for mark in self.marks if begin_ns <= mark.at_ns <= end_ns]
        earlier = [reading for reading in self.readings if reading.at_ns < begin_ns]
        during = [reading for reading in self.readings if begin_ns <= reading.at_ns <= end_ns]
        self.readings[:] = [*(replace(last, at_ns=begin_ns) for last in earlier[-1:]), *during]

    def size_at(self, at_ns: int) -> int:
        """Workers there at an instant."""
        size = 0
        for point in self.sizes:
            if point.at_ns > at_ns:
                break
            size = point.workers
        return size

    def peak(self, until_ns: int) -> int:
        """The most workers there were at once, up to an instant."""
        return max((point.workers for point in self.sizes if point.at_ns <= until_ns), default=0)

    def worker_seconds(self, begin_ns: int, end_ns: int) -> float:
        """Time that workers were there, added over the workers."""
        total = 0
        edges = [*self.sizes, SizePoint(end_ns, 0)]
        for point, following in pairwise(edges):
            start, end = max(point.at_ns, begin_ns), min(following.at_ns, end_ns)
            total += point.workers * max(0, end - start)
        return total / NANOS
