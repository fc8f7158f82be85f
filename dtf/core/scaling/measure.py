"""What a pool has to do and what it has to do it with, measured at one instant in plain values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.allocation import Allocation
from dtf.core.scaling.backlog import TemplateLoad
from dtf.core.scaling.demand import DemandProjection, PoolTraits, WorkerView
from dtf.core.scaling.durations import SuiteDurations
from dtf.core.scaling.ledger import PoolLedger
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.traffic import Traffic


@dataclass(slots=True)
class ClassDemand:
    """The tasks of one requirement class that this pool can run, its part of them where pools share."""

    requirement: str
    traffic: Traffic
    share: float = 1.0
    """This pool's part."""
    queued: int = 0
    leased: int = 0
    known: int = 0
    """Queued tasks whose duration is known."""
    queued_seconds: float = 0.0
    leased_seconds: float = 0.0
    assumed_seconds: float = 0.0
    """Time assumed of the queued tasks that are not known."""


@dataclass(slots=True)
class Measured:
    """One pool at one instant."""

    now_ns: int
    log_sequence: int
    startup_seconds: float
    staff: int = 0
    """Workers that take work and whose process, if we launched it, is alive."""
    slots: int = 0
    busy_slots: int = 0
    busy_workers: int = 0
    effective: int = 0
    """Workers there and workers on their way."""
    idle: list[WorkerView] = field(default_factory=list)
    """Of the staff, those we launched that hold no lease."""
    last_scale_out_ns: int = 0
    awaited_ages: list[float] = field(default_factory=list)
    """Seconds since each launch that has not registered yet was asked for."""
    classes: list[ClassDemand] = field(default_factory=list)
    unplaceable: list[tuple[str, int]] = field(default_factory=list)
    """Queued tasks that this pool cannot run, by requirement class."""

    @property
    def awaited(self) -> int:
        """Launches that have not registered yet."""
        return len(self.awaited_ages)

    @property
    def queued(self) -> int:
        """Tasks queued."""
        return sum(part.queued for part in self.classes)

    @property
    def leased(self) -> int:
        """Tasks leased."""
        return sum(part.leased for part in self.classes)

    @property
    def backlog_seconds(self) -> float:
        """Expected time of everything queued and leased, for one slot."""
        return sum(part.queued_seconds + part.leased_seconds for part in self.classes)

    @property
    def utilization_ratio(self) -> float:
        """Share of slots that are busy."""
        return self.busy_slots / self.slots if self.slots else 0.0


def measure(
    projection: DemandProjection,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    now_ns: int,
    allocation: Allocation | None = None,
) -> Measured:
    """What the policy is asked about; `allocation`: this pool's part, where several are looked after together."""
    ages = [
        (now_ns - launch.requested_at_ns) / NANOS for launch in ledger.launches.values() if launch.is_awaited
    ]
    if ledger.startups:
        startup = ledger.startup_seconds
    else:
        # a launch that is not there yet says that it takes at least so long
        startup = max(policy.startup_seconds, *ages) if ages else policy.startup_seconds
    measured = Measured(now_ns, projection.last_sequence, startup, awaited_ages=ages)
    measured.last_scale_out_ns = ledger.last_scale_out_ns
    _count_staff(measured, projection, ledger)
    measured.effective = measured.staff + len(ages)
    _count_work(measured, projection, policy, _Sharing(projection, policy, allocation))
    return measured


def demand_message(measured: Measured, projection: DemandProjection) -> scaling_pb2.Demand:
    """The measurement as a decision carries it."""
    demand = scaling_pb2.Demand(
        queue_depth=measured.queued,
        leased_count=measured.leased,
        backlog_seconds=measured.backlog_seconds,
        known_count=sum(part.known for part in measured.classes),
        arrival_rate=projection.arrivals.per_second(measured.now_ns),
        utilization_ratio=measured.utilization_ratio,
        unplaceable_count=sum(count for _, count in measured.unplaceable),
        startup_seconds=measured.startup_seconds,
    )
    unknown = demand.queue_depth - demand.known_count
    if unknown > 0:
        demand.assumed_seconds = sum(part.assumed_seconds for part in measured.classes) / unknown
    busy_seconds = projection.busy_seconds.total(measured.now_ns)
    if busy_seconds > 0:
        demand.service_rate = projection.finished.total(measured.now_ns) / busy_seconds
    for part in measured.classes:
        demand.classes.add(
            requirement=part.requirement,
            queued=part.queued,
            leased=part.leased,
            backlog_seconds=part.queued_seconds + part.leased_seconds,
        )
    for requirement, count in measured.unplaceable:
        demand.unplaceable.add(
            requirement=requirement, queued=count, is_nowhere=is_nowhere(projection, requirement)
        )
    return demand


def is_nowhere(projection: DemandProjection, requirement: str) -> bool:
    """Whether no pool that has been seen can run tasks of this class."""
    load = projection.classes.get(requirement)
    if load is None or (load.pool and load.pool not in projection.traits):
        return False  # a pool that has never had a worker may well be able to
    return not any(
        load.pool in ("", name) and traits.can_run(load, {}) for name, traits in projection.traits.items()
    )


