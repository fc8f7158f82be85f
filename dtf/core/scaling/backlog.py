"""The work of one run that is queued or leased, in sums that follow the log.

The sums are kept by template, because a pool may be able to run some templates and not others.
Tasks whose time nobody knows are counted in cases, so that what is learned later values them too.
A run whose tasks are all of unknown time, of one template and of one case each (a bench of
no-ops, a file of commands) keeps no list at all: an event costs its number of columns.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.scaling.durations import Kind, SuiteDurations

T = TypeVar("T")

NAMED_TASKS_LIMIT = 4096
"""Runs with more tasks than this are not learned by task name: they are not lists that recur."""


@dataclass(slots=True)
class Work:
    """Some tasks of one template. `cases` counts those of tasks whose time is unknown."""

    tasks: int = 0
    seconds: float = 0.0
    unknown_tasks: int = 0
    cases: int = 0

    def add(self, other: "Work") -> None:
        """More work."""
        self.tasks += other.tasks
        self.seconds += other.seconds
        self.unknown_tasks += other.unknown_tasks
        self.cases += other.cases

    def subtract(self, other: "Work") -> None:
        """Less work; what no task is left for is exactly nothing."""
        self.tasks = max(0, self.tasks - other.tasks)
        if not self.tasks:
            self.clear()
            return
        self.seconds = max(0.0, self.seconds - other.seconds)
        self.unknown_tasks = max(0, self.unknown_tasks - other.unknown_tasks)
        self.cases = max(0, self.cases - other.cases)

    def clear(self) -> None:
        """No work."""
        self.tasks = self.unknown_tasks = self.cases = 0
        self.seconds = 0.0


@dataclass(slots=True)
class TemplateLoad:
    """What a template demands of a worker, and how much of it there is."""

    kind: Kind
    pool: str
    labels: dict[str, str]
    cpus: float
    memory_bytes: int
    gpus: int
    queued: Work = field(default_factory=Work)
    leased: Work = field(default_factory=Work)

    requirement: str = ""
    """The requirement class in words: "gpus=1 os=linux"; empty: any worker will do."""

    def __post_init__(self) -> None:
        parts = [f"pool={self.pool}"] if self.pool else []
        parts += [f"cpus={self.cpus:g}"] if self.cpus else []
        parts += [f"memory={self.memory_bytes / 2**30:.3g}GiB"] if self.memory_bytes else []
        parts += [f"gpus={self.gpus}"] if self.gpus else []
        self.requirement = " ".join(parts + [f"{key}={value}" for key, value in sorted(self.labels.items())])


@dataclass(slots=True)
class RunBacklog:
    """One run. A column that is empty stands for its default: template 0, time unknown, one case."""

    suite: str
    loads: list[TemplateLoad]
    task_count: int = 0
    templates: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Time still expected of each task; 0: unknown."""
    cases: list[int] = field(default_factory=list)
    """Cases of each task without a final verdict."""
    names: list[str] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    """Leases held, by worker."""
    is_cancelled: bool = False

    def submit(self, event: events_pb2.TasksSubmitted, durations: SuiteDurations) -> "Shares":
        """Tasks joined; return how many of each template."""
        count = len(event.names)
        first = self.task_count
        self.task_count += count
        self._keep_names(event.names)
        self.templates = _extend(self.templates, first, count, event.templates, 0)
        self.cases = _extend(self.cases, first, count, event.case_counts, 1)
        self.seconds = _extend(self.seconds, first, count, self._expected(event, durations), 0.0)
        shares = []
        for load, work in self._work(range(first, first + count)):
            load.queued.add(work)
            shares.append((load, work.tasks))
        return shares

    def lease(self, worker_id: str, tasks: Sequence[int]) -> "Shares":
        """Queued tasks were handed to a worker; return how many of each template."""
        self.leases[worker_id] = self.leases.get(worker_id, 0) + len(tasks)
        shares = []
        for load, work in self._work(tasks):
            load.queued.subtract(work)
            load.leased.add(work)
            shares.append((load, work.tasks))
        return shares

    def give_back(self, worker_id: str, tasks: Sequence[int], requeued: bool) -> "Shares":
        """Leases ended, and their tasks with them unless `requeued`; return how many of each template."""
        left = self.leases.get(worker_id, 0) - len(tasks)
        if left > 0:
            self.leases[worker_id] = left
        else:
            self.leases.pop(worker_id, None)
        shares = []
        for load, work in self._work(tasks):
            load.leased.subtract(work)
            if requeued and not self.is_cancelled:
                load.queued.add(work)
            shares.append((load, work.tasks))
        return shares

    def abandon(self, tasks: Sequence[int]) -> "Shares":
        """Queued tasks ended without an attempt; return how many of each template."""
        shares = []
        for load, work in self._work(tasks):
            shares.append((load, min(work.tasks, load.queued.tasks)))
            load.queued.subtract(work)
        return shares

    def judge(self, tasks: Iterable[int]) -> None:
        """One case of each of `tasks`, all leased, got its final verdict; a task may come more than once."""
        if not self.cases:
            return
        for task in tasks:
            left = self.cases[task]
            if not left:
                continue
            load = self.loads[self.templates[task]] if self.templates else self.loads[0]
            self.cases[task] = left - 1
            if self.seconds and self.seconds[task]:
                share = self.seconds[task] / left
                self.seconds[task] -= share
                load.leased.seconds = max(0.0, load.leased.seconds - share)
            else:
                load.leased.cases = max(0, load.leased.cases - 1)

    def cancel(self) -> "Shares":
        """What is queued will not run; return how many tasks that are, by template."""
        self.is_cancelled = True
        shares = [(load, load.queued.tasks) for load in self.loads]
        for load in self.loads:
            load.queued.clear()
        return shares

    def _expected(self, event: events_pb2.TasksSubmitted, durations: SuiteDurations) -> Sequence[float]:
        """The submitter's figures, and for those it does not know what the name has taught."""
        given: Sequence[float] = event.expected_seconds
        if event.case_counts or not durations.by_name or not self.names:
            return given
        of_name = durations.of_name
        learned = [of_name(name) for name in event.names]
        if given:
            return [figure or guess for figure, guess in zip(given, learned, strict=True)]
        return learned if any(learned) else given

    def _keep_names(self, names: Sequence[str]) -> None:
        if self.task_count > NAMED_TASKS_LIMIT:
            self.names = []
        else:
            self.names.extend(names)

    def _work(self, tasks: Sequence[int]) -> Iterator[tuple[TemplateLoad, Work]]:
        if not self.templates:
            yield self.loads[0], self._measure(tasks)
            return
        groups: dict[int, list[int]] = {}
        for task in tasks:
            groups.setdefault(self.templates[task], []).append(task)
        for template, members in groups.items():
            yield self.loads[template], self._measure(members)

    def _measure(self, tasks: Sequence[int]) -> Work:
        count = len(tasks)
        if not self.seconds:
            return Work(count, 0.0, count, self._count_cases(tasks))
        values = [self.seconds[task] for task in tasks]
        unknown_count = values.count(0.0)
        if not unknown_count:
            return Work(count, sum(values))
        unknown = [task for task, value in zip(tasks, values, strict=True) if not value]
        return Work(count, sum(values), unknown_count, self._count_cases(unknown))

    def _count_cases(self, tasks: Sequence[int]) -> int:
        if not self.cases:
            return len(tasks)
        return sum(map(self.cases.__getitem__, tasks))


Shares = list[tuple[TemplateLoad, int]]
"""Numbers of tasks by template."""


def new_run(event: events_pb2.RunCreated) -> RunBacklog:
    """A run with no tasks yet."""
    loads = [_new_load(template) for template in event.templates]
    return RunBacklog(event.suite, loads or [_new_load(common_pb2.TaskTemplate())])


def _new_load(template: common_pb2.TaskTemplate) -> TemplateLoad:
    requirements = template.requirements
    kind = Kind(template.WhichOneof("spec") or "callable")
    resources = requirements.resources
    return TemplateLoad(
        kind,
        requirements.pool,
        dict(requirements.labels),
        resources.cpus,
        resources.memory_bytes,
        resources.gpus,
    )


def _extend(column: list[T], first: int, count: int, values: Sequence[T], default: T) -> list[T]:
    """The column with `count` more entries; it stays empty while every entry is the default."""
    if not values and not column:
        return column
    column.extend([default] * (first - len(column)))
    column.extend(values if values else [default] * count)
    return column
