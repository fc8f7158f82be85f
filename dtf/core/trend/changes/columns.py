"""What is appended to a stream, checked: columns of times, values and weights of one length."""

import numpy as np
from numpy.typing import ArrayLike

from dtf.core.trend.changes.arrays import Vector

LARGEST_VALUE = 1e100
"""Larger values count as this one: sums of squares of larger ones are no numbers."""
LEAST_WEIGHT, LARGEST_WEIGHT = 1e-3, 1e9
"""Weights beyond these count as these: sums of weights further apart lose the smaller ones."""


def columns_of(
    times: ArrayLike, values: ArrayLike, weights: ArrayLike | None
) -> tuple[Vector, Vector, Vector]:
    """The three as arrays of one length; values that are missing or infinite are NaN.

    Raises ValueError where lengths differ, a time is not finite or a weight is not positive and finite.
    """
    columns = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    weighed = np.ones(len(columns[1])) if weights is None else np.asarray(weights, dtype=np.float64)
    lengths = {len(column) for column in (*columns, weighed)}
    if len(lengths) > 1:
        raise ValueError(
            f"times, values and weights have {len(columns[0])}, {len(columns[1])} and {len(weighed)} entries; one of each is needed for each value"
        )
    if not np.isfinite(columns[0]).all():
        raise ValueError("a time is not finite; give seconds, or positions where a series has no times")
    if not (np.isfinite(weighed) & (weighed > 0.0)).all():
        raise ValueError(
            "a weight is not a positive finite number; give the number of replicates, or leave weights out"
        )
    bounded = np.where(np.isfinite(columns[1]), np.clip(columns[1], -LARGEST_VALUE, LARGEST_VALUE), np.nan)
    return columns[0], bounded, np.clip(weighed, LEAST_WEIGHT, LARGEST_WEIGHT)
