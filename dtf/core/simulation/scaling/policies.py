"""Policies by name."""

from collections.abc import Callable, Mapping

from dtf.core.scaling.policy import ScalingPolicy
from dtf.core.simulation.scaling.dask import DaskAdaptive
from dtf.core.simulation.scaling.hpa import HorizontalPodAutoscaler
from dtf.core.simulation.scaling.keda import Keda
from dtf.core.simulation.scaling.outcome import PoolShape
from dtf.core.simulation.scaling.ray import RayAutoscaler
from dtf.core.simulation.scaling.shipped import ShippedPolicy
from dtf.core.simulation.scaling.simulator import Controller

PEERS: Mapping[str, Callable[[], Controller]] = {
    "hpa": HorizontalPodAutoscaler,
    "keda": Keda,
    "dask": DaskAdaptive,
    "ray": RayAutoscaler,
}
"""What others do, by their documented defaults."""

DEFAULT = "default"


def default_policy(shape: PoolShape) -> ShippedPolicy:
    """The policy that ships, with this pool's bounds and slots."""
    policy = ScalingPolicy("local", shape.min_workers, shape.max_workers, shape.slots)
    return ShippedPolicy(DEFAULT, policy)


def named_policy(name: str, shape: PoolShape) -> Controller | None:
    """A policy that is built in; None: there is none of that name. A controller serves one simulation."""
    if name == DEFAULT:
        return default_policy(shape)
    make = PEERS.get(name)
    return make() if make is not None else None
