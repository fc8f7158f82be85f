"""Changes of many series that are one thing: the same revision changed them, or cost moved between them.

Series that are measured at different revisions know the place of a change only to within an interval.
Changes of one direction whose intervals have a revision in common are taken for one, with as few groups as
explain all of them (points that stab intervals; Hochbaum and Maass 1985: from the left, at each end).
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dtf.core.trend.findings import ChangeKind, ChangePoint, Impact, Interval

LEAST_MOVED_RATIO = 0.5
"""Of two sides, the smaller must make up for so much of the larger one: less is not moved but saved or lost."""


@dataclass(frozen=True, slots=True)
class SeriesChange:
    """A change point of one series, placed in an order of revisions that all series share."""

    series: str
    change: ChangePoint
    first_position: int
    """Positions of the revisions that may have done it, first … last, both included."""
    last_position: int
    whole: str = ""
    """What its value is a part of, if parts add up: the same metric of the suite, in the same unit; "" if nothing."""


@dataclass(frozen=True, slots=True)
class SharedChange:
    """Changes that one revision explains."""

    first_position: int
    """The revisions that may have done all of them, first … last, both included."""
    last_position: int
    impact: Impact
    changes: tuple[SeriesChange, ...]
    """By confidence, the surest first, then by the size of the relative effect."""

    @property
    def is_shared(self) -> bool:
        """More than one series changed."""
        return len(self.changes) > 1


@dataclass(frozen=True, slots=True)
class MovedCost:
    """What some series of a whole lost others got, and the whole stayed the same within its interval."""

    whole: str
    first_position: int
    last_position: int
    sources: tuple[SeriesChange, ...]
    """Went down, the largest first."""
    targets: tuple[SeriesChange, ...]
    """Went up, the largest first."""
    moved: float
    """The smaller of both sums, in the series' unit."""
    rest: Interval
    """95 % interval of what the whole changed by; 0 lies in it."""


def group_changes(changes: Iterable[SeriesChange]) -> tuple[SharedChange, ...]:
    """Every change in one group, the groups in order of their place. The order of the input does not matter."""
    directions: defaultdict[tuple[bool, Impact, bool], list[SeriesChange]] = defaultdict(list)
    for each in changes:
        directions[_direction(each.change)].append(each)
    groups = [
        SharedChange(first, last, members[0].change.impact, tuple(sorted(members, key=_by_weight)))
        for alike in directions.values()
        for first, last, members in _stabbed(alike)
    ]
    return tuple(sorted(groups, key=lambda group: (group.first_position, group.last_position, group.impact)))


def find_moved_costs(
    changes: Sequence[SeriesChange], whole_changes: Iterable[SeriesChange] = ()
) -> tuple[MovedCost, ...]:
    """Where cases of one whole went up and down at one revision and the whole did not change.

    `whole_changes` are the change points of the wholes themselves, their `series` being the parts' `whole`:
    a whole that changed there had no cost moved but saved or lost.
    """
    parts: defaultdict[str, list[SeriesChange]] = defaultdict(list)
    for each in changes:
        if each.whole and each.change.kind is not ChangeKind.VARIANCE:
            parts[each.whole].append(each)
    changed: defaultdict[str, list[SeriesChange]] = defaultdict(list)
    for each in whole_changes:
        changed[each.series].append(each)
    found = []
    for whole in sorted(parts):
        for first, last, members in _stabbed(parts[whole]):
            moved = _moved(whole, first, last, members)
            if moved and not any(
                each.first_position <= last and first <= each.last_position for each in changed[whole]
            ):
                found.append(moved)
    return tuple(found)


def _direction(change: ChangePoint) -> tuple[bool, Impact, bool]:
    """Changes of one direction are equal in this. The better direction of metrics may differ, so impact counts
    where it is known, else the sign."""
    is_variance = change.kind is ChangeKind.VARIANCE
    return is_variance, change.impact, change.impact is Impact.CHANGE and change.effect.absolute > 0


def _by_weight(each: SeriesChange) -> tuple[float, float, str, int]:
    relative = each.change.effect.relative
    return (
        -each.change.confidence,
        -abs(relative) if math.isfinite(relative) else 0.0,
        each.series,
        each.change.index,
    )


def _stabbed(changes: Sequence[SeriesChange]) -> Iterator[tuple[int, int, list[SeriesChange]]]:
    """As few groups as there can be, each with the positions that its intervals have in common."""
    points: list[int] = []
    groups: list[list[SeriesChange]] = []
    for each in sorted(changes, key=lambda each: (each.last_position, each.first_position, each.series)):
        place = bisect_left(points, each.first_position)  # the first point in its interval
        if place == len(points):
            points.append(each.last_position)
            groups.append([])
        groups[place].append(each)
    for point, members in zip(points, groups, strict=True):
        yield max(each.first_position for each in members), point, members


def _moved(whole: str, first: int, last: int, members: list[SeriesChange]) -> MovedCost | None:
    """The moved cost, if the ups and the downs make up for each other."""
    by_size = sorted(members, key=lambda each: (-abs(each.change.effect.absolute), each.series))
    sources = tuple(each for each in by_size if each.change.effect.absolute < 0)
    targets = tuple(each for each in by_size if each.change.effect.absolute > 0)
    lost = -sum(each.change.effect.absolute for each in sources)
    got = sum(each.change.effect.absolute for each in targets)
    if min(lost, got) <= LEAST_MOVED_RATIO * max(lost, got):
        return None
    widths = [(each.change.effect.interval.high - each.change.effect.interval.low) / 2 for each in members]
    reach = math.sqrt(sum(width * width for width in widths))  # of independent errors
    rest = Interval(got - lost - reach, got - lost + reach)
    if not rest.low <= 0.0 <= rest.high:
        return None
    return MovedCost(whole, first, last, sources, targets, min(lost, got), rest)
