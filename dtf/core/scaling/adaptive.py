"""Adaptive: the pool follows a weighted pressure of queue, processors and memory.

Each pressure is a share of what is right: the backlog that each slot has over the aim, the mean
processor and memory use of the workers' machines over the use aimed at. The workers wanted are those
there times the weighted mean of the pressures, as the horizontal autoscaler of Kubernetes does for
one metric. What the workers have not said lately is left out, and the others weigh the more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dtf.core.scaling.measure import Measured
from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.scaling.recommendation import Recommendation

DEFAULT_WEIGHTS: Mapping[str, float] = {"queue": 0.6, "cpu": 0.3, "memory": 0.1, "aim": 0.75}
"""`aim` is the use of processors and memory that is right."""
HIGHEST_PRESSURE = 4.0
"""One metric gone wild grows the pool by no more than this at a time."""


class BadWeight(ValueError):
    """A weight that cannot be read; the message says which and what was expected."""


@dataclass(frozen=True, slots=True)
class PoolTelemetry:
    """What the pool's workers say of their machines, as means over the pool, 0 to 1."""

    cpu_ratio: float
    memory_ratio: float


def parse_weights(written: Mapping[str, str]) -> dict[str, float]:
    """The weights of a pool's settings, completed by the defaults. Raises BadWeight."""
    weights = dict(DEFAULT_WEIGHTS)
    for name, text in written.items():
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if name not in weights or not 0 <= value < math.inf or (name == "aim" and not 0 < value <= 1):
            raise BadWeight(
                f'the weight {name} = "{text}" cannot be used: queue, cpu and memory take a number from 0 on, '
                "aim one above 0 and up to 1"
            )
        weights[name] = value
    return weights


def recommend_adaptive(
    measured: Measured, policy: ScalingPolicy, telemetry: PoolTelemetry | None
) -> Recommendation:
    """The workers there times the weighted pressure."""
    weights = parse_weights(policy.weights)
    pressures = {"queue": _queue_pressure(measured, policy)}
    if telemetry is not None and measured.staff:
        pressures["cpu"] = min(HIGHEST_PRESSURE, telemetry.cpu_ratio / weights["aim"])
        pressures["memory"] = min(HIGHEST_PRESSURE, telemetry.memory_ratio / weights["aim"])
    total = sum(weights[name] for name in pressures)
    pressure = sum(weights[name] * value for name, value in pressures.items()) / total if total else 1.0
    workers = math.ceil(measured.staff * pressure - 1e-9)
    if not measured.staff:
        aim = policy.aim_seconds(measured.startup_seconds)
        workers = math.ceil(measured.backlog_seconds / (aim * policy.slots) - 1e-9)
    workers = max(workers, measured.busy_workers)

    def explain() -> str:
        said = ", ".join(f"{name} {value:.2f}" for name, value in pressures.items())
        return f"pressure {pressure:.2f} on {measured.staff} workers ({said})"

    parts = [
        (name, math.ceil(measured.staff * value - 1e-9), f"pressure {value:.2f}, weight {weights[name]:g}")
        for name, value in pressures.items()
    ]
    return Recommendation(workers, explain, lambda: parts)


def _queue_pressure(measured: Measured, policy: ScalingPolicy) -> float:
    if not measured.slots:
        return 0.0
    aim = policy.aim_seconds(measured.startup_seconds)
    return min(HIGHEST_PRESSURE, measured.backlog_seconds / (measured.slots * aim))
