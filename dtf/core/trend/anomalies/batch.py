"""The anomalies of a series that is all there, as its values would have been scored one by one."""

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtf.core.trend.anomalies.contexts import LENGTH
from dtf.core.trend.anomalies.detector import FINDING_SCORE, AnomalyDetector
from dtf.core.trend.findings import Anomaly, AnomalyKind, ChangePoint, Interval

Vector = NDArray[np.float64]

TOLD_EVERY = 2048
"""Values after which it is told how far the scoring is: some tenths of a second."""


def find_anomalies(
    values: ArrayLike,
    times: ArrayLike | None = None,
    *,
    changes: Iterable[ChangePoint] = (),
    least_score: float = FINDING_SCORE,
    on_progress: Callable[[int], object] = lambda _count: None,
) -> tuple[Anomaly, ...]:
    """Anomalies with a score of `least_score` or more, in order; `on_progress` is told how many values were scored.

    Where one of `changes` lies a regime begins, and its first values are no anomalies.

    A point anomaly is one value, or the neighbours that are as far from what was expected before them; a
    collective one is the stretch at whose end it was noticed. Raises ValueError if lengths differ.
    """
    numbers = np.asarray(values, dtype=np.float64)
    moments = np.arange(len(numbers), dtype=np.float64) if times is None else np.asarray(times, np.float64)
    if len(moments) != len(numbers):
        raise ValueError(f"{len(moments)} times for {len(numbers)} values; each value has one time")
    detector = AnomalyDetector()
    found: list[Anomaly] = []
    for index, (time, value) in enumerate(zip(moments.tolist(), numbers.tolist(), strict=True)):
        reach = detector.usual_error
        score = detector.update(time, value)
        if not (index + 1) % TOLD_EVERY:
            on_progress(index + 1)
        if math.isfinite(value) and score >= least_score:
            expected = Interval(detector.expected - reach, detector.expected + reach)
            found.append(_anomaly(numbers, moments, index, score, detector.kind, expected))
    on_progress(len(numbers))
    began = [(change.first_index, max(change.index, change.last_index) + LENGTH) for change in changes]
    return tuple(each for each in found if not any(a <= each.end_index - 1 <= b for a, b in began))


def _anomaly(
    values: Vector, times: Vector, index: int, score: float, kind: AnomalyKind, expected: Interval
) -> Anomaly:
    """As the findings have it."""
    value = float(values[index])
    if kind is AnomalyKind.POINT:
        end = index + 1
        while end < len(values) and end < index + LENGTH and _is_like(float(values[end]), value, expected):
            end += 1
        return Anomaly(index, end, float(times[index]), kind, score, value, expected)
    start = max(0, index + 1 - LENGTH)
    return Anomaly(start, index + 1, float(times[start]), kind, score, value, expected)


def _is_like(value: float, first: float, expected: Interval) -> bool:
    """Whether a value is out on the same side, and nearer to the first than to what was expected."""
    middle = (expected.low + expected.high) / 2
    return abs(value - first) < abs(value - middle)
