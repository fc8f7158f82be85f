"""A recorded log, cut at a sequence: the state there, and what came from outside afterwards.

From outside come runs, their tasks and cancellations, workers that register, drains, and losses. What
follows from them (grants, results, ends) is left to the simulation to make anew.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.commands import Command
from dtf.core.run.evolve import evolve
from dtf.core.run.rederive import command_of
from dtf.core.run.state import State

OUTSIDE = frozenset(
    {
        "ElectLeader",
        "CreateRun",
        "SubmitTasks",
        "CancelRun",
        "RegisterWorker",
        "DrainWorker",
        "QuarantineWorker",
        "ReleaseWorker",
        "ExpireWorkers",
    }
)
"""Kinds of commands whose cause is not in the log."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A commit of the recording, as it is stored."""

    sequence: int
    payload: bytes
    message_id: str
    commit: events_pb2.Commit


@dataclass(frozen=True, slots=True)
class Outside:
    """A command that came from outside."""

    at_ns: int
    command: Command


@dataclass(slots=True)
class Activity:
    """When workers were last at work, as far as the log says."""

    granted_ns: dict[int, int] = field(default_factory=dict)
    """Fence → when its lease was decided."""
    reported_ns: dict[str, int] = field(default_factory=dict)
    """Worker → its last result."""

    def began_ns(self, fence: int, worker_id: str) -> int:
        """When an attempt that a worker is at began: with its lease, or after the worker's last result."""
        return max(self.granted_ns.get(fence, 0), self.reported_ns.get(worker_id, 0))

    def cut_short(self, event: events_pb2.Event, now_ns: int) -> Iterator[tuple[tuple[str, int], float]]:
        """Run and task of attempts that were stopped or lost, and how long they had run at least."""
        said = event.attempts_ended
        for task, fence, outcome in zip(said.tasks, said.fences, said.outcomes, strict=False):
            if outcome in (common_pb2.OUTCOME_CANCELLED, common_pb2.OUTCOME_LOST):
                yield (said.run_id, task), (now_ns - self.began_ns(fence, said.worker_id)) / 1e9

    def observe(self, event: events_pb2.Event, now_ns: int) -> None:
        """An event of the log."""
        if event.HasField("leases_granted"):
            said = event.leases_granted
            for fence in range(said.first_fence, said.first_fence + len(said.tasks)):
                self.granted_ns[fence] = now_ns
        elif event.HasField("results_accepted"):
            self.reported_ns[event.results_accepted.worker_id] = now_ns


class Recording:
    """A log of commits that form one chain."""

    def __init__(self, commits: Iterable[Recorded]) -> None:
        self.commits = list(commits)

    def until(self, at: int) -> list[Recorded]:
        """The commits up to sequence `at`."""
        return [each for each in self.commits if each.sequence <= at]

    def state_at(self, at: int) -> State:
        """A fresh fold of them."""
        state = State()
        for each in self.until(at):
            for event in each.commit.events:
                evolve(state, event, each.commit.now_unix_nanos, each.sequence)
        return state

    def outside_after(self, at: int) -> Iterator[Outside]:
        """What came from outside after sequence `at`. Raises NotDerivable."""
        state = State()
        source: events_pb2.Input | None = None
        gathered: list[events_pb2.Event] = []
        for each in self.commits:
            now_ns, events = each.commit.now_unix_nanos, iter(each.commit.events)
            for said in each.commit.inputs:
                source = source or said
                gathered.extend(islice(events, said.event_count))
                if said.continues:
                    continue
                if each.sequence > at and source.kind in OUTSIDE:
                    yield Outside(now_ns, command_of(state, source, gathered))
                for event in gathered:
                    evolve(state, event, now_ns, each.sequence)
                source, gathered = None, []
