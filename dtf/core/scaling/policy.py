"""What a pool's settings say of its size: strategy, bounds and pace, every figure resolved."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from dtf.core.fleet.pool_wish import PoolWish

POLICY_VERSION = 4
"""Raised whenever the same measurements lead to another decision; a decision carries it."""
DEFAULT_STARTUP_SECONDS = 1.0
AIM_STARTUP_RATIO = 1 / 2
"""Of the start-up delay: waiting so much longer than the worker takes to come is no harm."""
LEAST_AIM_SECONDS = 2.0
IDLE_STARTUP_RATIO = 1 / 10
LEAST_IDLE_SECONDS = 2.0


class Strategy(StrEnum):
    """How the size of a pool is chosen."""

    TARGET = "target"
    STATIC = "static"
    STEPWISE = "stepwise"
    ADAPTIVE = "adaptive"
    PREDICTIVE = "predictive"
    SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True)
class ScalingPolicy:
    """Bounds and pace of one pool."""

    pool: str
    min_workers: int
    max_workers: int
    slots: int
    labels: dict[str, str] = field(default_factory=dict)
    backlog_aim_seconds: float = 0.0
    """Backlog each worker should have; 0: a sixth of the start-up delay, at least 2 s."""
    scale_in_idle_seconds: float = 0.0
    """A worker idle for this long may go; 0: a sixth of the start-up delay, at least 5 s."""
    scale_out_cooldown_seconds: float = 0.5
    scale_in_cooldown_seconds: float = 1.0
    strategy: Strategy = Strategy.TARGET
    startup_seconds: float = DEFAULT_STARTUP_SECONDS
    """Expected of the provider until launches have shown it."""
    warm_workers: int = 0
    """Idle workers kept beyond what the work needs."""
    tolerance_ratio: float = 0.0
    """A change by a smaller share of the pool than this is not made."""
    scale_out_window_seconds: float = 0.0
    """The pool grows to the lowest recommendation of so long."""
    scale_in_window_seconds: float = 0.0
    """The pool shrinks to the highest recommendation of so long."""
    scale_out_limit: int = 0
    """Workers launched at most within `limit_seconds`; 0: as many as are wanted."""
    scale_out_limit_ratio: float = 0.0
    """The same as a share of the pool; with both the larger holds; 0: none."""
    scale_in_limit: int = 0
    scale_in_limit_ratio: float = 0.0
    limit_seconds: float = 60.0
    workers: int = 0
    """Of the strategy "static"."""
    steps: dict[str, str] = field(default_factory=dict)
    """Of the strategy "stepwise"."""
    weights: dict[str, str] = field(default_factory=dict)
    """Of the strategy "adaptive"."""
    schedule: dict[str, str] = field(default_factory=dict)
    """Bounds by time of day and week, for every strategy."""
    timezone: str = "UTC"
    """Of the schedule."""
    pause_reason: str = ""
    """The pool is left as it is, and who wishes so."""
    bounds_reason: str = ""
    """Who wishes the bounds, if they are not the settings'."""
    price_per_hour: float = 0.0
    is_spot: bool = False
    registration_seconds: float = 120.0
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
