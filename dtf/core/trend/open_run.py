"""What must be remembered of a run until it ends: whose case a result is, and how much waits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.trend.names import SeriesRule, series_name

VERDICT_NAMES: Mapping[int, str] = {
    common_pb2.VERDICT_PASSED: "passed",
    common_pb2.VERDICT_FAILED: "failed",
    common_pb2.VERDICT_ERROR: "error",
    common_pb2.VERDICT_SKIPPED: "skipped",
    common_pb2.VERDICT_FLAKY: "flaky",
}
"""How the store writes a verdict."""

_NO_RULE = SeriesRule.of(common_pb2.TaskTemplate())


@dataclass(slots=True)
class Group:
    """Cases of a run that have no series of their own, summed up."""

    count: int = 0
    total_seconds: float = 0.0
    longest_seconds: float = 0.0
    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICT_NAMES.values(), 0))

    def add(self, verdict: str, duration_seconds: float | None) -> None:
        """Count one case."""
        self.count += 1
        self.verdicts[verdict] += 1
        if duration_seconds is not None:
            self.total_seconds += duration_seconds
            if duration_seconds > self.longest_seconds:
                self.longest_seconds = duration_seconds


@dataclass(slots=True)
class OpenRun:
    """A run that has not ended. Cases are numbered over the run, task after task."""

    run_id: str
    suite: str
    revision: str
    owner: str
    created_ns: int
    first_sequence: int
    rules: list[SeriesRule]
    """Of each template."""
    task_templates: list[int] = field(default_factory=list)
    first_case: list[int] = field(default_factory=lambda: [0])
    """First case of each task; one entry more than tasks."""
    case_names: list[str] = field(default_factory=list)
    is_judged: bytearray = field(default_factory=bytearray)
    """1 for each case that has its final verdict."""
    failed_before: set[int] = field(default_factory=set)
    """Cases that failed and were tried again: a pass then is flaky."""
    names_used: set[str] = field(default_factory=set)
    """Names that already have their one point of this run."""
    groups: dict[str, Group] = field(default_factory=dict)
    later_attempts: dict[int, int] = field(default_factory=dict)
    """Attempt of each task that is past its first."""
    queued: int = 0
    leased: int = 0
    busy_seconds: float = 0.0
    cpu_seconds: float = 0.0
    is_cancelling: bool = False
    is_confirmation: bool = False
    """It repeats a part of another run: its points are replicates of that one's revision."""

    @property
    def task_count(self) -> int:
        """Tasks submitted."""
        return len(self.task_templates)

    def add_tasks(self, event: events_pb2.TasksSubmitted) -> None:
        """Tasks joined. A batch that is already here changes nothing."""
        if event.first_task != self.task_count:
            return
        count = len(event.names)
        self.task_templates.extend(event.templates or [0] * count)
        self.case_names.extend(map(series_name, event.case_names or event.names))
        start = self.first_case[-1]
        for cases in event.case_counts or (1,) * count:
            start += cases
            self.first_case.append(start)
        self.is_judged.extend(bytes(start - len(self.is_judged)))
        self.queued += count

    def case_at(self, task: int, case: int) -> int:
        """Number of a task's case in the run; -1 if the run has no such case."""
        if not 0 <= task < self.task_count:
            return -1
        number = self.first_case[task] + case
        return number if number < self.first_case[task + 1] else -1

    def rule_of(self, task: int) -> SeriesRule:
        """Which series the cases of a task have."""
        index = self.task_templates[task]
        return self.rules[index] if index < len(self.rules) else _NO_RULE

    def group(self, name: str) -> Group:
        """The group of that name."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group()
        return group

    def unjudged_cases(self, task: int) -> list[int]:
        """Cases of a task without a final verdict, by their number in the task."""
        if not 0 <= task < self.task_count:
            return []
        start, end = self.first_case[task], self.first_case[task + 1]
        return [number - start for number in range(start, end) if not self.is_judged[number]]

    def move(self, *, queued: int, leased: int) -> None:
        """Tasks went from or to the queue and the workers. Nothing falls below zero."""
        self.leased = max(0, self.leased + leased)
        if not self.is_cancelling:
            self.queued = max(0, self.queued + queued)

    def cancel(self) -> None:
        """What is queued will not run."""
        self.is_cancelling = True
        self.queued = 0
