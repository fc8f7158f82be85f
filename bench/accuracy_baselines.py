"""Published detectors of anomalies, as baselines; each takes a file as NAB gives it, the range of its values told.

What they score on the real files is published (README of the Numenta Anomaly Benchmark, standard profile, with the one
threshold that suits all files best). Written anew from their descriptions, with the constants of those scores.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from bench.accuracy_folders import LabelledSeries
from bench.accuracy_scores import Floats, probation


def windowed_gaussian(series: LabelledSeries, window: int = 6400, step: int = 150) -> Floats:
    """One less the tail of the normal law of the newest values; a full window moves on by `step`. Shape (n,)."""
    values = series.values
    count = len(values)
    sums = np.concatenate([[0.0], np.cumsum(values - values[0])])
    squares = np.concatenate([[0.0], np.cumsum((values - values[0]) ** 2)])
    at = np.arange(1, count)
    ends = np.where(at < window, at, window + (at - window) // step * step)
    starts = np.maximum(0, ends - window)
    sizes = ends - starts
    means = (sums[ends] - sums[starts]) / sizes
    spreads = np.sqrt(np.maximum((squares[ends] - squares[starts]) / sizes - means**2, 0.0))
    spreads[spreads <= 1e-9 * np.abs(values).max()] = 1e-6
    distances = np.abs(values[1:] - values[0] - means) / spreads
    tails = np.asarray([0.5 * math.erfc(each / math.sqrt(2)) for each in distances.tolist()])
    return np.concatenate([[0.0], 1.0 - tails])


def relative_entropy(
    series: LabelledSeries, window: int = 52, bins: int = 5, limit: float = 13.2767
) -> Floats:
    """1 where the newest `window` values, in `bins` heights, resemble no such window before. Shape (n,).

    Wang et al., Statistical Techniques for Online Anomaly Detection in Data Centers, 2011; `limit` is the 99 %
    quantile of chi squared with four degrees of freedom.
    """
    values, scores = series.values, np.zeros(len(series.values))
    low, high = float(values.min()), float(values.max())
    if high == low:
        return scores
    heights = np.minimum(np.ceil((values - low) / ((high - low) / bins)), bins - 1).astype(np.int64)
    counts = np.zeros((len(values) + 1, bins), dtype=np.int64)
    counts[1:] = np.cumsum(heights[:, None] == np.arange(bins), axis=0)
    known: list[Floats] = []
    accepted: set[tuple[int, ...]] = set()
    for end in range(window, len(values) + 1):
        seen = tuple((counts[end] - counts[end - window]).tolist())
        if seen in accepted:
            continue
        shares = np.asarray(seen) / window
        if known and _nearest_entropy(shares, np.asarray(known)) * 2 * window >= limit:
            scores[end - 1] = 1.0
        if scores[end - 1] or not known:
            known.append(shares)
        accepted.add(seen)
    return scores


def _nearest_entropy(shares: Floats, known: Floats) -> float:
    """Least relative entropy of `shares` to any of `known`, shape (k, bins)."""
    mine = shares[shares > 0]
    theirs = known[:, shares > 0]
    possible = theirs[(theirs > 0).all(axis=1)]
    return float(np.sum(mine * np.log(mine / possible), axis=1).min()) if len(possible) else math.inf


def knn_cad(series: LabelledSeries, dim: int = 19, neighbours: int = 27, alarm: float = 0.9965) -> Floats:
    """Share of the newest contexts that were nearer to their neighbours; rests after an alarm. Shape (n,).

    Burnaev and Ishimtsev, Conformalized density- and distance-based anomaly detection, 2016 (arXiv 1608.04585).
    """
    values, scores = series.values, np.zeros(len(series.values))
    learns = probation(len(values))
    contexts = np.lib.stride_tricks.sliding_window_view(values, dim)
    first = learns - dim  # the context that ends at position learns - 1
    if first <= neighbours:
        return scores
    rotated, squares = contexts, np.sum(contexts**2, axis=1)
    past = np.empty(0)
    rest = 0
    for at in range(learns - 1, len(values)):
        number = at - dim + 1
        oldest = max(0, number - first - learns)
        training = slice(oldest, oldest + first)
        if (at + 1) % learns in (0, learns // 2):
            rows = contexts[training]
            try:
                rotated = contexts @ np.linalg.cholesky(np.linalg.inv(rows.T @ rows))
                squares = np.sum(rotated**2, axis=1)
            except np.linalg.LinAlgError:
                pass  # these rows span too little: distances stay as they were
        near = partial(_nearest, rotated[training], squares[training])
        if not len(past):
            past = np.asarray([near(each, neighbours + 1) for each in rotated[training]])
        new = near(rotated[number], neighbours)
        scores[at] = 0.5 if rest else np.count_nonzero(past < new) / len(past)
        past[(number - first) % len(past)] = new
        rest = rest - 1 if rest else (learns // 5 if scores[at] >= alarm else 0)
    return scores


def _nearest(rows: Floats, squares: Floats, row: Floats, count: int) -> float:
    """Sum of the squared distances of `row` to the nearest so many of `rows`, whose squares are known."""
    distances = squares - 2.0 * (rows @ row)
    return float(np.partition(distances, count - 1)[:count].sum() + count * (row @ row))


BASELINES: dict[str, tuple[Callable[[LabelledSeries], Floats], float]] = {
    "windowed Gaussian": (windowed_gaussian, 39.6),
    "relative entropy": (relative_entropy, 54.6),
    "KNN-CAD": (knn_cad, 58.0),
}
"""Each with the score that is published for it, on the real files."""
