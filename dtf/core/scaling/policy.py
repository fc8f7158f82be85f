"""What a pool's settings say of its size: strategy, bounds and pace, every figure resolved."""

from dataclasses import dataclass, replace

from dtf.core.fleet.pool_wish import PoolWish
from dtf.core.scaling.choices import ScalingChoices, Strategy

POLICY_VERSION = 6
"""Raised whenever the same measurements lead to another decision; a decision carries it."""
REGISTRATION_SECONDS = 120.0
AIM_STARTUP_RATIO = 1.0
"""Of the start-up delay: what a worker is launched for is at least as much as launching it costs."""
LEAST_AIM_SECONDS = 2.0
IDLE_STARTUP_RATIO = 1 / 10
LEAST_IDLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ScalingPolicy(ScalingChoices):
    """Bounds and pace of one pool."""

    pool: str
    min_workers: int
    max_workers: int
    slots: int
    strategy: Strategy = Strategy.TARGET
    pause_reason: str = ""
    """The pool is left as it is, and who wishes so."""
    bounds_reason: str = ""
    """Who wishes the bounds, if they are not the settings'."""
    registration_seconds: float = REGISTRATION_SECONDS
    """A launch that has not registered by then is ended."""

    def aim_seconds(self, startup: float) -> float:
        """Backlog each worker should have."""
        return self.backlog_aim_seconds or max(LEAST_AIM_SECONDS, startup * AIM_STARTUP_RATIO)

    def idle_seconds(self, startup: float) -> float:
        """How long a worker that nothing needs is kept."""
        return self.scale_in_idle_seconds or max(LEAST_IDLE_SECONDS, startup * IDLE_STARTUP_RATIO)


def wished_policy(policy: ScalingPolicy, wish: PoolWish | None) -> ScalingPolicy:
    """The policy as the operators wish it; where bounds cross, what was wished holds."""
    if wish is None:
        return policy
    who = f"wished by {wish.requested_by}: {wish.reason}" if wish.reason else f"wished by {wish.requested_by}"
    least, most = policy.min_workers, policy.max_workers
    if wish.min_workers is not None:
        least = wish.min_workers
        most = max(most, least)
    if wish.max_workers is not None:
        most = wish.max_workers
        least = min(least, most) if wish.min_workers is None else least
        most = max(most, least)
    if wish.workers is not None:
        least = most = wish.workers
    is_bound = (least, most) != (policy.min_workers, policy.max_workers)
    return replace(
        policy,
        min_workers=least,
        max_workers=most,
        bounds_reason=who if is_bound else "",
        pause_reason=who if wish.is_paused else "",
    )
