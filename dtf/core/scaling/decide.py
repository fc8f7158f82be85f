"""One decision of the resource manager, from what the log said and what it did itself.

The order is fixed: first the processes that outlived their worker are ended, then the size of the
pool is decided. A decision to change nothing is made only when its reason is another one than the
last time, and at most once a second, so that waiting costs no events.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.backlog import TemplateLoad
from dtf.core.scaling.demand import DemandProjection, Departure, PoolTraits, WorkerView
from dtf.core.scaling.durations import SuiteDurations
from dtf.core.scaling.ledger import DRAIN_ANSWER_SECONDS, Launch, PoolLedger
from dtf.core.scaling.policy import ScalingPolicy, Situation, apply_rules, recommend
from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.victims import next_removable_at_ns, removable

LOST_GRACE_SECONDS = 10.0
"""A lost worker whose process lives may come back by then (a frozen machine); after it, it is ended."""
REGISTRATION_SECONDS = 120.0
"""A launch that has not registered by then is ended."""
HOLD_INTERVAL_SECONDS = 1.0
STEADY = "steady"


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, if there is one, and when time alone may bring the next."""

    decision: scaling_pb2.ScalingDecision | None
    hold_kind: str = ""
    wake_at_ns: int | None = None


def decide_scaling(
    projection: DemandProjection,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    now_ns: int,
    *,
    is_caught_up: bool = True,
) -> Plan:
    """What the pool should do at `now_ns`. Call `ledger.sync` before and `ledger.record` after.

    Until the projection has caught up with the log nothing is known of the demand: then only the
    minimum is provided for and nothing is taken away.
    """
    if decision := _terminate(projection, ledger, now_ns):
        return Plan(decision)
    staff = present_workers(projection, ledger)
    demand = measure_demand(projection, ledger, policy, staff, now_ns)
    requested = sum(1 for launch in ledger.launches.values() if _is_awaited(launch))
    situation = Situation(
        now_ns=now_ns,
        demand=demand,
        effective=len(staff) + requested,
        dead=len(ledger.deaths),
        removable=len(_removable(staff, ledger, policy, now_ns)) if is_caught_up else 0,
        last_scale_out_ns=ledger.last_scale_out_ns,
        last_scale_in_ns=ledger.last_scale_in_ns,
        failures_in_a_row=ledger.failures_in_a_row,
        retry_at_ns=ledger.retry_at_ns,
        last_failure=ledger.last_failure,
    )
    recommended = recommend(demand, policy) if is_caught_up else 0
    wanted, effects = apply_rules(recommended, policy, situation)
    decision = scaling_pb2.ScalingDecision(
        decision_id=ledger.decision_id(),
        now_unix_nanos=now_ns,
        pool=policy.pool,
        desired=wanted,
        requested=requested,
        observed=len(staff),
        recommended=recommended,
        demand=demand,
        rules=effects,
        log_sequence=projection.last_sequence,
    )
    if wanted > situation.effective:
        return Plan(_scale_out(decision, ledger, policy, situation))
    if wanted < situation.effective:
        return Plan(_scale_in(decision, _removable(staff, ledger, policy, now_ns), policy, situation))
    return _hold(projection, decision, ledger, policy, situation, staff)


def present_workers(projection: DemandProjection, ledger: PoolLedger) -> list[WorkerView]:
    """Workers of the pool that take work and whose process, if we launched it, is alive."""
    return [
        worker
        for worker in projection.workers.values()
        if worker.pool == ledger.pool
        and worker.takes_work
        and worker.worker_id not in ledger.drains_asked
        and _is_alive(worker.launch_id, ledger)
    ]


