"""Failures that follow a worker rather than a test.

A test that is broken fails wherever it runs and says nothing of a worker. So a failure counts
against a worker only when the same case then passes on another: tried again within the run (the
same code), or in the next run of the suite (when the code may have been mended as well; such
evidence is held to half of what a verdict needs, so that it takes two runs).

Blamed failures and passed cases of a worker are a sequence of trials. With p0 the share of blamed
ones on all other workers and p1 = max(0.2, 10 p0) that of a sick worker, the sum of log-likelihood
ratios, never let below zero (CUSUM; Page 1954), is compared with a limit h. A healthy worker passes
it by chance once in at least exp(h) trials on average (Lorden 1971): with h = ln 1,000,000 once in
a million cases.
"""

import math
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2

LIMIT = math.log(1e6)
LEAST_BASE_RATIO = 1e-3
SICK_RATIO = 0.2
SUSPECTS_KEPT = 4096
RUN_CASES_KEPT = 20_000
"""Runs with more cases are not followed by name from one run to the next."""
_PASSED = (common_pb2.VERDICT_PASSED, common_pb2.VERDICT_FLAKY)
_FAILED = (common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR)


@dataclass(slots=True)
class Suspicion:
    """What speaks against one worker."""

    score: float = 0.0
    blamed: int = 0
    passed: int = 0
    weak: float = 0.0
    """The part of the score that comes from other runs than the one that passed."""
    weak_run: str = ""
    example: str = ""


@dataclass(slots=True)
class _RunNames:
    """How the cases of a run are called."""

    suite: str
    counts: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    cases: list[str] = field(default_factory=list)
    is_too_long: bool = False


