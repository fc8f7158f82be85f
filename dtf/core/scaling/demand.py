"""The resource manager's read model: demand, workers and rates, folded from the log alone.

`DemandProjection.apply` takes one commit. It never raises on an event it does not know or a run
it has not seen, and costs a few microseconds an event however many items its columns hold
(pytest shards cost a little a case). `dtf.core.scaling.snapshot` turns it into bytes and back.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dtf.api.v1 import common_pb2, events_pb2
from dtf.core.fleet.pool_wish import PoolWish, fold_wish
from dtf.core.scaling.backlog import RunBacklog, Shares, TemplateLoad, Work, new_run
from dtf.core.scaling.durations import SuiteDurations, suite_durations
from dtf.core.scaling.rates import NANOS, RateMeter
from dtf.core.scaling.traffic import Traffic

GONE_KEPT = 1024
"""Launches whose worker is gone and of whose end the log's word is kept, the newest."""

LABEL_VALUES_KEPT = 64
"""Values of one label that are remembered of a pool, the newest."""
CLASSES_KEPT = 64
"""Requirement classes whose traffic is remembered; the one used longest ago is forgotten first."""


_FLEET_EVENTS = frozenset(
    {
        "worker_registered",
        "worker_drain_requested",
        "worker_quarantined",
        "worker_released",
        "worker_lost",
        "worker_left",
    }
)


class Departure(StrEnum):
    """How a worker went, by the log."""

    LEFT = "left"
    LOST = "lost"


@dataclass(slots=True)
class WorkerView:
    """A registered worker."""

    worker_id: str
    incarnation: int
    pool: str
    labels: dict[str, str]
    cpus: float
    memory_bytes: int
    gpus: int
    slots: int
    launch_id: str
    registered_at_ns: int
    idle_since_ns: int
    lease_count: int = 0
    is_draining: bool = False
    is_quarantined: bool = False
    quarantine_reason: str = ""
    price_per_hour: float = 0.0
    flaw_score: float = 0.0
    """How suspect it is by its health (`HealthBook.flaw_scores`), 0: not at all. No event says it: it is set
    by who keeps the health."""

    @property
    def takes_work(self) -> bool:
        """Whether it can be given tasks."""
        return not (self.is_draining or self.is_quarantined)


@dataclass(slots=True)
class PoolTraits:
    """What the workers of a pool have been seen to have; remembered when the pool is empty."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0

    def learn(self, event: events_pb2.WorkerRegistered) -> None:
        """A worker of the pool registered."""
        for key, value in event.labels.items():
            values = self.labels.setdefault(key, [])
            if value not in values:
                values[:] = [*values[-LABEL_VALUES_KEPT + 1 :], value]
        self.cpus = max(self.cpus, event.resources.cpus)
        self.memory_bytes = max(self.memory_bytes, event.resources.memory_bytes)
        self.gpus = max(self.gpus, event.resources.gpus)

    def can_run(self, load: TemplateLoad, labels: Mapping[str, str]) -> bool:
        """Whether such a worker, or one launched with `labels`, has what `load` demands."""
        fits = load.cpus <= self.cpus and load.memory_bytes <= self.memory_bytes and load.gpus <= self.gpus
        return fits and all(
            labels.get(key) == value or value in self.labels.get(key, ())
            for key, value in load.labels.items()
        )


@dataclass(slots=True)
class Gone:
    """The end of a launch's worker."""

    worker_id: str
    departure: Departure
    at_ns: int
    reason: str


