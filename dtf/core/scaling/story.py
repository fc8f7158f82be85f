"""A decision of the resource manager in words: what it saw, what it aimed at, what limited it, what else it could do."""

from collections.abc import Iterator

from dtf.api.v1 import scaling_pb2

MOVES = frozenset(
    {
        scaling_pb2.SCALING_ACTION_SCALE_OUT,
        scaling_pb2.SCALING_ACTION_SCALE_IN,
        scaling_pb2.SCALING_ACTION_REPLACE,
        scaling_pb2.SCALING_ACTION_TERMINATE,
    }
)
"""Actions that ask something of a provider or a worker."""


def action_word(decision: scaling_pb2.ScalingDecision) -> str:
    """ "scale out"."""
    name = scaling_pb2.ScalingAction.Name(decision.action).removeprefix("SCALING_ACTION_")
    return name.lower().replace("_", " ")


def headline(decision: scaling_pb2.ScalingDecision) -> str:
    """ "scale out 2 → 4 (pool local)"."""
    staffed = decision.observed + decision.requested
    sizes = f" {staffed} → {decision.desired}" if decision.HasField("demand") else ""
    return f"{action_word(decision)}{sizes} (pool {decision.pool})"


def tell(decision: scaling_pb2.ScalingDecision) -> Iterator[tuple[str, str]]:
    """Pairs of a word and what is to be said under it, in the order of the decision."""
    yield "because", decision.reason
    if decision.HasField("demand"):
        yield "saw", _saw(decision)
        yield from _saw_more(decision.demand)
        by = f" (strategy {decision.strategy})" if decision.strategy else ""
        yield "aim", f"{decision.recommended} {_workers(decision.recommended)} before the rules{by}"
    if decision.HasField("allocation"):
        for each in decision.allocation.shares:
            yield "part", each.reason or f"{each.share:.0%} of {each.requirement or 'any work'}"
        if decision.allocation.HasField("room"):
            room = decision.allocation.room
            yield "part", f"all pools together leave it {room} {_workers(room)}"
    for consideration in decision.considerations:
        wanted = f"{consideration.workers} {_workers(consideration.workers)}"
        yield "weighed", f"{consideration.name}: {wanted}, {consideration.reason}"
    if decision.HasField("forecast"):
        yield "forecast", _forecast(decision.forecast)
    for effect in decision.rules:
        if effect.before != effect.after:
            yield "limited", f"{effect.rule}: {effect.before} → {effect.after}, {effect.reason}"
    untouched = [effect.rule for effect in decision.rules if effect.before == effect.after]
    if untouched:
        yield "asked", f"{', '.join(untouched)}: no change"
    for alternative in decision.alternatives:
        yield "instead", alternative.description
    if decision.launch_ids:
        yield "launches", ", ".join(decision.launch_ids)
    if decision.worker_ids:
        yield "workers", ", ".join(decision.worker_ids)
    for seen in decision.observations:
        yield "heard", _heard(seen)


def _saw(decision: scaling_pb2.ScalingDecision) -> str:
    demand = decision.demand
    assumed = demand.queue_depth - demand.known_count
    known = f"{demand.known_count} with history" if demand.queue_depth else ""
    if assumed > 0:
        known += f", {assumed} assumed to take {demand.assumed_seconds:.2g} s a task"
    parts = [
        f"backlog {demand.backlog_seconds:.1f} s",
        f"{demand.queue_depth} queued{f' ({known})' if known else ''}",
        f"{demand.leased_count} running",
        f"{decision.observed} {_workers(decision.observed)}",
        f"{decision.requested} on their way",
        f"arrival {demand.arrival_rate:.2g}/s",
        f"{demand.utilization_ratio:.0%} busy",
        f"start-up {demand.startup_seconds:.1f} s",
    ]
    if demand.unplaceable_count:
        parts.append(f"{demand.unplaceable_count} that no worker of this pool could run")
    return ", ".join(parts)


def _saw_more(demand: scaling_pb2.Demand) -> Iterator[tuple[str, str]]:
    """By requirement class, where there are several; and what cannot be run."""
    for each in demand.classes if len(demand.classes) > 1 else ():
        what = each.requirement or "any worker"
        yield "", f"{what}: {each.queued} queued, {each.leased} running, {each.backlog_seconds:.1f} s"
    for missing in demand.unplaceable:
        where = "no pool gives it" if missing.is_nowhere else "another pool can"
        yield "", f"{missing.queued} queued need {missing.requirement or 'another pool'}: {where}"


def _forecast(forecast: scaling_pb2.Forecast) -> str:
    said = (
        f"in the next {forecast.horizon_seconds:.1f} s {forecast.needed_slots:.1f} slots needed, "
        f"{forecast.kept_slots:.1f} worth keeping ({forecast.method or 'none'})"
    )
    if forecast.rate_high:
        said += f", {forecast.rate:.2g} tasks/s ({forecast.rate_low:.2g} to {forecast.rate_high:.2g})"
    if forecast.error_ratio:
        said += f", its error is {forecast.error_ratio:.2f} of that of 'as now'"
    return said


def _heard(seen: scaling_pb2.Observation) -> str:
    match seen.WhichOneof("observation"):
        case "exited":
            return f"{seen.exited.launch_id} {seen.exited.reason}"
        case "failed":
            return f"{seen.failed.launch_id} could not be launched: {seen.failed.reason}"
        case "adopted":
            return f"{seen.adopted.launch_id} was found running"
        case "interrupted":
            return f"{seen.interrupted.launch_id} will be taken away: {seen.interrupted.reason}"
        case "drain_refused_worker_id":
            return f"{seen.drain_refused_worker_id} got work before it could be drained"
        case _:
            return "something that this version does not know"


def _workers(count: int) -> str:
    return "worker" if count == 1 else "workers"
