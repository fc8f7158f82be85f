"""The period with which odd values come back: a nightly backup, a timer, every twelfth run on the slow machine.

A few odd values a period leave so little in each frequency that a spectrum does not show them. So it is
counted how many of them had another exactly d positions before, for each d.
"""

import numpy as np
from numpy.typing import ArrayLike

ODD_AT = 5.0
"""Robust standard deviations from the median."""
MOST_RATIO = 0.3
"""With more odd values than this share they are not odd."""
LOOKED_AT = 300
"""Newest odd values."""
LEAST_RETURNS = 5
LEAST_RATIO = 0.8
"""Share of the odd values that came back as often before, one period after the first at the earliest."""
NEARLY = 0.95
"""A shorter period that explains so much of what the best one does is preferred: it is not its multiple."""
SIGMA_PER_MAD = 1.4826


def find_recurrence(values: ArrayLike) -> int:
    """The period of the odd values of `values`, all finite; 0 if they have none, or there are no odd values."""
    numbers = np.asarray(values, dtype=np.float64)
    deviations = np.abs(numbers - np.median(numbers))
    odd = np.flatnonzero(deviations > ODD_AT * SIGMA_PER_MAD * np.median(deviations))
    if len(odd) <= LEAST_RETURNS or len(odd) > MOST_RATIO * len(numbers):
        return 0
    odd = odd[-LOOKED_AT:]
    apart = odd[:, None] - odd[None, :]
    longest = (len(numbers) - int(odd[0])) // (LEAST_RETURNS - 1)
    returns = np.bincount(apart[(apart > 1) & (apart <= longest)], minlength=longest + 1)
    distances = np.arange(longest + 1)
    chances = np.maximum(1, len(odd) - np.searchsorted(odd, odd[0] + distances))
    ratios = np.where(returns >= LEAST_RETURNS, returns / chances, 0.0)
    ratios[:2] = 0.0
    best = float(ratios.max(initial=0.0))
    return int(np.argmax(ratios >= NEARLY * best)) if best >= LEAST_RATIO else 0
