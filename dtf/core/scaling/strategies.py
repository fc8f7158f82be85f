"""The strategy that a pool's settings name."""

from dataclasses import dataclass

from dtf.core.scaling.demand import DemandProjection
from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.recommendation import Recommendation
from dtf.core.scaling.target import recommend_target


@dataclass(frozen=True, slots=True)
class PoolTelemetry:
    """What the pool's workers say of their machines, as means over the pool, 0 to 1."""

    cpu_ratio: float
    memory_ratio: float


def recommend(
    measured: Measured,
    projection: DemandProjection,
    policy: ScalingPolicy,
    telemetry: PoolTelemetry | None,
) -> Recommendation:
    """Workers, by the pool's strategy."""
    return recommend_target(measured, policy)
