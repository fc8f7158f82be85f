"""What may be chosen of how a pool finds its size, each with its default: what settings and policy have in common."""

from dataclasses import dataclass, field
from enum import StrEnum

DEFAULT_STARTUP_SECONDS = 1.0


class Strategy(StrEnum):
    """How the size of a pool is chosen."""

    TARGET = "target"
    STATIC = "static"
    STEPWISE = "stepwise"
    ADAPTIVE = "adaptive"
    PREDICTIVE = "predictive"
    SCHEDULED = "scheduled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingChoices:
    """Labels, price and pace of one pool."""

    labels: dict[str, str] = field(default_factory=dict)
    is_spot: bool = False
    """Take capacity that is cheaper and may be taken away again, where the provider has it."""
    price_per_hour: float = 0.0
    """Of a worker, in any currency; pools are compared by it, and decisions say what they cost."""
    startup_seconds: float = DEFAULT_STARTUP_SECONDS
    """Start-up delay expected until launches have shown it."""
    workers: int = 0
    """Of the strategy static; 0: min_workers."""
    steps: dict[str, str] = field(default_factory=dict)
    """Of the strategy stepwise: "queue >= 20" = "+2"."""
    weights: dict[str, str] = field(default_factory=dict)
    """Of the strategy adaptive: queue = "0.6", cpu = "0.3", memory = "0.1", aim = "0.75"."""
    schedule: dict[str, str] = field(default_factory=dict)
    """Bounds by time of day and week, for every strategy: "mon-fri 08:00-18:00" = "5..50"."""
    timezone: str = "UTC"
    """Of the schedule."""
    warm_workers: int = 0
    """Idle workers kept beyond what the work needs."""
    tolerance_ratio: float = 0.0
    """A change by a smaller share of the pool than this is not made."""
    scale_out_window_seconds: float = 0.0
    """The pool grows to the lowest recommendation of so long a time only."""
    scale_in_window_seconds: float = 0.0
    """The pool shrinks to the highest recommendation of so long a time only."""
    scale_out_limit: int = 0
    """Workers launched at most within limit_seconds; 0: as many as are wanted."""
    scale_out_limit_ratio: float = 0.0
    """The same as a share of the pool; of both the larger counts."""
    scale_in_limit: int = 0
    """Workers drained at most within limit_seconds; 0: as many as may go."""
    scale_in_limit_ratio: float = 0.0
    limit_seconds: float = 60.0
    backlog_aim_seconds: float = 0.0
    """Work that a launched worker should have; 0: the learned start-up delay, at least 2 s."""
    scale_in_idle_seconds: float = 0.0
    """A worker that nothing needs and that is idle for this long may be drained; 0: a tenth of the learned
    start-up delay, at least 2 s."""
    scale_out_cooldown_seconds: float = 0.5
    scale_in_cooldown_seconds: float = 1.0
