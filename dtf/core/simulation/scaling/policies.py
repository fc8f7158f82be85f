"""What others do, by name and by their documented defaults."""

from collections.abc import Callable, Mapping

from dtf.core.simulation.scaling.dask import DaskAdaptive
from dtf.core.simulation.scaling.hpa import HorizontalPodAutoscaler
from dtf.core.simulation.scaling.keda import Keda
from dtf.core.simulation.scaling.ray import RayAutoscaler
from dtf.core.simulation.scaling.simulator import Controller

PEERS: Mapping[str, Callable[[], Controller]] = {
    "hpa": HorizontalPodAutoscaler,
    "keda": Keda,
    "dask": DaskAdaptive,
    "ray": RayAutoscaler,
}
"""A controller serves one simulation."""