def _count_staff(measured: Measured, projection: DemandProjection, ledger: PoolLedger) -> None:
    launches, drains, pool, idle = ledger.launches, ledger.drains_asked, ledger.pool, measured.idle
    staff = slots = busy_workers = busy_slots = 0
    for worker in projection.workers.values():
        # ledger.employs(worker), without a call: a decision looks at every worker
        if worker.pool != pool or worker.is_draining or worker.is_quarantined or worker.worker_id in drains:
            continue
        launch = launches.get(worker.launch_id) if worker.launch_id else None
        if worker.launch_id and (launch is None or launch.is_stopping):
            continue
        staff += 1
        slots += worker.slots
        if worker.lease_count:
            busy_workers += 1
            busy_slots += worker.lease_count if worker.lease_count < worker.slots else worker.slots
        elif launch is not None:
            idle.append(worker)
    measured.staff, measured.slots = staff, slots
    measured.busy_workers, measured.busy_slots = busy_workers, busy_slots


class _Sharing:
    """This pool's part of what others can do too."""

    def __init__(
        self, projection: DemandProjection, policy: ScalingPolicy, allocation: Allocation | None
    ) -> None:
        self._allocation = allocation
        self._others = [] if allocation is not None else _other_pools(projection, policy.pool)

    def of(self, load: TemplateLoad) -> float:
        """A share, 0 to 1."""
        if self._allocation is not None:
            return self._allocation.shares.get(load.requirement, 0.0)
        return 1.0 / _sharers(load, self._others)


def _count_work(
    measured: Measured, projection: DemandProjection, policy: ScalingPolicy, sharing: _Sharing
) -> None:
    classes: dict[str, ClassDemand] = {}
    unplaceable: dict[str, int] = {}
    for run in projection.runs.values():
        known = projection.suites.get(run.suite) or SuiteDurations()
        for load in run.loads:
            requirement = load.requirement
            if not can_run(projection, policy, load):
                if load.queued.tasks:
                    unplaceable[requirement] = unplaceable.get(requirement, 0) + load.queued.tasks
                continue
            part = classes.get(requirement)
            if part is None:
                traffic = projection.traffic.get(requirement) or Traffic()
                part = classes[requirement] = ClassDemand(requirement, traffic, sharing.of(load))
            if load.queued.tasks or load.leased.tasks:
                _add_load(part, load, known, measured.now_ns)
    _add_quiet_classes(classes, projection, policy, sharing)
    measured.classes = list(classes.values())
    if unplaceable:
        measured.unplaceable = sorted(unplaceable.items())


def _add_quiet_classes(
    classes: dict[str, ClassDemand],
    projection: DemandProjection,
    policy: ScalingPolicy,
    sharing: _Sharing,
) -> None:
    """Classes without a run now; they may come back."""
    for requirement, load in projection.classes.items():
        if requirement not in classes and can_run(projection, policy, load):
            traffic = projection.traffic[requirement]
            classes[requirement] = ClassDemand(requirement, traffic, sharing.of(load))


def _add_load(part: ClassDemand, load: TemplateLoad, known: SuiteDurations, now_ns: int) -> None:
    queued, leased = load.queued, load.leased
    share = part.share
    case_seconds = known.of_case(load.kind) if queued.cases or leased.cases else 0.0
    typical = part.traffic.mean_seconds(now_ns, case_seconds)
    assumed = max(queued.cases * case_seconds, queued.unknown_tasks * typical)
    part.queued += ceil(queued.tasks * share - 1e-9)
    part.leased += ceil(leased.tasks * share - 1e-9)
    part.known += ceil((queued.tasks - queued.unknown_tasks) * share - 1e-9)
    part.assumed_seconds += assumed * share
    part.queued_seconds += (queued.seconds + assumed) * share
    part.leased_seconds += (leased.seconds + leased.cases * case_seconds) * share


def _other_pools(projection: DemandProjection, pool: str) -> list[PoolTraits]:
    """What the pools have that are staffed now, this one aside."""
    if len(projection.traits) < 2:
        return []
    staffed = {worker.pool for worker in projection.workers.values() if worker.takes_work}
    return [projection.traits[name] for name in sorted(staffed - {pool}) if name in projection.traits]


def _sharers(load: TemplateLoad, others: Sequence[PoolTraits]) -> int:
    """How many pools take part in the work: if each asked for workers for all of it, all would be too large.

    Every manager counts alike, because it counts in the log; a pool without workers takes none of
    the others' part until it has some.
    """
    return 1 if load.pool else 1 + sum(traits.can_run(load, {}) for traits in others)


def can_run(projection: DemandProjection, policy: ScalingPolicy, load: TemplateLoad) -> bool:
    """Whether workers of the pool have what the tasks demand; of a pool never seen it is assumed."""
    if load.pool not in ("", policy.pool):
        return False
    traits = projection.traits.get(policy.pool)
    return traits is None or traits.can_run(load, policy.labels)
