"""What a boundary between two segments is: step or drift, how sure, where, and how large."""

import math
from dataclasses import dataclass

from dtf.core.trend.changes.arrays import Vector
from dtf.core.trend.changes.noise import Noise, middle_of
from dtf.core.trend.changes.search import profile
from dtf.core.trend.changes.segments import Line, Sums
from dtf.core.trend.findings import ChangeKind

LOCATION_DROP = 7.4
"""Twice the log likelihood by which a place may be worse and still belong to the 95 % location interval:
the law of the argument of the maximum of two-sided Brownian motion with drift (Siegmund, Annals of
Statistics 16, 1988): 1 - (1 - exp(-x / 2))^2 = .05."""
LAST = 5
"""Last values of a segment whose median says whether the change lasts."""
NORMAL_95 = 1.959964
SELECTED = 0.5
"""Share by which errors are wider for a change that just paid its price; by simulation (docs/statistics.md)."""
PLACED = 1.05
"""The same for a place that was searched with the same values."""
CHANGE_OVER_SLOPE = 1.5
"""Price of a change over that of a slope."""
LEAST_JUMP = 2.5
"""Standard errors that a jump has at least to be one where slopes differ too."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A change in a window; places count finite values from the window's start, levels are in units of the window's scale."""

    place: int
    start: int
    end: int
    """The two segments are [start, place) and [place, end)."""
    kind: ChangeKind
    gain: float
    """What cutting here saves, in long-run variances: twice the log likelihood ratio."""
    confidence: float
    first: int
    last: int
    level_before: float
    level_after: float
    deviation_before: float
    deviation_after: float
    """Standard errors of the two levels."""
    is_lasting: bool
    """Whether the last values of the segment are still nearer to the level that it began with than to the one before."""


def weigh(
    sums: Sums, values: Vector, edges: tuple[int, int, int], noise: Noise, slope_cost: float
) -> Boundary:
    """The boundary at the middle of three edges, weighed against no change between the outer two."""
    start, place, end = edges
    unit = noise.long_run_variance
    costs = profile(sums, start, end, slope_cost)
    level, line = sums.cost(start, end)
    whole = min(level, line + slope_cost)
    gain = max((whole - float(costs[place - start - 1])) / unit, 0.0)
    near = ((costs <= costs[place - start - 1] + LOCATION_DROP * unit).nonzero()[0] + start + 1).tolist()
    best = near.index(place)
    kind, before, after = _kind(sums, edges, unit)
    doubt = _doubt_of(gain, slope_cost / unit, end - start, noise.memory)
    far = end - 1.0 if kind is ChangeKind.DRIFT else place - 0.5
    old = place - 0.5
    return Boundary(
        place=place,
        start=start,
        end=end,
        kind=kind,
        gain=gain,
        confidence=confidence_of(gain, end - start),
        first=_reach(near, best, -1),
        last=_reach(near, best, 1),
        level_before=before.at(old),
        level_after=after.at(far),
        deviation_before=doubt * math.sqrt(before.variance_at(old) * unit),
        deviation_after=doubt * math.sqrt(after.variance_at(far) * unit),
        is_lasting=kind is ChangeKind.DRIFT or _is_lasting(values[place:end], before.at(old), after.at(old)),
    )


def _doubt_of(gain: float, price: float, count: int, memory: float) -> float:
    """By what the normal law's errors of an effect are widened: the noise is estimated, and who just passed the bar was lucky.

    Student's quantile for so many values as are worth something (Wallace, Annals of Mathematical Statistics 30, 1959),
    and SELECTED more at the price of a change, which falls with each standard error beyond.
    """
    known = max(count * (1.0 - memory) / (1.0 + memory), 4.0)
    square = NORMAL_95 * NORMAL_95
    student = math.sqrt(known * math.expm1(square / known) / square)
    beyond = math.sqrt(gain) - math.sqrt(CHANGE_OVER_SLOPE * price)
    return student * (PLACED + SELECTED * math.exp(-max(beyond, 0.0)))


def _is_lasting(values: Vector, old: float, new: float) -> bool:
    rise = new - old
    return (middle_of(values[-LAST:]) - old) * rise > 0.5 * rise * rise


def confidence_of(gain: float, length: int) -> float:
    """1 - the chance of so much gain at the best of the stretch's places where nothing changed."""
    return 1.0 - min(1.0, length * math.erfc(math.sqrt(gain / 2.0)))


def _reach(near: list[int], at: int, side: int) -> int:
    """How far the places that are nearly as good, of which the at-th is the best, go without a gap of more than two."""
    while 0 <= at + side < len(near) and abs(near[at + side] - near[at]) <= 3:
        at += side
    return near[at]


def _kind(sums: Sums, edges: tuple[int, int, int], unit: float) -> tuple[ChangeKind, Line, Line]:
    """Step or drift, by the Bayesian information criterion (Schwarz 1978), and the lines on either side.

    The models: two levels; two levels on one slope; two slopes that meet; two lines. Two lines are a step
    where the jump stands out of its own error and of what the slopes do over the shorter side.
    """
    start, place, end = edges
    left, right = sums.line(start, place), sums.line(place, end)
    costs = _model_costs(sums, edges)
    price = unit * math.log(end - start)
    levels, sloped, hinge, lines = (
        cost + count * price for cost, count in zip(costs, (2, 3, 3, 4), strict=True)
    )
    best = min(levels, sloped, hinge, lines)
    if best == levels:
        return ChangeKind.STEP, left.flat(), right.flat()
    if best == sloped:
        return ChangeKind.STEP, left, right
    if best == hinge:
        return ChangeKind.DRIFT, left, right
    edge = place - 0.5
    jump = abs(right.at(edge) - left.at(edge))
    error = math.sqrt((left.variance_at(edge) + right.variance_at(edge)) * unit)
    reach = min(place - start, end - place)
    turn = abs(right.slope - left.slope) * reach
    is_step = jump > LEAST_JUMP * error and jump > 0.5 * turn
    return (ChangeKind.STEP if is_step else ChangeKind.DRIFT), left, right


def _model_costs(sums: Sums, edges: tuple[int, int, int]) -> tuple[float, float, float, float]:
    """Costs of two levels, two levels on one slope, two slopes that meet, and two lines."""
    start, place, end = edges
    left, right = sums.cost(start, place), sums.cost(place, end)
    line = sums.cost(start, end)[1]
    edge = (place - 0.5) / sums.stretch
    w, x, xx, y, xy, _ = sums.between(start, end)
    whole = (w, x - edge * w, xx - 2.0 * edge * x + edge * edge * w, y, xy - edge * y)
    w, x, xx, y, xy, _ = sums.between(place, end)
    part = (w, x - edge * w, xx - 2.0 * edge * x + edge * edge * w, y, xy - edge * y)
    sloped = line - _saved(whole, part[0], part[1], part[0], part[3])
    hinge = line - _saved(whole, part[1], part[2], part[2], part[4])
    return left[0] + right[0], max(sloped, 0.0), max(hinge, 0.0), left[1] + right[1]


def _saved(
    whole: tuple[float, float, float, float, float], level: float, tilt: float, size: float, value: float
) -> float:
    """What one more column saves beside a level and a slope: its weighted products with 1, x, itself and the values."""
    w, x, xx, y, xy = whole
    spread = xx - x * x / w
    across = tilt - x * level / w
    along = xy - x * y / w
    own = size - level * level / w - across * across / spread
    gain = value - level * y / w - across * along / spread
    return gain * gain / own if own > 1e-12 * size else 0.0