@dataclass(slots=True)
class BlameBook:
    """Suspicion by worker, folded from the log."""

    workers: dict[str, Suspicion] = field(default_factory=dict)
    runs: dict[str, _RunNames] = field(default_factory=dict)
    pending: dict[str, list[str]] = field(default_factory=dict)
    """Workers on which a case failed that will be tried again, by "run/task/case"."""
    suspects: dict[str, list[str]] = field(default_factory=dict)
    """Worker and run of the last final failure, by "suite/name"."""
    blamed: float = 0.0
    trials: float = 0.0

    def apply(self, event: events_pb2.Event) -> None:
        """Fold one event."""
        match event.WhichOneof("event"):
            case "run_created":
                self.runs[event.run_created.run_id] = _RunNames(event.run_created.suite)
            case "tasks_submitted":
                self._submitted(event.tasks_submitted)
            case "results_accepted":
                self._results(event.results_accepted)
            case "attempts_ended":
                self._attempts_ended(event.attempts_ended)
            case "run_finished":
                self._finished(event.run_finished.run_id)
            case "worker_released":
                self.workers.pop(event.worker_released.worker_id, None)
            case "worker_lost":
                self.workers.pop(event.worker_lost.worker_id, None)
            case "worker_left":
                self.workers.pop(event.worker_left.worker_id, None)
            case _:
                pass  # says nothing of a worker's health

    def verdict(self, worker_id: str) -> str:
        """Why the worker is taken for sick; empty: it is not."""
        known = self.workers.get(worker_id)
        if known is None or known.score < LIMIT:
            return ""
        base = self._base_ratio(known)
        return (
            f"{known.blamed} cases failed on it and passed on another worker, as {known.example}; "
            f"of the others' {base:.2%} do at most"
        )

    def _submitted(self, event: events_pb2.TasksSubmitted) -> None:
        run = self.runs.get(event.run_id)
        if run is None or run.is_too_long:
            return
        counts = list(event.case_counts) or [1] * len(event.names)
        if len(run.cases) + sum(counts) > RUN_CASES_KEPT:
            self.runs[event.run_id] = _RunNames(run.suite, is_too_long=True)
            return
        names = list(event.case_names) or list(event.names)
        taken = 0
        for count in counts:
            run.offsets.append(len(run.cases))
            run.counts.append(count)
            run.cases.extend(names[taken : taken + count])
            taken += count

    def _results(self, event: events_pb2.ResultsAccepted) -> None:
        if not event.verdicts and not self.pending and not self.suspects:
            self._passed(event.worker_id, len(event.tasks))
            return
        again = set(event.retried)
        for position, task in enumerate(event.tasks):
            case = event.cases[position] if event.cases else 0
            verdict = event.verdicts[position] if event.verdicts else common_pb2.VERDICT_PASSED
            self._result(event.run_id, task, case, event.worker_id, verdict, position in again)

    def _result(
        self, run_id: str, task: int, case: int, worker_id: str, verdict: int, is_tried_again: bool
    ) -> None:
        key = f"{run_id}/{task}/{case}"
        name = self.name_of(run_id, task, case)
        if is_tried_again:
            self.pending.setdefault(key, []).append(worker_id)
            return
        failed_on = self.pending.pop(key, [])
        if verdict in _PASSED:
            for other in dict.fromkeys(failed_on):
                if other != worker_id:
                    self._blame(other, name or key)
            if name:
                self._passed_elsewhere(name, worker_id, run_id)
            self._passed(worker_id, 1)
        elif verdict in _FAILED and name and not failed_on:
            self.suspects.pop(name, None)
            self.suspects[name] = [worker_id, run_id]
            if len(self.suspects) > SUSPECTS_KEPT:
                del self.suspects[next(iter(self.suspects))]

    def _attempts_ended(self, event: events_pb2.AttemptsEnded) -> None:
        """A process that died with a case that will be tried again failed that case."""
        for position, task in enumerate(event.tasks):
            crashed = event.outcomes[position] == common_pb2.OUTCOME_CRASHED
            if crashed and event.requeued[position] and event.running_cases:
                running = event.running_cases[position]
                if running:
                    key = f"{event.run_id}/{task}/{running - 1}"
                    self.pending.setdefault(key, []).append(event.worker_id)

    def _finished(self, run_id: str) -> None:
        self.runs.pop(run_id, None)
        for key in [key for key in self.pending if key.startswith(f"{run_id}/")]:
            del self.pending[key]

    def _passed_elsewhere(self, name: str, worker_id: str, run_id: str) -> None:
        suspect = self.suspects.pop(name, None)
        if suspect is None or suspect[0] == worker_id or suspect[1] == run_id:
            return
        known = self.workers.setdefault(suspect[0], Suspicion())
        if known.weak_run != suspect[1]:
            known.weak, known.weak_run = 0.0, suspect[1]
        gain = min(self._gain(known), LIMIT / 2 - known.weak)
        if gain > 0:
            known.weak += gain
            self._blame(suspect[0], name, gain)

    def _passed(self, worker_id: str, count: int) -> None:
        self.trials += count
        known = self.workers.get(worker_id)
        if known is not None:
            base = self._base_ratio(known)
            sick = max(SICK_RATIO, 10 * base)
            known.passed += count
            loss = count * math.log((1 - min(sick, 0.99)) / (1 - base))
            known.score = max(0.0, known.score + loss)

    def _blame(self, worker_id: str, name: str, gain: float | None = None) -> None:
        self.trials += 1
        known = self.workers.setdefault(worker_id, Suspicion())
        known.score += self._gain(known) if gain is None else gain
        self.blamed += 1
        known.blamed += 1
        known.example = name.partition("\0")[2] or name

    def _gain(self, known: Suspicion) -> float:
        base = self._base_ratio(known)
        return math.log(max(SICK_RATIO, 10 * base) / base)

    def _base_ratio(self, known: Suspicion) -> float:
        """Share of blamed failures in the other workers' trials."""
        trials = self.trials - known.passed - known.blamed
        ratio = (self.blamed - known.blamed) / trials if trials > 0 else 0.0
        return min(max(ratio, LEAST_BASE_RATIO), 0.09)

    def name_of(self, run_id: str, task: int, case: int) -> str:
        """Suite and name of a case; empty: not known."""
        run = self.runs.get(run_id)
        if run is None or task >= len(run.offsets) or case >= run.counts[task]:
            return ""
        return f"{run.suite}\0{run.cases[run.offsets[task] + case]}"