@dataclass(slots=True)
class DemandProjection:
    """Everything the policy needs to know of the log up to `last_sequence`."""

    last_sequence: int = 0
    last_message_id: str = ""
    """Id of the commit at `last_sequence`, to know the log again."""
    last_ns: int = 0
    runs: dict[str, RunBacklog] = field(default_factory=dict)
    workers: dict[str, WorkerView] = field(default_factory=dict)
    gone: dict[str, Gone] = field(default_factory=dict)
    """By launch id."""
    traits: dict[str, PoolTraits] = field(default_factory=dict)
    """By pool."""
    suites: dict[str, SuiteDurations] = field(default_factory=dict)
    traffic: dict[str, Traffic] = field(default_factory=dict)
    """By requirement class (`TemplateLoad.requirement`)."""
    classes: dict[str, TemplateLoad] = field(default_factory=dict)
    """What each requirement class demands, with no work in it."""
    wishes: dict[str, PoolWish] = field(default_factory=dict)
    """What operators wish, by pool."""
    arrivals: RateMeter = field(default_factory=RateMeter)
    finished: RateMeter = field(default_factory=RateMeter)
    busy_seconds: RateMeter = field(default_factory=RateMeter)
    """Worker-seconds in which a worker held a lease."""
    fleet_version: int = 0
    """Rises with every event about a worker."""

    def apply(self, sequence: int, message_id: str, commit: events_pb2.Commit) -> None:
        """Fold one commit."""
        now_ns = max(commit.now_unix_nanos, self.last_ns)
        self._count_busy(now_ns)
        self.last_sequence, self.last_message_id, self.last_ns = sequence, message_id, now_ns
        for event in commit.events:
            self._apply_event(now_ns, event)

    def _count_busy(self, now_ns: int) -> None:
        if not self.last_ns or now_ns == self.last_ns:
            return
        busy = sum(1 for worker in self.workers.values() if worker.lease_count)
        if busy:
            self.busy_seconds.add(now_ns, busy * (now_ns - self.last_ns) / NANOS)

    def _apply_event(self, now_ns: int, event: events_pb2.Event) -> None:
        kind = event.WhichOneof("event")
        self.fleet_version += kind in _FLEET_EVENTS
        match kind:
            case "run_created":
                self.runs[event.run_created.run_id] = new_run(event.run_created)
            case "tasks_submitted":
                self._tasks_submitted(now_ns, event.tasks_submitted)
            case "leases_granted":
                self._leases_granted(now_ns, event.leases_granted)
            case "results_accepted":
                self._results_accepted(now_ns, event.results_accepted)
            case "attempts_ended":
                self._attempts_ended(now_ns, event.attempts_ended)
            case "leases_released":
                released = event.leases_released
                self._give_back(now_ns, released.run_id, released.worker_id, released.tasks, requeued=True)
            case "tasks_abandoned":
                if run := self.runs.get(event.tasks_abandoned.run_id):
                    self._ended(now_ns, run.abandon(event.tasks_abandoned.tasks), was_running=False)
            case "run_cancel_requested":
                if run := self.runs.get(event.run_cancel_requested.run_id):
                    self._ended(now_ns, run.cancel(), was_running=False)
            case "run_finished":
                self._run_finished(now_ns, event.run_finished.run_id)
            case "worker_registered":
                self._worker_registered(now_ns, event.worker_registered)
            case "worker_drain_requested":
                if worker := self.workers.get(event.worker_drain_requested.worker_id):
                    worker.is_draining = True
            case "worker_quarantined":
                if worker := self.workers.get(event.worker_quarantined.worker_id):
                    worker.is_quarantined = True
                    worker.quarantine_reason = event.worker_quarantined.reason
            case "worker_released":
                if worker := self.workers.get(event.worker_released.worker_id):
                    worker.is_draining = worker.is_quarantined = False
                    worker.idle_since_ns = now_ns
            case "worker_lost":
                lost = event.worker_lost
                self._worker_gone(now_ns, lost.worker_id, lost.incarnation, Departure.LOST, lost.reason)
            case "worker_left":
                left = event.worker_left
                self._worker_gone(now_ns, left.worker_id, left.incarnation, Departure.LEFT, left.reason)
            case "pool_scaled":
                fold_wish(self.wishes, event.pool_scaled, now_ns)
            case "pool_paused":
                fold_wish(self.wishes, event.pool_paused, now_ns)
            case "pool_resumed":
                fold_wish(self.wishes, event.pool_resumed, now_ns)
            case _:
                pass  # no demand in it: elections, seals, placement, refused results, later kinds

    def _tasks_submitted(self, now_ns: int, event: events_pb2.TasksSubmitted) -> None:
        if run := self.runs.get(event.run_id):
            free = self.free_slots()
            for load, count in run.submit(event, suite_durations(self.suites, run.suite)):
                self.arrivals.add(now_ns, count)
                self.traffic_of(load).arrived(now_ns, count, free)
                free -= count

    def free_slots(self) -> int:
        """Slots of workers that take work, less the tasks that hold or wait for one."""
        slots = sum(worker.slots for worker in self.workers.values() if worker.takes_work)
        return slots - sum(traffic.tasks for traffic in self.traffic.values())

    def traffic_of(self, load: TemplateLoad) -> Traffic:
        """What is learned of the class of tasks that `load` belongs to, created if need be."""
        key = load.requirement
        known = self.traffic.get(key)
        if known is None:
            known = self.traffic[key] = Traffic()
            self.classes[key] = replace(load, queued=Work(), leased=Work())
            if len(self.traffic) > CLASSES_KEPT:
                idle = (name for name, traffic in self.traffic.items() if not traffic.tasks and name != key)
                forgotten = next(idle, "")
                self.traffic.pop(forgotten, None)
                self.classes.pop(forgotten, None)
        return known

    def _ended(self, now_ns: int, shares: Shares, *, was_running: bool) -> None:
        for load, count in shares:
            self.traffic_of(load).ended(now_ns, count, was_running)

    def _leases_granted(self, now_ns: int, event: events_pb2.LeasesGranted) -> None:
        if run := self.runs.get(event.run_id):
            slots = sum(worker.slots for worker in self.workers.values())
            for load, count in run.lease(event.worker_id, event.tasks):
                self.traffic_of(load).started(now_ns, count, slots)
            if worker := self.workers.get(event.worker_id):
                worker.lease_count += len(event.tasks)

    def _results_accepted(self, now_ns: int, event: events_pb2.ResultsAccepted) -> None:
        run = self.runs.get(event.run_id)
        if run is None:
            return
        self._learn(run, event)
        run.judge(_judged(event))
        done = _completed_tasks(event)
        requeued = set(event.requeued)
        ended = [task for task in done if task not in requeued] if requeued else done
        self._give_back(now_ns, event.run_id, event.worker_id, ended, requeued=False)
        if requeued:
            again = [task for task in done if task in requeued]
            self._give_back(now_ns, event.run_id, event.worker_id, again, requeued=True)
        self.finished.add(now_ns, len(ended))

    def _learn(self, run: RunBacklog, event: events_pb2.ResultsAccepted) -> None:
        durations = event.durations_seconds
        if not durations:
            return
        suite = suite_durations(self.suites, run.suite)
        template = run.templates[event.tasks[0]] if run.templates else 0
        suite.learn(run.loads[template].kind, durations)
        if run.names and not run.cases:
            for task, seconds in zip(event.tasks, durations, strict=False):
                suite.learn_name(run.names[task], seconds)

    def _attempts_ended(self, now_ns: int, event: events_pb2.AttemptsEnded) -> None:
        run = self.runs.get(event.run_id)
        if run is None:
            return
        run.judge(_charged(event))
        again = [task for task, back in zip(event.tasks, event.requeued, strict=False) if back]
        ended = [task for task, back in zip(event.tasks, event.requeued, strict=False) if not back]
        self._give_back(now_ns, event.run_id, event.worker_id, again, requeued=True)
        self._give_back(now_ns, event.run_id, event.worker_id, ended, requeued=False)
        self.finished.add(now_ns, len(ended))

    def _give_back(
        self, now_ns: int, run_id: str, worker_id: str, tasks: Sequence[int], *, requeued: bool
    ) -> None:
        run = self.runs.get(run_id)
        if run is None or not tasks:
            return
        shares = run.give_back(worker_id, tasks, requeued)
        if requeued and not run.is_cancelled:
            for load, count in shares:
                self.traffic_of(load).stopped(now_ns, count)
        else:
            self._ended(now_ns, shares, was_running=True)
        self._free_leases(now_ns, worker_id, len(tasks))

    def _free_leases(self, now_ns: int, worker_id: str, count: int) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None and worker.lease_count:
            worker.lease_count = max(0, worker.lease_count - count)
            if not worker.lease_count:
                worker.idle_since_ns = now_ns

    def _run_finished(self, now_ns: int, run_id: str) -> None:
        run = self.runs.pop(run_id, None)
        if run is not None:
            for load in run.loads:
                self.traffic_of(load).ended(now_ns, load.queued.tasks, was_running=False)
                self.traffic_of(load).ended(now_ns, load.leased.tasks)
            for worker_id, count in run.leases.items():
                self._free_leases(now_ns, worker_id, count)

    def _worker_registered(self, now_ns: int, event: events_pb2.WorkerRegistered) -> None:
        resources = event.resources
        self.gone.pop(event.launch_id, None)
        self.traits.setdefault(event.pool, PoolTraits()).learn(event)
        self.workers[event.worker_id] = WorkerView(
            worker_id=event.worker_id,
            incarnation=event.incarnation,
            pool=event.pool,
            labels=dict(event.labels),
            cpus=resources.cpus,
            memory_bytes=resources.memory_bytes,
            gpus=resources.gpus,
            slots=max(1, event.slots),
            launch_id=event.launch_id,
            registered_at_ns=now_ns,
            idle_since_ns=now_ns,
            lease_count=sum(run.leases.get(event.worker_id, 0) for run in self.runs.values()),
        )

    def _worker_gone(
        self, now_ns: int, worker_id: str, incarnation: int, departure: Departure, reason: str
    ) -> None:
        worker = self.workers.get(worker_id)
        if worker is None or worker.incarnation > incarnation:
            return
        del self.workers[worker_id]
        if worker.launch_id:
            self.gone[worker.launch_id] = Gone(worker_id, departure, now_ns, reason)
            if len(self.gone) > GONE_KEPT:
                del self.gone[next(iter(self.gone))]


def _judged(event: events_pb2.ResultsAccepted) -> Iterable[int]:
    """The task of every case that got its final verdict."""
    if not event.retried:
        return event.tasks
    again = set(event.retried)
    return [task for position, task in enumerate(event.tasks) if position not in again]


def _charged(event: events_pb2.AttemptsEnded) -> list[int]:
    """Tasks whose running case got its verdict from the end of the attempt."""
    none = common_pb2.VERDICT_UNSPECIFIED
    return [task for task, verdict in zip(event.tasks, event.verdicts, strict=False) if verdict != none]


def _completed_tasks(event: events_pb2.ResultsAccepted) -> Sequence[int]:
    """Tasks whose attempt completed with these results."""
    if event.all_completed:
        return event.tasks
    completed = set(event.completed)
    pairs = zip(event.tasks, event.fences, strict=False)
    return list(dict.fromkeys(task for task, fence in pairs if fence in completed))
