"""Counts, read from the log, that every no-op had its own lease, fence and verdict."""

from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.chain import ChainReader
from dtf.ports.event_log import EventLog


@dataclass(slots=True)
class RunCount:
    """What the log says of one run."""

    submitted: int = 0
    fences: set[int] = field(default_factory=set)
    leased_tasks: set[int] = field(default_factory=set)
    lease_count: int = 0
    passed_tasks: set[int] = field(default_factory=set)
    given_back: set[int] = field(default_factory=set)
    """Fences of leases that went back to the queue before they started: the tail that was stolen."""
    verdict_count: int = 0
    verdict_fences: set[int] = field(default_factory=set)
    commit_count: int = 0

    def faults(self, expected: int) -> list[str]:
        """Where a task has not exactly one verdict of its own, under a lease of its own."""
        counts = {
            "tasks submitted": self.submitted,
            "leases that were not given back": self.lease_count - len(self.given_back),
            "different fences of these": len(self.fences - self.given_back),
            "tasks leased": len(self.leased_tasks),
            "verdicts": self.verdict_count,
            "tasks passed": len(self.passed_tasks),
            "fences of verdicts": len(self.verdict_fences),
        }
        found = [
            f"{count:,} {name} instead of {expected:,}" for name, count in counts.items() if count != expected
        ]
        if self.verdict_fences - (self.fences - self.given_back):
            found.append("a verdict has a fence that was never granted, or was given back")
        return found


async def count_runs(log: EventLog) -> dict[str, RunCount]:
    """Every run of the log, and the hash chain checked on the way. Raises ChainBroken."""
    chain = ChainReader()
    runs: dict[str, RunCount] = {}
    async for batch in log.read(0):
        for stored in batch:
            commit = chain.accept(stored.sequence, stored.payload, stored.message_id)
            if commit is None:
                raise ValueError(f"message {stored.sequence} of the log is no commit of ours")
            touched = set()
            for event in commit.events:
                touched.add(_count(runs, event))
            for run_id in touched - {""}:
                runs[run_id].commit_count += 1
    return runs


def _count(runs: dict[str, RunCount], event: events_pb2.Event) -> str:
    kind = event.WhichOneof("event")
    match kind:
        case "tasks_submitted":
            run = runs.setdefault(event.tasks_submitted.run_id, RunCount())
            run.submitted += len(event.tasks_submitted.names)
            return event.tasks_submitted.run_id
        case "leases_granted":
            granted = event.leases_granted
            run = runs.setdefault(granted.run_id, RunCount())
            run.lease_count += len(granted.tasks)
            run.leased_tasks.update(granted.tasks)
            run.fences.update(range(granted.first_fence, granted.first_fence + len(granted.tasks)))
            return granted.run_id
        case "leases_released":
            released = event.leases_released
            runs.setdefault(released.run_id, RunCount()).given_back.update(released.fences)
            return released.run_id
        case "results_accepted":
            accepted = event.results_accepted
            run = runs.setdefault(accepted.run_id, RunCount())
            run.verdict_count += len(accepted.tasks) - len(accepted.retried)
            run.verdict_fences.update(accepted.fences)
            if not accepted.verdicts:
                run.passed_tasks.update(accepted.tasks)
            else:
                passed = zip(accepted.tasks, accepted.verdicts, strict=True)
                run.passed_tasks.update(
                    task for task, verdict in passed if verdict == common_pb2.VERDICT_PASSED
                )
            return accepted.run_id
        case _:
            return ""
