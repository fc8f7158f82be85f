"""The regimes between change points, for showing them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtf.core.trend.findings import ChangeKind, ChangePoint
from dtf.trends.moments import Floats


def bounds(length: int, changes: Sequence[ChangePoint]) -> list[tuple[int, int, ChangeKind]]:
    """Half-open segments with the kind of change each began with; changes of the spread begin none."""
    moves = [each for each in changes if each.kind is not ChangeKind.VARIANCE]
    starts = [0, *(each.index for each in moves)]
    kinds = [ChangeKind.STEP, *(each.kind for each in moves)]
    return [
        (start, end, kind)
        for start, end, kind in zip(starts, [*starts[1:], length], kinds, strict=True)
        if end > start
    ]


def regimes(length: int, changes: Sequence[ChangePoint]) -> NDArray[np.int64]:
    """The number of each position's regime, shape (length,)."""
    found = np.zeros(length, dtype=np.int64)
    for number, (start, end, _) in enumerate(bounds(length, changes)):
        found[start:end] = number
    return found


def levels(values: Floats, changes: Sequence[ChangePoint]) -> Floats:
    """The level of each position's regime, shape (n,): its median, or a line where it began as a drift."""
    found = np.full(len(values), np.nan)
    for start, end, kind in bounds(len(values), changes):
        part = values[start:end]
        known = np.flatnonzero(np.isfinite(part))
        if len(known) > 2 and kind is ChangeKind.DRIFT:
            slope, level = np.polyfit(known, part[known], 1)
            found[start:end] = level + slope * np.arange(end - start)
        elif len(known):
            found[start:end] = np.median(part[known])
    return found
