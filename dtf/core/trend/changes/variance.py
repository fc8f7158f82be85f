"""Where the spread of the noise changes and the level does not.

What a partition leaves is freed of its memory, and the quasi-likelihood of two spreads stands beside that of one: twice
the Gaussian log likelihood ratio, over half of what the fourth moment says a square varies by, and over the memory of
the squares, so that heavy tails and bursts are no changes. Squares are those of values without spikes.
"""

import math
from dataclasses import dataclass

import numpy as np

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.evidence import LOCATION_DROP, confidence_of
from dtf.core.trend.changes.noise import Noise, robust_scale
from dtf.core.trend.compiled import loaded_kernels

LEAST_VALUES = 12
"""Values of either spread at least."""
LEAST_RATIO = 1.5
"""Quotient of two spreads below which a change of it matters to nobody."""
SURE_OF_SPREAD = 0.99999
"""Confidence at least, whenever it is told: nobody waits for a spread as for a level."""
MOST_REMEMBERED = 0.8
"""Autocorrelation beyond which what is left is a walk, or a bend that no line follows, rather than noise."""
APART = 10
"""Values from a change of level within which a change of spread is the same change."""
ROUNDING = 1e-6
"""By what a bound may be wrong."""
MOST = 4
"""Changes of spread in a window at most."""
NEWEST = 16
"""Newest values that say whether the noise is wider than it was."""
WIDER = 1.6
"""Quotient of their spread and the regime's from which on it is."""
WIDER_WITHIN = 1.8
"""The same for the values of an alarm, which may be few."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A change of spread; places count the window's values."""

    place: int
    first: int
    last: int
    """The location interval."""
    confidence: float
    before: float
    after: float
    """Standard deviations of a value, in units of the window's scale."""
    deviation_before: float
    deviation_after: float
    """Standard errors of these."""
    behind: int
    """Values that have the new spread."""


def spreads_of(residuals: Vector, inner: list[int], noise: Noise, least: float) -> list[Spread]:
    """The changes of spread in what a partition leaves, in order; `inner` are its own changes, `least` the variance of rounding."""
    memory = noise.memory
    if memory > MOST_REMEMBERED:
        return []
    innovations = residuals.copy()
    innovations[1:] -= memory * residuals[:-1]
    for cut in inner:
        innovations[cut] = residuals[cut] * math.sqrt(max(1.0 - memory * memory, 0.0))
    squares: Vector = np.maximum(innovations * innovations, max(least, 1e-300))
    found: list[int] = []
    _split(squares, 0, len(squares), found)
    places = sorted(found)
    edges = [0, *places, len(squares)]
    gain = 1.0 / math.sqrt(max(1.0 - memory * memory, 1e-3))
    return [
        spread
        for start, place, end in zip(edges, edges[1:], edges[2:], strict=False)
        if (spread := _weighed(squares, start, place, end, gain)) is not None
    ]


def apart(spreads: list[Spread], inner: list[int]) -> list[Spread]:
    """Those that are not a change of level as well."""
    return [spread for spread in spreads if all(abs(spread.place - cut) > APART for cut in inner)]


def _split(squares: Vector, start: int, end: int, found: list[int]) -> None:
    """The best place of a stretch, and of what is on its either side, while it is sure."""
    if end - start < 2 * LEAST_VALUES or len(found) >= MOST:
        return
    compiled = loaded_kernels()
    if compiled is not None:
        bound = compiled.spread_bound(squares[start:end], LEAST_VALUES)
        if confidence_of(bound * (1.0 + ROUNDING) + ROUNDING, end - start) < SURE_OF_SPREAD:
            return
    profile = _profile(squares[start:end])
    best = int(profile.argmax())
    place = start + LEAST_VALUES + best
    before, after = squares[start:place], squares[place:end]
    gain = float(profile[best]) / _doubt(before, after)
    ratio = math.sqrt(max(float(after.mean()), 1e-300) / max(float(before.mean()), 1e-300))
    if confidence_of(max(gain, 0.0), end - start) < SURE_OF_SPREAD or 1 / LEAST_RATIO < ratio < LEAST_RATIO:
        return
    found.append(place)
    _split(squares, start, place, found)
    _split(squares, place, end, found)


def _profile(squares: Vector) -> Vector:
    """Twice the log likelihood ratio of two spreads and one, cut at LEAST_VALUES … n - LEAST_VALUES."""
    count = len(squares)
    total = squares.cumsum()
    floor = max(float(total[-1]) / count * 1e-6, 1e-300)
    cut = np.arange(LEAST_VALUES, count - LEAST_VALUES + 1)
    left = np.maximum(total[cut - 1] / cut, floor)
    right = np.maximum((total[-1] - total[cut - 1]) / (count - cut), floor)
    whole = max(float(total[-1]) / count, floor)
    profile: Vector = count * math.log(whole) - cut * np.log(left) - (count - cut) * np.log(right)
    return profile


def _doubt(before: Vector, after: Vector) -> float:
    """By what squares vary more than a normal law's, and go together; 1 or more."""
    parts = [part / max(float(part.mean()), 1e-300) - 1.0 for part in (before, after)]
    every = np.concatenate(parts)
    size = float(every @ every)
    along = sum(float(part[1:] @ part[:-1]) for part in parts)
    memory = min(max(along / size if size > 0.0 else 0.0, 0.0), 0.9)
    return max(size / len(every) / 2.0, 1.0) * (1.0 + memory) / (1.0 - memory)


def _weighed(squares: Vector, start: int, place: int, end: int, gain: float) -> Spread | None:
    before, after = squares[start:place], squares[place:end]
    if min(len(before), len(after)) < LEAST_VALUES:
        return None
    doubt = _doubt(before, after)
    profile = _profile(squares[start:end]) / doubt
    best = float(profile[place - start - LEAST_VALUES])
    near = np.flatnonzero(profile >= best - LOCATION_DROP) + start + LEAST_VALUES
    one, other = math.sqrt(float(before.mean())), math.sqrt(float(after.mean()))
    confidence = confidence_of(max(best, 0.0), end - start)
    if confidence < SURE_OF_SPREAD or max(one, other) < LEAST_RATIO * min(one, other):
        return None
    return Spread(
        place=place,
        first=int(min(near.min(), place)),
        last=int(max(near.max(), place)),
        confidence=confidence,
        before=one * gain,
        after=other * gain,
        deviation_before=one * gain * math.sqrt(doubt / (2.0 * len(before))),
        deviation_after=other * gain * math.sqrt(doubt / (2.0 * len(after))),
        behind=len(after),
    )


def widening(values: Vector, count: int, memory: float, sigma: float) -> float:
    """By how much values spread more than `sigma` says; 1 where not by much.

    Told from neighbours' differences, on which a level has no say: among the newest `count`, which may be a new level's,
    and among the NEWEST.
    """
    unit = sigma * math.sqrt(2.0 * (1.0 - memory))
    within, newest = values[len(values) - count :], values[-NEWEST:]
    differences = within[1:] - within[:-1]
    widest = math.sqrt(float(differences @ differences) / len(differences)) / unit if count >= 3 else 1.0
    if widest < WIDER_WITHIN:
        widest = 1.0
    if len(newest) >= NEWEST:
        spread = robust_scale(newest[1:] - newest[:-1]) / unit
        widest = max(widest, spread if spread > WIDER else 1.0)
    return widest
