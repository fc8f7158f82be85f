"""From boundaries of a window to change points, and from one look's change points to the next one's."""

import math
from dataclasses import replace

import numpy as np

from dtf.core.trend.changes.evidence import Boundary
from dtf.core.trend.changes.look import Look
from dtf.core.trend.changes.variance import Spread
from dtf.core.trend.changes.window import Window
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState, Effect, Impact, Interval

TWO_SIDED_95 = 1.959964
SETTLED_AFTER = 10
"""Finite values behind a change from which on it is confirmed: an outlier of that length is a regime."""
SPREAD_SETTLED_AFTER = 20
"""The same for a change of spread."""
SURE = 0.99
"""Confidence from which on it is."""
SAME_WITHIN = 5
"""Positions within which two looks' change points are the same change."""


def change_points_of(look: Look, window: Window, lower_is_better: bool | None) -> list[ChangePoint]:
    """The look's boundaries, and its changes of the spread, as change points of the series."""
    levels = [_change_point(each, look, window, lower_is_better) for each in look.boundaries]
    spreads = [_change_of_spread(each, look, window) for each in look.spreads]
    return sorted([*levels, *spreads], key=lambda change: change.index)


def settled_after(kind: ChangeKind) -> int:
    """Finite values behind a change from which on it can be confirmed."""
    return SPREAD_SETTLED_AFTER if kind is ChangeKind.VARIANCE else SETTLED_AFTER


def _change_of_spread(spread: Spread, look: Look, window: Window) -> ChangePoint:
    """Levels and effect are the spread's: a standard deviation; for values in logarithms as a share of the level, times it."""
    unit = look.scale.unit
    if look.scale.is_logarithmic:
        unit *= abs(float(np.median(window.values[spread.place :])))
    before, after = unit * spread.before, unit * spread.after
    deviation_before, deviation_after = unit * spread.deviation_before, unit * spread.deviation_after
    is_settled = spread.behind >= settled_after(ChangeKind.VARIANCE)
    return ChangePoint(
        index=int(window.positions[spread.place]),
        time=float(window.times[spread.place]),
        kind=ChangeKind.VARIANCE,
        state=ChangeState.CONFIRMED if is_settled else ChangeState.PROVISIONAL,
        confidence=spread.confidence,
        effect=effect_of(before, after, math.hypot(deviation_before, deviation_after), deviation_before),
        first_index=int(window.positions[spread.first]),
        last_index=int(window.positions[min(spread.last, window.length - 1)]),
        level_before=before,
        level_after=after,
        impact=Impact.CHANGE,
    )


def _change_point(
    boundary: Boundary, look: Look, window: Window, lower_is_better: bool | None
) -> ChangePoint:
    positions = window.positions
    scale = look.scale
    before, after = scale.value(boundary.level_before), scale.value(boundary.level_after)
    deviation_before = scale.deviation(boundary.level_before, boundary.deviation_before)
    deviation_after = scale.deviation(boundary.level_after, boundary.deviation_after)
    effect = effect_of(before, after, math.hypot(deviation_before, deviation_after), deviation_before)
    is_settled = boundary.end - boundary.place >= SETTLED_AFTER and boundary.confidence >= SURE
    is_settled = is_settled and (boundary.is_lasting or boundary.end < window.length)
    return ChangePoint(
        index=int(positions[boundary.place]),
        time=float(window.times[boundary.place]),
        kind=boundary.kind,
        state=ChangeState.CONFIRMED if is_settled else ChangeState.PROVISIONAL,
        confidence=boundary.confidence,
        effect=effect,
        first_index=int(positions[boundary.first]),
        last_index=int(positions[boundary.last]),
        level_before=before,
        level_after=after,
        impact=impact_of(boundary.kind, after - before, lower_is_better),
    )


def effect_of(before: float, after: float, deviation: float, deviation_before: float) -> Effect:
    """Effect with 95 % intervals; the relative one by the delta method."""
    absolute = after - before
    size = abs(before)
    relative = absolute / size if size > 0.0 else math.nan
    spread = math.hypot(deviation, relative * deviation_before) / size if size > 0.0 else math.nan
    return Effect(
        absolute=absolute,
        relative=relative,
        interval=Interval(absolute - TWO_SIDED_95 * deviation, absolute + TWO_SIDED_95 * deviation),
        relative_interval=Interval(relative - TWO_SIDED_95 * spread, relative + TWO_SIDED_95 * spread),
    )


def impact_of(kind: ChangeKind, absolute: float, lower_is_better: bool | None) -> Impact:
    """What the change means."""
    if lower_is_better is None or kind is ChangeKind.VARIANCE or absolute == 0.0:
        return Impact.CHANGE
    return Impact.REGRESSION if (absolute > 0.0) is lower_is_better else Impact.IMPROVEMENT


def is_same(one: ChangePoint, other: ChangePoint) -> bool:
    """Whether two looks speak of one change: places near each other or within the other's interval, of the level or of the spread."""
    if (one.kind is ChangeKind.VARIANCE) is not (other.kind is ChangeKind.VARIANCE):
        return False
    if abs(one.index - other.index) <= SAME_WITHIN:
        return True
    return (
        one.first_index <= other.index <= one.last_index
        and other.first_index <= one.index <= other.last_index
    )


def matched(old: list[ChangePoint], new: list[ChangePoint]) -> tuple[list[ChangePoint], list[ChangePoint]]:
    """What stands after a look that found `new`, and the news: what has come, is gone, or changed in state, kind or place.

    A change that was confirmed stays so for as long as looks find it.
    """
    rest = list(new)
    standing: list[ChangePoint] = []
    news: list[ChangePoint] = []
    for each in old:
        same = min(
            (one for one in rest if is_same(each, one)),
            key=lambda one: abs(one.index - each.index),
            default=None,
        )
        if same is None:
            news.append(replace(each, state=ChangeState.WENT_AWAY))
            continue
        rest.remove(same)
        if each.state is ChangeState.CONFIRMED:
            same = replace(same, state=ChangeState.CONFIRMED)
        standing.append(same)
        if (each.index, each.state, each.kind) != (same.index, same.state, same.kind):
            news.append(same)
    return sorted([*standing, *rest], key=lambda change: change.index), [*news, *rest]
