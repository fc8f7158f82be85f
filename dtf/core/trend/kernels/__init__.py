"""The engine's arithmetic once more, compiled by numba: to the last bit what numpy gives. Imported by `compiled` alone."""

from dtf.core.trend.kernels.noise import (
    clipped,
    line_through,
    noise_of_ordered,
    noise_of_residuals,
    prospects,
    regime,
    resolution,
)
from dtf.core.trend.kernels.search import (
    likely,
    origins,
    prefix,
    profile,
    residuals,
    scale_gains,
    spread_bound,
)
from dtf.core.trend.kernels.spectrum import most_of_multiples, prefix_medians, running_median
from dtf.core.trend.kernels.watching import is_calm, scores

__all__ = [
    "clipped",
    "is_calm",
    "likely",
    "line_through",
    "most_of_multiples",
    "noise_of_ordered",
    "noise_of_residuals",
    "origins",
    "prefix",
    "prefix_medians",
    "profile",
    "prospects",
    "regime",
    "residuals",
    "resolution",
    "running_median",
    "scale_gains",
    "scores",
    "spread_bound",
]
