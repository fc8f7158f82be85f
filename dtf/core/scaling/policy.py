"""Target tracking: as many workers as give each the aimed-at backlog, and the rules that limit it.

The recommendation is ceil(backlog / (aim x slots)). Each rule then sees the recommendation and
may change it; what it made of it, and why, is kept in the decision (RuleEffect). The order of the
rules is the order of `apply_rules`: what is sensible, then what the bounds allow, then what the
pace allows. Bounds hold always; a pause never keeps the pool below its minimum.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from dtf.api.v1 import scaling_pb2
from dtf.core.scaling.rates import NANOS

TOLERANCE_RATIO = 0.1
"""A change by a smaller share of the pool than this is not worth a launch or a drain."""


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Bounds and pace of one pool, every figure resolved."""

    pool: str
    min_workers: int
    max_workers: int
    slots: int
    labels: dict[str, str] = field(default_factory=dict)
    backlog_aim_seconds: float = 2.0
    scale_in_idle_seconds: float = 5.0
    scale_out_cooldown_seconds: float = 0.5
    scale_in_cooldown_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules are told."""

    now_ns: int
    demand: scaling_pb2.Demand
    effective: int
    """Workers that take work, and those that were launched and have not registered yet."""
    dead: int
    """Workers that died and have not been replaced."""
    removable: int
    """Workers idle for long enough to be drained."""
    last_scale_out_ns: int
    last_scale_in_ns: int
    failures_in_a_row: int
    retry_at_ns: int
    last_failure: str


def recommend(demand: scaling_pb2.Demand, policy: ScalingPolicy) -> int:
    """Workers that give each slot the aimed-at backlog."""
    return math.ceil(demand.backlog_seconds / (policy.backlog_aim_seconds * policy.slots) - 1e-9)


def apply_rules(
    recommended: int, policy: ScalingPolicy, situation: Situation
) -> tuple[int, list[scaling_pb2.RuleEffect]]:
    """The workers wanted after all rules, and what each rule made of them."""
    wanted = recommended
    effects: list[scaling_pb2.RuleEffect] = []
    for name, rule in _RULES:
        after, reason = rule(wanted, policy, situation)
        effects.append(scaling_pb2.RuleEffect(rule=name, before=wanted, after=after, reason=reason))
        wanted = after
    return wanted, effects


Rule = Callable[[int, ScalingPolicy, Situation], tuple[int, str]]


def _limit_to_tasks(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    tasks = situation.demand.queue_depth + situation.demand.leased_count
    most = math.ceil(tasks / policy.slots)
    return min(wanted, most), f"{tasks} {'task is' if tasks == 1 else 'tasks are'} all there is to run"


def _wait_for_startup(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if wanted <= situation.effective or not situation.effective:
        return wanted, "no more workers than now are asked for"
    left = situation.demand.backlog_seconds / (situation.effective * policy.slots)
    startup = situation.demand.startup_seconds
    if left > startup:
        return wanted, f"a new worker takes {startup:.1f} s to start and finds work left"
    return situation.effective, f"the work ends in {left:.1f} s, a new worker takes {startup:.1f} s to start"


def _tolerate(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    change = abs(wanted - situation.effective)
    if change and change < situation.effective * TOLERANCE_RATIO:
        return situation.effective, f"{change} of {situation.effective} workers is too small a change"
    return wanted, "the change is large enough, or none"


def _hold_minimum(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    return max(wanted, policy.min_workers), f"the pool keeps at least {policy.min_workers}"


def _hold_maximum(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    return min(wanted, policy.max_workers), f"the pool has at most {policy.max_workers}"


def _only_idle(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    least = situation.effective - situation.removable
    if wanted >= least:
        return wanted, "every worker that would go is idle"
    who = {0: "no worker has", 1: "one worker has"}.get(
        situation.removable, f"{situation.removable} workers have"
    )
    return least, f"{who} been idle for {policy.scale_in_idle_seconds:g} s"


def _cool_down(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if wanted > situation.effective:
        allowed = max(situation.effective + situation.dead, policy.min_workers)
        over_at = situation.last_scale_out_ns + int(policy.scale_out_cooldown_seconds * NANOS)
        if wanted > allowed and situation.now_ns < over_at:
            return allowed, f"workers were launched less than {policy.scale_out_cooldown_seconds:g} s ago"
    if wanted < situation.effective:
        last = max(situation.last_scale_out_ns, situation.last_scale_in_ns)
        if situation.now_ns < last + int(policy.scale_in_cooldown_seconds * NANOS):
            return situation.effective, f"the pool moved less than {policy.scale_in_cooldown_seconds:g} s ago"
    return wanted, "enough time has passed since the pool moved"


def _back_off(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if (
        wanted > situation.effective
        and situation.failures_in_a_row > 1
        and situation.now_ns < situation.retry_at_ns
    ):
        left = (situation.retry_at_ns - situation.now_ns) / NANOS
        return situation.effective, (
            f"{situation.failures_in_a_row} launches in a row died young, the last: {situation.last_failure}; "
            f"next try in {left:.0f} s"
        )
    return wanted, "launches have not been dying"


_RULES: tuple[tuple[str, Rule], ...] = (
    ("tasks", _limit_to_tasks),
    ("start-up", _wait_for_startup),
    ("tolerance", _tolerate),
    ("minimum", _hold_minimum),
    ("maximum", _hold_maximum),
    ("idle", _only_idle),
    ("cool-down", _cool_down),
    ("back-off", _back_off),
)
