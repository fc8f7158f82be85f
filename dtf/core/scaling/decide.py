"""One decision of the resource manager, from what the log said and what it did itself.

The order is fixed: first the processes that outlived their worker are ended, then the size of the
pool is decided: `measure` says what there is, the pool's strategy recommends, `rules` limit. A
decision to change nothing is made only when its reason is another one than the last time, and at
most once a second, so that waiting costs no events. Messages are made only for what is published:
a call that decides nothing new costs some 20 microseconds.
"""

from dataclasses import dataclass

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.adaptive import PoolTelemetry
from dtf.core.scaling.allocation import Allocation
from dtf.core.scaling.demand import DemandProjection, Departure, WorkerView
from dtf.core.scaling.explanations import alternatives, count_workers, why_hold
from dtf.core.scaling.ledger import DRAIN_ANSWER_SECONDS, Launch, PoolLedger
from dtf.core.scaling.measure import Measured, demand_message, is_nowhere, measure
from dtf.core.scaling.policy import POLICY_VERSION, ScalingPolicy, wished_policy
from dtf.core.scaling.rates import NANOS
from dtf.core.scaling.recommendation import Recommendation
from dtf.core.scaling.rules import Effect, Situation, apply_rules
from dtf.core.scaling.schedule import next_boundary_ns, scheduled_policy
from dtf.core.scaling.strategies import recommend
from dtf.core.scaling.victims import next_removable_at_ns, removable

