"""Figures of one pool since the process began, in plain values; whoever publishes them reads them."""

from collections import Counter
from dataclasses import dataclass, field

from dtf.api.v1 import scaling_pb2

STARTUP_BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds, in seconds, of the histogram of start-ups."""


@dataclass(slots=True)
class PoolMeters:
    """What one pool came to."""

    desired: int = 0
    requested: int = 0
    observed: int = 0
    queued: int = 0
    backlog_seconds: float = 0.0
    decisions: Counter[str] = field(default_factory=Counter)
    """By action, in lower case."""
    launched: int = 0
    provider_errors: Counter[str] = field(default_factory=Counter)
    """By what the provider was asked for."""
    quarantines: int = 0
    startups: list[int] = field(default_factory=lambda: [0] * (len(STARTUP_BOUNDS) + 1))
    """Launches by start-up delay, one entry a bound, and what is beyond the last."""
    startup_seconds: float = 0.0
    """Sum of all start-up delays."""

    def decided(self, decision: scaling_pb2.ScalingDecision) -> None:
        """A decision was made."""
        action = scaling_pb2.ScalingAction.Name(decision.action).removeprefix("SCALING_ACTION_").lower()
        self.decisions[action] += 1
        if decision.action in (scaling_pb2.SCALING_ACTION_SCALE_OUT, scaling_pb2.SCALING_ACTION_REPLACE):
            self.launched += len(decision.launch_ids)
        if decision.HasField("demand"):  # one to terminate looks at no demand
            self.desired = decision.desired

    def measured(self, observed: int, requested: int, queued: int, backlog_seconds: float) -> None:
        """How the pool stands."""
        self.observed, self.requested = observed, requested
        self.queued, self.backlog_seconds = queued, backlog_seconds

    def started(self, seconds: float) -> None:
        """A launch registered so long after it was asked for."""
        position = next(
            (k for k, bound in enumerate(STARTUP_BOUNDS) if seconds <= bound), len(STARTUP_BOUNDS)
        )
        self.startups[position] += 1
        self.startup_seconds += seconds
