"""The same arithmetic as in `seasonality`."""

import numpy as np

from dtf.core.trend.changes.arrays import Flags, Places, Vector
from dtf.core.trend.kernels.jit import compiled


@compiled
def running_median(padded: Vector, reach: int) -> Vector:
    """Medians of each 2 reach + 1 neighbours."""
    width = 2 * reach + 1
    ordered = np.sort(padded[:width])
    medians = np.empty(len(padded) - width + 1)
    medians[0] = ordered[reach]
    for at in range(1, len(medians)):
        old, new = padded[at - 1], padded[at + width - 1]
        place = np.searchsorted(ordered, old)
        while place + 1 < width and ordered[place + 1] < new:
            ordered[place] = ordered[place + 1]
            place += 1
        while place > 0 and ordered[place - 1] > new:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = new
        medians[at] = ordered[reach]
    return medians


@compiled
def prefix_medians(values: Vector, count: int) -> Vector:
    """Medians of the first 1, 3, 5 … 2 count - 1 values."""
    ordered, medians = np.empty(2 * count), np.empty(count)
    for known in range(2 * count - 1):
        place = known
        while place > 0 and ordered[place - 1] > values[known]:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = values[known]
        if known % 2 == 0:
            medians[known // 2] = ordered[known // 2]
    return medians


@compiled
def most_of_multiples(quotients: Vector, before: Places, behind: Vector, is_there: Flags) -> Vector:
    """The largest sum, of any period, of the quotients at its first 1, 2, 3 … multiples; see `seasonality._multiples`."""
    most = np.full(before.shape[1], -np.inf)
    for period in range(before.shape[0]):
        total = 0.0
        for multiple in range(before.shape[1]):
            if is_there[period, multiple]:
                at = before[period, multiple]
                rise = quotients[at + 1] - quotients[at] if at + 1 < len(quotients) else 0.0
                total += rise * behind[period, multiple] + quotients[at]
            most[multiple] = max(most[multiple], total)
    return most