LOST_GRACE_SECONDS = 10.0
"""A lost worker whose process lives may come back by then (a frozen machine); after it, it is ended."""
HOLD_INTERVAL_SECONDS = 1.0
STEADY = "steady"


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, if there is one, and when time alone may bring the next."""

    decision: scaling_pb2.ScalingDecision | None
    hold_kind: str = ""
    wake_at_ns: int | None = None


@dataclass(slots=True)
class _Deliberation:
    """All that a decision is made of."""

    measured: Measured
    policy: ScalingPolicy
    ledger: PoolLedger
    situation: Situation
    recommendation: Recommendation
    victims: list[WorkerView]
    wanted: int
    effects: list[Effect]
    allocation: Allocation | None


def decide_scaling(
    projection: DemandProjection,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    now_ns: int,
    *,
    is_caught_up: bool = True,
    telemetry: PoolTelemetry | None = None,
    allocation: Allocation | None = None,
) -> Plan:
    """What the pool should do at `now_ns`. Call `ledger.sync` before and `ledger.record` after.

    Until the projection has caught up with the log nothing is known of the demand: then only the
    minimum is provided for and nothing is taken away. `telemetry` is what the strategy "adaptive"
    looks at; `allocation` this pool's part where several are looked after together (`allocate`).
    """
    if decision := _terminate(projection, ledger, policy, now_ns):
        return Plan(decision)
    measured = measure(projection, ledger, policy, now_ns, allocation)
    policy = scheduled_policy(policy, now_ns, measured.startup_seconds)
    policy = wished_policy(policy, projection.wishes.get(policy.pool))
    thought = _deliberate(measured, projection, ledger, policy, is_caught_up, telemetry, allocation)
    if thought.wanted > measured.effective:
        return Plan(_scale_out(_message(thought, projection), thought))
    if thought.wanted < measured.effective:
        return Plan(_scale_in(_message(thought, projection), thought))
    return _hold(thought, projection)


def _deliberate(
    measured: Measured,
    projection: DemandProjection,
    ledger: PoolLedger,
    policy: ScalingPolicy,
    is_caught_up: bool,
    telemetry: PoolTelemetry | None,
    allocation: Allocation | None,
) -> _Deliberation:
    if is_caught_up:
        recommendation = recommend(measured, policy, telemetry)
        idle_seconds = recommendation.idle_seconds or policy.idle_seconds(measured.startup_seconds)
        victims = removable(measured.idle, measured.now_ns, idle_seconds)
    else:
        recommendation = Recommendation(0, lambda: "the log has not been read to its end")
        idle_seconds, victims = 0.0, []
    if measured.unplaceable and not recommendation.hold_kind:
        _name_unplaceable(recommendation, measured, projection)
    lowest, highest = ledger.recommended_lately(policy, measured.now_ns, recommendation.workers)
    situation = Situation(
        now_ns=measured.now_ns,
        effective=measured.effective,
        busy=measured.busy_workers,
        dead=len(ledger.deaths),
        removable=len(victims),
        idle_seconds=idle_seconds,
        last_scale_out_ns=ledger.last_scale_out_ns,
        last_scale_in_ns=ledger.last_scale_in_ns,
        failures_in_a_row=ledger.failures_in_a_row,
        retry_at_ns=ledger.retry_at_ns,
        last_failure=ledger.last_failure,
        launched=ledger.launched,
        drained=ledger.drained,
        lowest_lately=lowest,
        highest_lately=highest,
        room=allocation.room if allocation is not None else None,
    )
    wanted, effects = apply_rules(recommendation.workers, policy, situation)
    return _Deliberation(
        measured, policy, ledger, situation, recommendation, victims, wanted, effects, allocation
    )


def _name_unplaceable(
    recommendation: Recommendation, measured: Measured, projection: DemandProjection
) -> None:
    nowhere = [
        f"{count} {'task needs' if count == 1 else 'tasks need'} {requirement}"
        for requirement, count in measured.unplaceable
        if is_nowhere(projection, requirement)
    ]
    if nowhere:
        recommendation.hold_kind = "unplaceable"
        recommendation.explain_hold = lambda: f"{'; '.join(nowhere)}; no pool gives it"


def _message(thought: _Deliberation, projection: DemandProjection) -> scaling_pb2.ScalingDecision:
    measured, policy, ledger = thought.measured, thought.policy, thought.ledger
    decision = scaling_pb2.ScalingDecision(
        decision_id=ledger.decision_id(),
        now_unix_nanos=measured.now_ns,
        pool=policy.pool,
        desired=thought.wanted,
        requested=measured.awaited,
        observed=measured.staff,
        recommended=thought.recommendation.workers,
        demand=demand_message(measured, projection),
        log_sequence=projection.last_sequence,
        first_log_sequence=min(ledger.decided_sequence + 1, projection.last_sequence),
        policy_version=POLICY_VERSION,
        strategy=policy.strategy,
    )
    if thought.recommendation.forecast is not None:
        decision.forecast.CopyFrom(thought.recommendation.forecast())
    if thought.allocation is not None:
        decision.allocation.CopyFrom(thought.allocation.message())
    for rule, before, after, reason in thought.effects:
        decision.rules.add(rule=rule, before=before, after=after, reason=reason)
    for name, workers, reason in thought.recommendation.parts():
        decision.considerations.add(name=name, workers=workers, reason=reason)
    return decision


def _terminate(
    projection: DemandProjection, ledger: PoolLedger, policy: ScalingPolicy, now_ns: int
) -> scaling_pb2.ScalingDecision | None:
    ending: dict[str, str] = {}
    registered_by_ns = now_ns - int(policy.registration_seconds * NANOS)
    for launch in ledger.launches.values():
        is_suspect = launch.launch_id in projection.gone or (
            not launch.is_registered and launch.requested_at_ns <= registered_by_ns
        )
        if is_suspect and not launch.is_stopping and (why := _why_end(projection, launch, policy, now_ns)):
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
        policy_version=POLICY_VERSION,
        launch_ids=list(ending),
        worker_ids=[worker for worker in workers if worker],
        reason="; ".join(ending.values()),
    )


def _why_end(projection: DemandProjection, launch: Launch, policy: ScalingPolicy, now_ns: int) -> str:
    gone = projection.gone.get(launch.launch_id)
    if gone is not None and gone.departure is Departure.LEFT:
        return f"{gone.worker_id} left: {gone.reason or 'it was drained'}"
    if gone is not None and now_ns >= gone.at_ns + LOST_GRACE_SECONDS * NANOS:
        return f"{gone.worker_id} was lost and has not come back for {LOST_GRACE_SECONDS:g} s"
    if not launch.is_registered and now_ns >= launch.requested_at_ns + policy.registration_seconds * NANOS:
        return f"{launch.launch_id} has not registered for {policy.registration_seconds:g} s"
    return ""


def _scale_out(decision: scaling_pb2.ScalingDecision, thought: _Deliberation) -> scaling_pb2.ScalingDecision:
    ledger, measured, policy = thought.ledger, thought.measured, thought.policy
    count = thought.wanted - measured.effective
    decision.launch_ids.extend(ledger.launch_ids(count))
    if 0 < count <= thought.situation.dead:
        decision.action = scaling_pb2.SCALING_ACTION_REPLACE
        decision.reason = "; ".join(ledger.deaths[:3])
        return decision
    decision.action = scaling_pb2.SCALING_ACTION_SCALE_OUT
    decision.alternatives.extend(alternatives(decision, policy, measured.effective))
    decision.reason = thought.recommendation.explain()
    if decision.recommended < policy.min_workers:
        decision.reason = next(reason for rule, _, _, reason in thought.effects if rule == "minimum")
    return decision


def _scale_in(decision: scaling_pb2.ScalingDecision, thought: _Deliberation) -> scaling_pb2.ScalingDecision:
    going = thought.victims[: thought.measured.effective - thought.wanted]
    decision.action = scaling_pb2.SCALING_ACTION_SCALE_IN
    decision.worker_ids.extend(worker.worker_id for worker in going)
    decision.alternatives.extend(alternatives(decision, thought.policy, thought.measured.effective))
    decision.reason = (
        f"{len(going)} {count_workers(len(going))} idle for {thought.situation.idle_seconds:g} s or longer, "
        f"backlog {decision.demand.backlog_seconds:.1f} s"
    )
    return decision


def _hold(thought: _Deliberation, projection: DemandProjection) -> Plan:
    measured, ledger = thought.measured, thought.ledger
    now_ns = measured.now_ns
    kind, explain = why_hold(thought.effects, measured.effective, thought.recommendation)
    times = _times(thought)
    if ledger.launches and projection.gone:
        lost = [projection.gone[launch].at_ns for launch in ledger.launches if launch in projection.gone]
        times += [at_ns + int(LOST_GRACE_SECONDS * NANOS) for at_ns in lost]
    wake_at_ns = min((at for at in times if at > now_ns), default=None)
    is_same = kind == ledger.hold_kind or (kind == STEADY and not ledger.hold_kind)
    if is_same and not ledger.must_note(thought.policy, thought.recommendation.workers):
        return Plan(None, wake_at_ns=wake_at_ns)
    next_hold_ns = ledger.last_hold_ns + int(HOLD_INTERVAL_SECONDS * NANOS)
    if now_ns < next_hold_ns:
        return Plan(None, wake_at_ns=min(next_hold_ns, wake_at_ns or next_hold_ns))
    decision = _message(thought, projection)
    decision.action = scaling_pb2.SCALING_ACTION_HOLD
    decision.reason = explain()
    return Plan(decision, kind, wake_at_ns)


def _times(thought: _Deliberation) -> list[int]:
    """Instants, some of them past, from which on time alone may change the decision."""
    ledger, policy, situation, measured = thought.ledger, thought.policy, thought.situation, thought.measured
    times = []
    if measured.awaited_ages:
        times.append(
            measured.now_ns + int((policy.registration_seconds - max(measured.awaited_ages)) * NANOS)
        )
    times += [at_ns + int(DRAIN_ANSWER_SECONDS * NANOS) for at_ns in ledger.drains_asked.values()]
    times.append(situation.retry_at_ns)
    times.append(ledger.last_scale_out_ns + int(policy.scale_out_cooldown_seconds * NANOS))
    last_ns = max(ledger.last_scale_out_ns, ledger.last_scale_in_ns)
    times.append(last_ns + int(policy.scale_in_cooldown_seconds * NANOS))
    times += ledger.windows_end(policy)
    if (boundary_ns := next_boundary_ns(policy, measured.now_ns, measured.startup_seconds)) is not None:
        times.append(boundary_ns)
    if thought.recommendation.wake_at_ns is not None:
        times.append(thought.recommendation.wake_at_ns)
    if measured.effective > policy.min_workers and measured.idle:
        idle_at_ns = next_removable_at_ns(measured.idle, measured.now_ns, situation.idle_seconds)
        times.append(idle_at_ns or 0)
    return times