def measure_demand(
    projection: DemandProjection,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    staff: Sequence[WorkerView],
    now_ns: int,
) -> scaling_pb2.Demand:
    """What the pool has to do: of work that names no pool its part, where others can do it too."""
    demand = scaling_pb2.Demand(
        arrival_rate=projection.arrivals.per_second(now_ns),
        utilization_ratio=_utilization(staff),
        startup_seconds=ledger.startup_seconds,
    )
    busy_seconds = projection.busy_seconds.total(now_ns)
    if busy_seconds > 0:
        demand.service_rate = projection.finished.total(now_ns) / busy_seconds
    unknown_count, unknown_seconds = 0, 0.0
    others = _other_pools(projection, policy.pool)
    for run in projection.runs.values():
        known = projection.suites.get(run.suite) or SuiteDurations()
        for load in run.loads:
            if not _can_run(projection, policy, load):
                demand.unplaceable_count += load.queued.tasks
                continue
            case_seconds = known.of_case(load.kind)
            sharers = _sharers(load, others)
            unknown_count += load.queued.unknown_tasks
            unknown_seconds += load.queued.cases * case_seconds
            demand.queue_depth += -(-load.queued.tasks // sharers)
            demand.leased_count += -(-load.leased.tasks // sharers)
            demand.known_count += -(-(load.queued.tasks - load.queued.unknown_tasks) // sharers)
            cases = load.queued.cases + load.leased.cases
            seconds = load.queued.seconds + load.leased.seconds + cases * case_seconds
            demand.backlog_seconds += seconds / sharers
    if unknown_count:
        demand.assumed_seconds = unknown_seconds / unknown_count
    return demand


def _other_pools(projection: DemandProjection, pool: str) -> list[PoolTraits]:
    """What the pools have that are staffed now, this one aside."""
    staffed = {worker.pool for worker in projection.workers.values() if worker.takes_work}
    return [projection.traits[name] for name in sorted(staffed - {pool}) if name in projection.traits]


def _sharers(load: TemplateLoad, others: Sequence[PoolTraits]) -> int:
    """How many pools take part in the work: if each asked for workers for all of it, all would be too large.

    Every manager counts alike, because it counts in the log; a pool without workers takes none of
    the others' part until it has some.
    """
    return 1 if load.pool else 1 + sum(traits.can_run(load, {}) for traits in others)


def _can_run(projection: DemandProjection, policy: ScalingPolicy, load: TemplateLoad) -> bool:
    if load.pool not in ("", policy.pool):
        return False
    traits = projection.traits.get(policy.pool)
    return traits is None or traits.can_run(load, policy.labels)


def _utilization(staff: Sequence[WorkerView]) -> float:
    slots = sum(worker.slots for worker in staff)
    return sum(min(worker.lease_count, worker.slots) for worker in staff) / slots if slots else 0.0


def _is_alive(launch_id: str, ledger: PoolLedger) -> bool:
    if not launch_id:
        return True  # started by hand: the log's word is all there is
    launch = ledger.launches.get(launch_id)
    return launch is not None and not launch.is_stopping


def _is_awaited(launch: Launch) -> bool:
    return not (launch.is_registered or launch.is_stopping or launch.is_lost)


def _removable(
    staff: Sequence[WorkerView], ledger: PoolLedger, policy: ScalingPolicy, now_ns: int
) -> list[WorkerView]:
    ours = [worker for worker in staff if worker.launch_id in ledger.launches]
    return removable(ours, now_ns, policy.scale_in_idle_seconds)


def _terminate(
    projection: DemandProjection, ledger: PoolLedger, now_ns: int
) -> scaling_pb2.ScalingDecision | None:
    ending: dict[str, str] = {}
    for launch in ledger.launches.values():
        if not launch.is_stopping and (why := _why_end(projection, launch, now_ns)):
            ending[launch.launch_id] = why
    if not ending:
        return None
    workers = [ledger.launches[launch_id].worker_id for launch_id in ending]
    return scaling_pb2.ScalingDecision(
        decision_id=ledger.decision_id(),
        now_unix_nanos=now_ns,
        pool=ledger.pool,
        action=scaling_pb2.SCALING_ACTION_TERMINATE,
        log_sequence=projection.last_sequence,
        launch_ids=list(ending),
        worker_ids=[worker for worker in workers if worker],
        reason="; ".join(ending.values()),
    )


def _why_end(projection: DemandProjection, launch: Launch, now_ns: int) -> str:
    gone = projection.gone.get(launch.launch_id)
    if gone is not None and gone.departure is Departure.LEFT:
        return f"{gone.worker_id} left: {gone.reason or 'it was drained'}"
    if gone is not None and now_ns >= gone.at_ns + LOST_GRACE_SECONDS * NANOS:
        return f"{gone.worker_id} was lost and has not come back for {LOST_GRACE_SECONDS:g} s"
    if not launch.is_registered and now_ns >= launch.requested_at_ns + REGISTRATION_SECONDS * NANOS:
        return f"{launch.launch_id} has not registered for {REGISTRATION_SECONDS:g} s"
    return ""


def _scale_out(
    decision: scaling_pb2.ScalingDecision, ledger: PoolLedger, policy: ScalingPolicy, situation: Situation
) -> scaling_pb2.ScalingDecision:
    count = decision.desired - situation.effective
    decision.launch_ids.extend(ledger.launch_ids(count))
    if 0 < count <= situation.dead:
        decision.action = scaling_pb2.SCALING_ACTION_REPLACE
        decision.reason = "; ".join(ledger.deaths[:3])
        return decision
    decision.action = scaling_pb2.SCALING_ACTION_SCALE_OUT
    decision.alternatives.extend(_alternatives(decision, policy, situation))
    if decision.recommended < policy.min_workers:
        decision.reason = f"the pool keeps at least {policy.min_workers}"
        return decision
    decision.reason = (
        f"backlog {decision.demand.backlog_seconds:.1f} s of work for {situation.effective} "
        f"{_workers(situation.effective)}, aim {policy.backlog_aim_seconds:g} s each"
    )
    return decision


def _alternatives(
    decision: scaling_pb2.ScalingDecision, policy: ScalingPolicy, situation: Situation
) -> list[scaling_pb2.Alternative]:
    """One worker fewer, and as it is."""
    startup = decision.demand.startup_seconds
    backlog = decision.demand.backlog_seconds / policy.slots

    def ends_after(workers: int) -> float:
        # what is there works from now on, what is launched from `startup` on, until the backlog is done
        return (backlog + (workers - situation.effective) * startup) / workers

    chosen = ends_after(decision.desired)
    choices = []
    for workers in sorted({decision.desired - 1, situation.effective} - {0}, reverse=True):
        ends = ends_after(workers)
        saved = decision.desired * chosen - workers * ends
        each = decision.demand.backlog_seconds / workers
        choices.append(
            scaling_pb2.Alternative(
                workers=workers,
                backlog_seconds=each,
                saved_worker_seconds=saved,
                description=f"{workers} {_workers(workers)}: {each:.1f} s each, "
                f"{'saves' if saved >= 0 else 'costs'} {abs(saved):.1f} worker-seconds, "
                f"ends {ends - chosen:.1f} s later",
            )
        )
    return choices


def _scale_in(
    decision: scaling_pb2.ScalingDecision,
    victims: Sequence[WorkerView],
    policy: ScalingPolicy,
    situation: Situation,
) -> scaling_pb2.ScalingDecision:
    going = victims[: situation.effective - decision.desired]
    decision.action = scaling_pb2.SCALING_ACTION_SCALE_IN
    decision.worker_ids.extend(worker.worker_id for worker in going)
    decision.reason = (
        f"{len(going)} {_workers(len(going))} idle for {policy.scale_in_idle_seconds:g} s or longer, "
        f"backlog {decision.demand.backlog_seconds:.1f} s"
    )
    return decision


def _hold(
    projection: DemandProjection,
    decision: scaling_pb2.ScalingDecision,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    situation: Situation,
    staff: Sequence[WorkerView],
) -> Plan:
    now_ns = situation.now_ns
    kind, reason = _why_hold(decision, situation.effective)
    lost = [projection.gone[launch_id].at_ns for launch_id in ledger.launches if launch_id in projection.gone]
    times = [at_ns + int(LOST_GRACE_SECONDS * NANOS) for at_ns in lost]
    times += _times(ledger, policy, situation, staff)
    wake_at_ns = min((at for at in times if at > now_ns), default=None)
    if kind == ledger.hold_kind or (kind == STEADY and not ledger.hold_kind):
        return Plan(None, wake_at_ns=wake_at_ns)
    next_hold_ns = ledger.last_hold_ns + int(HOLD_INTERVAL_SECONDS * NANOS)
    if now_ns < next_hold_ns:
        return Plan(None, wake_at_ns=min(next_hold_ns, wake_at_ns or next_hold_ns))
    decision.action = scaling_pb2.SCALING_ACTION_HOLD
    decision.reason = reason
    return Plan(decision, kind, wake_at_ns)


def _why_hold(decision: scaling_pb2.ScalingDecision, effective: int) -> tuple[str, str]:
    """The rule that had the last word, and its reason; a pool at rest at its minimum is steady."""
    for effect in reversed(decision.rules):
        if effect.before != effect.after:
            return (STEADY if effect.rule == "minimum" else effect.rule), effect.reason
    return STEADY, f"{effective} {_workers(effective)} are what the work needs"


def _times(
    ledger: PoolLedger, policy: ScalingPolicy, situation: Situation, staff: Sequence[WorkerView]
) -> list[int]:
    """Instants, some of them past, from which on time alone may change the decision."""
    launches = ledger.launches.values()
    times = [
        launch.requested_at_ns + int(REGISTRATION_SECONDS * NANOS)
        for launch in launches
        if _is_awaited(launch)
    ]
    times += [at_ns + int(DRAIN_ANSWER_SECONDS * NANOS) for at_ns in ledger.drains_asked.values()]
    times.append(situation.retry_at_ns)
    times.append(ledger.last_scale_out_ns + int(policy.scale_out_cooldown_seconds * NANOS))
    last_ns = max(ledger.last_scale_out_ns, ledger.last_scale_in_ns)
    times.append(last_ns + int(policy.scale_in_cooldown_seconds * NANOS))
    if situation.effective > policy.min_workers:
        ours = [worker for worker in staff if worker.launch_id in ledger.launches]
        idle_at_ns = next_removable_at_ns(ours, situation.now_ns, policy.scale_in_idle_seconds)
        times.append(idle_at_ns or 0)
    return times


def _workers(count: int) -> str:
    return "worker" if count == 1 else "workers"
