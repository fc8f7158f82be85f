"""What happened in one run, as reports say it. dtf.core.run.summary_fold makes it from the events.

Everything a report says of a run's cases is here: verdicts, tries and whose fault a failure was,
the bars of the timeline, and how the queue stood. What the pool did beside it is in
dtf.core.run.pool_summary. Cases that passed at the first try cost one small record each; details
(output, serialized reports) are kept for the others only.

Fault. A try that ended in a verdict of FAILED or ERROR, or by its time-out, is the test's. A try
whose worker was lost is the infrastructure's, and so is a crash, unless the case never got through
and every one of its tries ended so: then it is the case that kills its process.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from dtf.api.v1 import common_pb2

NANOS = 1_000_000_000
Verdict: TypeAlias = "common_pb2.Verdict.ValueType"
Outcome: TypeAlias = "common_pb2.Outcome.ValueType"
UNSPECIFIED = common_pb2.VERDICT_UNSPECIFIED
FAILING = frozenset({common_pb2.VERDICT_FAILED, common_pb2.VERDICT_ERROR})


class Fault(StrEnum):
    """Whose fault a failure was."""

    TEST = "the test"
    INFRASTRUCTURE = "infrastructure"


@dataclass(slots=True)
class Try:
    """One try of a case that did not simply pass."""

    attempt: int
    worker_id: str
    outcome: Outcome
    verdict: Verdict
    """UNSPECIFIED: it ended without one."""
    seconds: float
    reason: str
    """Why it failed, or how it ended, in one line."""
    fault: Fault | None
    """None: it passed or was skipped."""
    detail: bytes = b""
    """Encoded CaseDetail; possibly empty."""


@dataclass(slots=True)
class CaseSummary:
    """A case of the run."""

    name: str
    task: int
    case: int
    verdict: Verdict = UNSPECIFIED
    seconds: float = 0.0
    """Of its last try."""
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    worker_id: str = ""
    message: str = ""
    tries: list[Try] = field(default_factory=list)
    """Empty for a case that passed or was skipped at its first try."""

    @property
    def fault(self) -> Fault | None:
        """Whose fault its failure is; None if it did not fail."""
        if self.verdict not in FAILING:
            return None
        return Fault.TEST if any(t.fault is Fault.TEST for t in self.tries) else Fault.INFRASTRUCTURE


@dataclass(frozen=True, slots=True)
class Bar:
    """A try on the timeline; the instants are the coordinator's, as well as they are known."""

    worker_id: str
    began_ns: int
    ended_ns: int
    name: str
    verdict: Verdict
    """UNSPECIFIED: it was lost, crashed or cut off."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An attempt whose worker was lost or whose process died."""

    at_ns: int
    text: str
    running: Try | None
    """Of the case that ran then, if one is known to have."""


@dataclass(frozen=True, slots=True)
class QueuePoint:
    """How the run stood from this instant on."""

    at_ns: int
    queued: int
    leased: int


@dataclass(slots=True)
class RunSummary:
    """One run, as far as its events were applied."""

    run_id: str = ""
    suite: str = ""
    revision: str = ""
    owner: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    """pytest, command or callable."""
    created_ns: int = 0
    finished_ns: int = 0
    first_sequence: int = 0
    last_sequence: int = 0
    state: "common_pb2.RunState.ValueType" = common_pb2.RUN_STATE_ACTIVE
    counts: common_pb2.VerdictCounts = field(default_factory=common_pb2.VerdictCounts)
    unjudged: int = 0
    infrastructure_failures: int = 0
    cancel_reason: str = ""
    cases: list[CaseSummary] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    queue: list[QueuePoint] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    refused_count: int = 0
    """Results that came too late to count."""

    @property
    def seconds(self) -> float:
        """From its creation to its end."""
        return max(0, self.finished_ns - self.created_ns) / NANOS if self.finished_ns else 0.0

    @property
    def disturbances(self) -> list[tuple[int, str]]:
        """When what happened to attempts that was no test's fault: a worker lost, a process that died."""
        return [
            (ending.at_ns, ending.text)
            for ending in self.endings
            if ending.running is None or ending.running.fault is not Fault.TEST
        ]

    @property
    def failures(self) -> list[CaseSummary]:
        """Cases that failed or could not be judged, in the order of submission."""
        return [case for case in self.cases if case.verdict in FAILING]

    @property
    def flaky(self) -> list[CaseSummary]:
        """Cases that failed and then passed."""
        return [case for case in self.cases if case.verdict == common_pb2.VERDICT_FLAKY]

    def slowest(self, count: int) -> list[CaseSummary]:
        """The cases that took longest, the longest first."""
        judged = [case for case in self.cases if case.verdict != UNSPECIFIED and case.seconds > 0]
        return sorted(judged, key=lambda case: (-case.seconds, case.name))[:count]

    @property
    def busy_seconds(self) -> float:
        """Time in which cases ran, added over the workers."""
        return sum(bar.ended_ns - bar.began_ns for bar in self.bars) / NANOS
