"""What a case does when it runs: as it did in the recording, else as cases like it.

The n-th accepted try of a case goes as its n-th try in the recording went; beyond those recorded it
goes as the last. A case that was never tried takes about as long as the others of its template, by
the seed, or twice as long as an attempt at it ran that was stopped, and passes. A loss is not the
case's doing and does not count as a try.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.run.state import Run
from dtf.core.simulation.randomness import SplitMix64

ASSUMED_SECONDS = 0.1
Key = tuple[str, int, int]
"""Run, task, case in the task."""
_OWN_ENDS = (common_pb2.OUTCOME_CRASHED, common_pb2.OUTCOME_TIMED_OUT)


class Ending(Enum):
    """How a try ends."""

    REPORTED = "reported"
    CRASHED = "crashed"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Try:
    """One execution of one case."""

    ending: Ending
    seconds: float
    verdict: "common_pb2.Verdict.ValueType" = common_pb2.VERDICT_UNSPECIFIED
    detail: bytes = b""


@dataclass(slots=True)
class Oracle:
    """Tries as they were recorded, and how many of them each case has used."""

    random: SplitMix64
    tries: dict[Key, list[Try]] = field(default_factory=dict)
    used: dict[Key, int] = field(default_factory=dict)
    least_seconds: dict[tuple[str, int], float] = field(default_factory=dict)
    """Run and task → how long an attempt at it ran that was stopped or lost."""
    crashes_left: dict[Key, int] = field(default_factory=dict)
    """Tries of a case that a fault will crash."""

    def record(self, event: events_pb2.Event) -> None:
        """An event of the recording."""
        for key, tried in _tries(event):
            self.tries.setdefault(key, []).append(tried)

    def observe(self, event: events_pb2.Event) -> None:
        """An event that has happened, before the fork or after it."""
        for key, _ in _tries(event):
            self.used[key] = self.used.get(key, 0) + 1

    def next_try(self, run: Run, task: int, case: int) -> Try:
        """How the case goes if it runs now."""
        key = (run.run_id, task, case)
        recorded = self.tries.get(key)
        if recorded:
            tried = recorded[min(self.used.get(key, 0), len(recorded) - 1)]
        else:
            seconds = max(self._guess(run, task), 2 * self.least_seconds.get((run.run_id, task), 0.0))
            tried = Try(Ending.REPORTED, seconds, common_pb2.VERDICT_PASSED)
        if self.crashes_left.get(key, 0) > 0:
            self.crashes_left[key] -= 1
            return Try(Ending.CRASHED, tried.seconds / 2)
        return tried

    def _guess(self, run: Run, task: int) -> float:
        if run.expected_seconds is not None and run.expected_seconds[task] > 0:
            return run.expected_seconds[task] / max(1, len(run.case_range(task)))
        template = run.template_of(task)
        mean = (
            template.observed_seconds / template.observed_count
            if template.observed_count
            else ASSUMED_SECONDS
        )
        return mean * self.random.uniform(0.5, 1.5)


def _tries(event: events_pb2.Event) -> Iterator[tuple[Key, Try]]:
    if event.HasField("results_accepted"):
        yield from _reported(event.results_accepted)
    elif event.HasField("attempts_ended"):
        yield from _ended(event.attempts_ended)


def _reported(said: events_pb2.ResultsAccepted) -> Iterator[tuple[Key, Try]]:
    passed = common_pb2.VERDICT_PASSED
    for index, task in enumerate(said.tasks):
        verdict = said.verdicts[index] if said.verdicts else passed
        yield (
            (said.run_id, task, said.cases[index] if said.cases else 0),
            Try(
                Ending.REPORTED,
                said.durations_seconds[index] if said.durations_seconds else 0.0,
                passed if verdict == common_pb2.VERDICT_FLAKY else verdict,
                said.details[index] if said.details else b"",
            ),
        )


def _ended(said: events_pb2.AttemptsEnded) -> Iterator[tuple[Key, Try]]:
    for index, task in enumerate(said.tasks):
        outcome, running = said.outcomes[index], said.running_cases[index]
        if outcome in _OWN_ENDS and running:
            ending = Ending.CRASHED if outcome == common_pb2.OUTCOME_CRASHED else Ending.TIMED_OUT
            seconds = said.durations_seconds[index] if said.durations_seconds else 0.0
            detail = said.details[index] if said.details else b""
            yield (said.run_id, task, running - 1), Try(ending, seconds, detail=detail)
