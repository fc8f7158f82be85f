"""The strategy that a pool's settings name."""

from typing import assert_never

from dtf.core.scaling.adaptive import PoolTelemetry, recommend_adaptive
from dtf.core.scaling.choices import Strategy
from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.predictive import recommend_predictive
from dtf.core.scaling.recommendation import Recommendation
from dtf.core.scaling.stepwise import recommend_stepwise
from dtf.core.scaling.target import recommend_target


def recommend(measured: Measured, policy: ScalingPolicy, telemetry: PoolTelemetry | None) -> Recommendation:
    """Workers, by the pool's strategy."""
    match policy.strategy:
        case Strategy.TARGET:
            return recommend_target(measured, policy)
        case Strategy.STATIC:
            return _recommend_static(policy)
        case Strategy.STEPWISE:
            return recommend_stepwise(measured, policy)
        case Strategy.ADAPTIVE:
            return recommend_adaptive(measured, policy, telemetry)
        case Strategy.PREDICTIVE:
            return recommend_predictive(measured, policy)
        case Strategy.SCHEDULED:
            return _recommend_scheduled(policy)
        case _:
            assert_never(policy.strategy)


def _recommend_static(policy: ScalingPolicy) -> Recommendation:
    workers = policy.workers or policy.min_workers
    return Recommendation(workers, lambda: f"the pool has {workers}, whatever there is to do")


def _recommend_scheduled(policy: ScalingPolicy) -> Recommendation:
    who = policy.bounds_reason or "by the pool's own bounds, for no entry of the schedule applies"
    return Recommendation(policy.min_workers, lambda: f"{policy.min_workers} {who}")
