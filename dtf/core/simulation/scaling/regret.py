"""What following one policy lost against another: how a shadow is judged."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.rates import NANOS
from dtf.core.simulation.scaling.outcome import Outcome, Waits, count_flaps, waits_of
from dtf.core.simulation.scaling.recorded import RecordedDemand

OBSERVED = "observed"
NOTICEABLE_RATIO = 0.05
"""A difference by a smaller share than this is called none: it is within what a simulation can tell."""


@dataclass(frozen=True, slots=True)
class Regret:
    """Positive: the candidate would have been better by so much."""

    observed: str
    candidate: str
    makespan_seconds: float
    waits: Waits
    worker_seconds: float
    cost: float
    busy_kills: int
    verdict: str
    """In words."""


def regret(observed: Outcome, candidate: Outcome) -> Regret:
    """What was lost by following `observed` rather than `candidate` on the same demand."""
    return Regret(
        observed=observed.policy,
        candidate=candidate.policy,
        makespan_seconds=observed.makespan_seconds - candidate.makespan_seconds,
        waits=Waits(
            observed.waits.p50 - candidate.waits.p50,
            observed.waits.p95 - candidate.waits.p95,
            observed.waits.p99 - candidate.waits.p99,
        ),
        worker_seconds=observed.worker_seconds - candidate.worker_seconds,
        cost=observed.cost - candidate.cost,
        busy_kills=observed.busy_kills - candidate.busy_kills,
        verdict=_verdict(observed, candidate),
    )


def observed_outcome(
    demand: RecordedDemand,
    decisions: Iterable[scaling_pb2.ScalingDecision] = (),
    *,
    startup_seconds: float = 0.0,
    price: float = 0.0,
) -> Outcome:
    """What the pool that really ran came to, by its log, and its actions by its decisions.

    A worker counts from its launch until it left, or, if it was there to the end, until the last task
    ended. Where no decision tells of its launch, that was `startup_seconds` before it registered.
    """
    taken = list(decisions)
    launches = launches_of(taken)
    end_ns = demand.first_ns + round(demand.makespan_seconds * NANOS)
    spent = 0.0
    for lifetime in demand.lifetimes.values():
        before_ns = lifetime.registered_ns - round(startup_seconds * NANOS)
        launched_ns = launches.get(lifetime.worker_id, before_ns)
        spent += ((lifetime.gone_ns or max(end_ns, lifetime.registered_ns)) - launched_ns) / NANOS
    moves = [move for decision in taken if (move := _move(demand, decision)) is not None]
    return Outcome(
        policy=OBSERVED,
        makespan_seconds=demand.makespan_seconds,
        waits=waits_of(demand.waits),
        worker_seconds=spent,
        cost=spent / 3600 * price,
        actions=len(moves),
        flaps=count_flaps(moves),
        busy_kills=0,
        task_count=len(demand.trace),
    )


def launches_of(decisions: Iterable[scaling_pb2.ScalingDecision]) -> dict[str, int]:
    """When each launch was asked for, in nanoseconds; a worker is called as its launch."""
    asking = (scaling_pb2.SCALING_ACTION_SCALE_OUT, scaling_pb2.SCALING_ACTION_REPLACE)
    return {
        launch_id: decision.now_unix_nanos
        for decision in decisions
        if decision.action in asking
        for launch_id in decision.launch_ids
    }


def startup_of(demand: RecordedDemand, launches: Mapping[str, int]) -> float:
    """From a launch until its worker takes tasks: the median of those that were given any."""
    delays = [
        (lifetime.leased_ns - launches[lifetime.worker_id]) / NANOS
        for lifetime in demand.lifetimes.values()
        if lifetime.leased_ns and lifetime.worker_id in launches
    ]
    return median(delays) if delays else 0.0


def _move(demand: RecordedDemand, decision: scaling_pb2.ScalingDecision) -> tuple[float, int] | None:
    at = (decision.now_unix_nanos - demand.first_ns) / NANOS
    match decision.action:
        case scaling_pb2.SCALING_ACTION_SCALE_OUT | scaling_pb2.SCALING_ACTION_REPLACE:
            return at, len(decision.launch_ids)
        case scaling_pb2.SCALING_ACTION_SCALE_IN:
            return at, -len(decision.worker_ids)
        case _:
            return None


def _verdict(observed: Outcome, candidate: Outcome) -> str:
    faster = _compare(observed.waits.p95, candidate.waits.p95)
    cheaper = _compare(observed.worker_seconds, candidate.worker_seconds)
    if not faster and not cheaper:
        return f"{candidate.policy} would have made no difference"
    words = []
    if faster:
        gap = abs(observed.waits.p95 - candidate.waits.p95)
        words.append(f"waited {gap:.1f} s {'less' if faster > 0 else 'more'} at the 95th percentile")
    if cheaper:
        gap = abs(observed.worker_seconds - candidate.worker_seconds)
        words.append(f"{'saved' if cheaper > 0 else 'cost'} {gap:,.0f} worker-seconds")
    joint = " and " if faster * cheaper >= 0 else ", but "
    return f"{candidate.policy} would have {joint.join(words)}"


def _compare(observed: float, candidate: float) -> int:
    """1: the candidate is noticeably lower; -1: higher; 0: neither."""
    if abs(observed - candidate) <= NOTICEABLE_RATIO * max(observed, candidate):
        return 0
    return 1 if candidate < observed else -1
