"""What may change a recommendation, in this order: what is sensible, the bounds, the pace.

Each rule sees what the ones before it left, and says what it makes of it and why; a decision carries
them all (RuleEffect). Bounds hold always: a pause of the pace never keeps the pool below its
minimum. A worker that holds a lease is never among those that go (`only_idle`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.rates import NANOS


@dataclass(slots=True)
class Situation:
    """What the rules are told."""

    now_ns: int
    effective: int
    """Workers that take work, and those that were launched and have not registered yet."""
    busy: int
    """Workers that hold a lease."""
    dead: int
    """Workers that died and have not been replaced."""
    removable: int
    """Workers idle for long enough to be drained."""
    idle_seconds: float
    """How long that is."""
    last_scale_out_ns: int = 0
    last_scale_in_ns: int = 0
    failures_in_a_row: int = 0
    retry_at_ns: int = 0
    last_failure: str = ""
    launched: Sequence[int] = ()
    """When workers were launched lately, one entry each."""
    drained: Sequence[int] = ()
    """When workers were drained lately, one entry each."""
    lowest_lately: int | None = None
    """The lowest recommendation of the window for growing."""
    highest_lately: int | None = None
    """The highest recommendation of the window for shrinking."""
    room: int | None = None
    """Workers that the bounds of all pools together leave to this one."""


Effect = tuple[str, int, int, str]
"""A rule, the recommendation before it and after it, and why."""
Rule = Callable[[int, ScalingPolicy, Situation], tuple[int, str]]


def apply_rules(recommended: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, list[Effect]]:
    """The workers wanted after all rules, and what each rule made of them."""
    wanted = recommended
    effects: list[Effect] = []
    for name, rule in _RULES:
        after, reason = rule(wanted, policy, situation)
        effects.append((name, wanted, after, reason))
        wanted = after
    return wanted, effects


def _reserve(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if not policy.warm_workers:
        return wanted, "no reserve is kept"
    least = situation.busy + policy.warm_workers
    return max(wanted, least), f"{policy.warm_workers} idle are kept in reserve"


def _stabilize(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    """Growing follows the lowest recommendation of its window, shrinking the highest of its own."""
    lowest, highest = situation.lowest_lately, situation.highest_lately
    if wanted > situation.effective and lowest is not None and lowest < wanted:
        after = max(lowest, situation.effective)
        return after, f"{lowest} were enough within the last {policy.scale_out_window_seconds:g} s"
    if wanted < situation.effective and highest is not None and highest > wanted:
        after = min(highest, situation.effective)
        return after, f"{highest} were needed within the last {policy.scale_in_window_seconds:g} s"
    return wanted, "the recommendation has been steady for long enough"


def _tolerate(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    change = abs(wanted - situation.effective)
    if change and change < situation.effective * policy.tolerance_ratio:
        return situation.effective, f"{change} of {situation.effective} workers is too small a change"
    return wanted, "the change is large enough, or none"


def _pause(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if policy.pause_reason:
        return situation.effective, f"the pool is paused, {policy.pause_reason}"
    return wanted, "the pool is not paused"


def _hold_minimum(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    if policy.pause_reason:
        return wanted, "a paused pool is left as it is"
    who = f", {policy.bounds_reason}" if policy.bounds_reason else ""
    return max(wanted, policy.min_workers), f"the pool keeps at least {policy.min_workers}{who}"


def _hold_maximum(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    who = f", {policy.bounds_reason}" if policy.bounds_reason else ""
    if policy.pause_reason:
        return wanted, "a paused pool is left as it is"
    return min(wanted, policy.max_workers), f"the pool has at most {policy.max_workers}{who}"


def _share_room(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    room = situation.room
    if room is None or wanted <= room:
        return wanted, "all pools together have room for it"
    after = max(min(wanted, situation.effective), room)
    return after, f"all pools together leave {room} to this one"


def _only_idle(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    least = situation.effective - situation.removable
    if wanted >= least:
        return wanted, "every worker that would go is idle"
    who = {0: "no worker has", 1: "one worker has"}.get(
        situation.removable, f"{situation.removable} workers have"
    )
    return least, f"{who} been idle for {situation.idle_seconds:g} s"


def _limit_rate(wanted: int, policy: ScalingPolicy, situation: Situation) -> tuple[int, str]:
    since_ns = situation.now_ns - int(policy.limit_seconds * NANOS)
    if wanted > situation.effective and (policy.scale_out_limit or policy.scale_out_limit_ratio):
        done = sum(1 for at_ns in situation.launched if at_ns > since_ns)
        limit = _limit(
            policy.scale_out_limit, policy.scale_out_limit_ratio, max(1, situation.effective - done)
        )
        floor = max(situation.effective + situation.dead, policy.min_workers)
        if limit is not None and wanted > (most := max(floor, situation.effective + max(0, limit - done))):
            return most, f"at most {limit} workers are launched in {policy.limit_seconds:g} s"
    if wanted < situation.effective and (policy.scale_in_limit or policy.scale_in_limit_ratio):
        done = sum(1 for at_ns in situation.drained if at_ns > since_ns)
        limit = _limit(policy.scale_in_limit, policy.scale_in_limit_ratio, situation.effective + done)
        if limit is not None and wanted < (least := situation.effective - max(0, limit - done)):
            return min(least, situation.effective), (
                f"at most {limit} workers go in {policy.limit_seconds:g} s"
            )
    return wanted, "the pool moves within its rate"


def _limit(workers: int, ratio: float, size: int) -> int | None:
    if not workers and not ratio:
        return None
    return max(workers, math.ceil(size * ratio))


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
    ("reserve", _reserve),
    ("stabilization", _stabilize),
    ("tolerance", _tolerate),
    ("pause", _pause),
    ("minimum", _hold_minimum),
    ("maximum", _hold_maximum),
    ("all pools", _share_room),
    ("idle", _only_idle),
    ("rate", _limit_rate),
    ("cool-down", _cool_down),
    ("back-off", _back_off),
)
