"""What is held against the log: journals of clients and workers, decisions of the resource manager."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dtf.api.v1 import events_pb2, scaling_pb2
from dtf.core.check.books import WorkerBook
from dtf.core.check.journal import Journal, Leased
from dtf.core.check.properties import Property, Source
from dtf.core.check.report import Findings

CLOCK_SKEW_SECONDS = 1.0
"""How far a worker's clock may be behind the coordinator's unless it is said."""


@dataclass(slots=True)
class JournalCheck:
    """Finds each entry of the journals in the log; what is left at the end is missing there."""

    journal: Journal
    skew_ns: int

    def read(self, findings: Findings, event: events_pb2.Event, kind: str, now_ns: int) -> None:
        """Compare an event with what was noted."""
        match kind:
            case "run_created":
                if self.journal.runs.pop(event.run_created.run_id, None) is not None:
                    findings.checked[Property.ACKNOWLEDGED] += 1
            case "tasks_submitted":
                self._submitted(findings, event.tasks_submitted)
            case "submission_sealed":
                said = event.submission_sealed
                told = self.journal.seals.pop(said.run_id, None)
                if told is not None:
                    what = f"a client was told that run {said.run_id} is sealed with {told} tasks; the log has {said.task_count}"
                    findings.expect(Property.ACKNOWLEDGED, told == said.task_count, what)
            case "leases_granted":
                if self.journal.leased:
                    self._granted(findings, event.leases_granted, now_ns)
            case "results_accepted":
                if self.journal.results:
                    self._accepted(findings, event.results_accepted)
            case "attempts_ended":
                self._ended(findings, event.attempts_ended.fences)
            case "results_refused":
                self._refused(findings, event.results_refused)
            case _:
                pass

    def _submitted(self, findings: Findings, said: events_pb2.TasksSubmitted) -> None:
        told = self.journal.batches.pop((said.run_id, said.batch), None)
        if told is None:
            return
        first_task, count = told
        what = (
            f"a client was told that batch {said.batch} of run {said.run_id} begins at task {first_task} "
            f"with {count} tasks; the log has {len(said.names)} at {said.first_task}"
        )
        holds = first_task == said.first_task and len(said.names) <= count
        findings.expect(Property.ACKNOWLEDGED, holds, what)
        if holds and len(said.names) < count:  # a large batch comes as several events of one number
            rest = (first_task + len(said.names), count - len(said.names))
            self.journal.batches[(said.run_id, said.batch)] = rest

    def _granted(self, findings: Findings, said: events_pb2.LeasesGranted, now_ns: int) -> None:
        for fence, task in enumerate(said.tasks, said.first_fence):
            for lease in self.journal.leased.pop(fence, ()):
                granted = Leased(said.run_id, task, said.worker_id, said.incarnation, lease.at_ns)
                what = f"fence {fence} was got by {_told(lease)}; granted to {_told(granted)}"
                if (
                    findings.expect(Property.GRANTED, granted == lease, what)
                    and lease.at_ns < now_ns - self.skew_ns
                ):
                    early = (now_ns - lease.at_ns) / 1e9
                    findings.note(
                        Property.GRANTED,
                        f"{_told(lease)} got fence {fence} {early:.3f} s before its grant was decided",
                    )

    def _accepted(self, findings: Findings, said: events_pb2.ResultsAccepted) -> None:
        results = self.journal.results
        before = len(results)
        results.difference_update(zip(said.fences, said.cases or [0] * len(said.fences), strict=False))
        findings.checked[Property.RESULTS] += before - len(results)

    def _ended(self, findings: Findings, fences: Iterable[int]) -> None:
        before = len(self.journal.ends)
        if before:
            self.journal.ends.difference_update(fences)
            findings.checked[Property.RESULTS] += before - len(self.journal.ends)

    def _refused(self, findings: Findings, said: events_pb2.ResultsRefused) -> None:
        """Refused is answered too: the lease was over, and the case is told of under another one."""
        self._ended(findings, said.fences)
        fences = set(said.fences)
        found = {key for key in self.journal.results if key[0] in fences} if self.journal.results else set()
        self.journal.results -= found
        findings.checked[Property.RESULTS] += len(found)

    def finish(self, findings: Findings) -> None:
        """What was not found is missing in the log."""

        def miss(which: Property, what: str) -> None:
            findings.checked[which] += 1
            findings.note(which, what, sequence=0)

        journal = self.journal
        for run_id in journal.runs:
            miss(
                Property.ACKNOWLEDGED,
                f"a client was told that run {run_id} was created; the log has no such run",
            )
        for (run_id, batch), (first_task, count) in journal.batches.items():
            miss(
                Property.ACKNOWLEDGED,
                f"a client was told that batch {batch} of run {run_id} is durable; the log lacks {count} tasks from {first_task} on",
            )
        for run_id in journal.seals:
            miss(
                Property.ACKNOWLEDGED,
                f"a client was told that run {run_id} is sealed; the log does not say so",
            )
        for fence, witnesses in journal.leased.items():
            for lease in witnesses:
                miss(Property.GRANTED, f"{_told(lease)} got fence {fence}, which was never granted")
        for fence, case in journal.results:
            miss(
                Property.RESULTS,
                f"a worker was told that the result of case {case} under fence {fence} is durable; the log has none",
            )
        for fence in journal.ends:
            miss(
                Property.RESULTS,
                f"a worker was told that the end of its attempt under fence {fence} is durable; the log has none",
            )


def _told(lease: Leased) -> str:
    return (
        f"worker {lease.worker_id}, incarnation {lease.incarnation}, task {lease.task} of run {lease.run_id}"
    )


class ScalingCheck:
    """Looks at each decision of the resource manager at the sequence it rests on."""

    def __init__(self, decisions: Iterable[scaling_pb2.ScalingDecision]) -> None:
        self._waiting = deque(sorted(decisions, key=lambda decision: decision.log_sequence))

    def reach(self, findings: Findings, workers: Mapping[str, WorkerBook], last_sequence: int) -> None:
        """The books are as of `last_sequence`: look at what rests on it or on less."""
        while self._waiting and self._waiting[0].log_sequence <= last_sequence:
            self._look(findings, workers, self._waiting.popleft())

    def finish(self, findings: Findings, last_sequence: int) -> None:
        """A decision rests on commits that the log has."""
        for decision in self._waiting:
            what = (
                f"decision {decision.decision_id} rests on sequence {decision.log_sequence}; "
                f"the log ends at {last_sequence}"
            )
            findings.expect(Property.DECISIONS, False, what, 0)

    def _look(
        self, findings: Findings, workers: Mapping[str, WorkerBook], decision: scaling_pb2.ScalingDecision
    ) -> None:
        is_terminate = decision.action == scaling_pb2.SCALING_ACTION_TERMINATE
        if not is_terminate and decision.action != scaling_pb2.SCALING_ACTION_SCALE_IN:
            findings.checked[Property.DECISIONS] += 1
            return
        for worker_id in decision.worker_ids:
            worker = workers.get(worker_id)
            held = worker.held if worker is not None else 0
            verb = "terminates" if is_terminate else "drains"
            what = f"decision {decision.decision_id} {verb} worker {worker_id}, which holds {held} leases"
            findings.expect(Property.DECISIONS, not held, what, decision.log_sequence)
            if is_terminate and worker is not None:
                stands = f"decision {decision.decision_id} terminates worker {worker_id}, which is {worker.presence.value}"
                is_gone = not worker.presence.is_present
                findings.expect(Property.DECISIONS, is_gone, stands, decision.log_sequence)


def sources_of(journal: Journal | None, scaling: object | None) -> frozenset[Source]:
    """What there is to check against."""
    sources = {Source.LOG} | (journal.sources if journal is not None else set())
    return frozenset(sources | ({Source.SCALING} if scaling is not None else set()))
