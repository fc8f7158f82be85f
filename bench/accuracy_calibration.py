"""How often the anomaly score says 1 - p or more on data without anomalies."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from bench.accuracy_environment import say
from bench.accuracy_families import FAMILIES, noise
from dtf.core.trend.anomalies import AnomalyDetector

SHARES = (0.1, 0.05, 0.01, 0.001)
LENGTHS = (200, 1000, 5000)
TOLERANCE = 1.0
"""A share may not exceed p times this, sampling error (two standard errors of points, as if independent) aside."""


def scores_of(family: str, length: int, number: int) -> list[int]:
    """How many points of a series have a score of 1 - p or more, for each p."""
    detector = AnomalyDetector()
    scores = np.asarray(
        [
            detector.update(float(at), value)
            for at, value in enumerate(noise(family, length, 5000 + number).tolist())
        ]
    )
    return [int(np.sum(scores >= 1.0 - share)) for share in SHARES]


def measure_calibration(points: int, pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """One row a family and length: the share of points with such scores, of about `points` points."""
    rows = []
    for length in LENGTHS:
        for family in FAMILIES:
            total = max(4, points // length)
            say(f"anomaly scores: {total} series of {length:,} points, {family}")
            counts = np.asarray(list(pool.map(scores_of, [family] * total, [length] * total, range(total))))
            rows.append(row_of(family, length, total * length, counts.sum(axis=0).tolist()))
    return rows


def row_of(family: str, length: int, points: int, counts: Sequence[int]) -> dict[str, Any]:
    """Shares by p, and whether each keeps its promise."""
    shares = {str(share): count / points for share, count in zip(SHARES, counts, strict=True)}
    kept = {
        str(share): count <= share * points * TOLERANCE + 2.0 * (share * (1 - share) * points) ** 0.5
        for share, count in zip(SHARES, counts, strict=True)
    }
    return {"family": family, "length": length, "points": points, "shares": shares, "kept": kept}
