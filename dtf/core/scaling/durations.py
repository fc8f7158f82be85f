"""What work is expected to take, learned from accepted results and robust against lone values.

Two things are learned. The duration of a task by its name, where names recur (commands of
`--each`, benchmarks): the median of its newest five. And the duration of one case of a suite by
kind of executor, for everything that has no better figure: the mean of the middle 90 % of the
newest 128 samples. A submitter's own figure (TaskSpec.expected_seconds) comes before both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean, median

SAMPLES_KEPT = 128
SAMPLES_PER_EVENT = 16
"""An event may carry thousands of results; so many, evenly spaced, say the same about their mean."""
SAMPLES_NEEDED = 5
NEWEST_KEPT = 5
NAMES_KEPT = 4096
"""Names remembered a suite; the one learned longest ago is forgotten first."""
SUITES_KEPT = 256
TRIMMED_RATIO = 0.05


class Kind(StrEnum):
    """How a template's tasks are executed."""

    PYTEST = "pytest"
    COMMAND = "command"
    CALLABLE = "callable"


PRIOR_SECONDS = {Kind.PYTEST: 0.05, Kind.COMMAND: 1.0, Kind.CALLABLE: 0.05}
"""Assumed of one case before anything is known: unit tests take milliseconds, commands start processes."""


@dataclass(slots=True)
class SampleRing:
    """The newest durations of cases of one suite and kind."""

    samples: list[float] = field(default_factory=list)
    position: int = 0

    def add(self, durations: Sequence[float]) -> None:
        """Take up to SAMPLES_PER_EVENT of `durations`, evenly spaced."""
        step = max(1, len(durations) // SAMPLES_PER_EVENT)
        for value in durations[::step][:SAMPLES_PER_EVENT]:
            if len(self.samples) < SAMPLES_KEPT:
                self.samples.append(value)
            else:
                self.samples[self.position] = value
                self.position = (self.position + 1) % SAMPLES_KEPT

    def typical_seconds(self) -> float | None:
        """Mean of the middle 90 %; None while there are too few samples to say."""
        if len(self.samples) < SAMPLES_NEEDED:
            return None
        cut = int(len(self.samples) * TRIMMED_RATIO)
        middle = sorted(self.samples)[cut : len(self.samples) - cut]
        return fmean(middle)


@dataclass(slots=True)
class SuiteDurations:
    """What is known of one suite."""

    by_kind: dict[str, SampleRing] = field(default_factory=dict)
    by_name: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, kind: Kind, durations: Sequence[float]) -> None:
        """Durations of cases that ran."""
        self.by_kind.setdefault(kind.value, SampleRing()).add(durations)

    def learn_name(self, name: str, seconds: float) -> None:
        """The duration of the task called `name`."""
        newest = self.by_name.pop(name, [])
        newest.append(seconds)
        self.by_name[name] = newest[-NEWEST_KEPT:]
        if len(self.by_name) > NAMES_KEPT:
            del self.by_name[next(iter(self.by_name))]

    def of_name(self, name: str) -> float:
        """What the task called `name` takes; 0: never seen."""
        newest = self.by_name.get(name)
        return median(newest) if newest else 0.0

    def of_case(self, kind: Kind) -> float:
        """What one case takes, learned or assumed."""
        ring = self.by_kind.get(kind.value)
        typical = ring.typical_seconds() if ring is not None else None
        return PRIOR_SECONDS[kind] if typical is None else typical


def suite_durations(suites: dict[str, SuiteDurations], suite: str) -> SuiteDurations:
    """What is known of `suite`, created if need be; the suite used longest ago is forgotten first."""
    known = suites.pop(suite, None) or SuiteDurations()
    suites[suite] = known
    if len(suites) > SUITES_KEPT:
        del suites[next(iter(suites))]
    return known
