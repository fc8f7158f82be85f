"""How a series differs between two revisions: by the changes found between them, not by two values.

Two values of a noisy series always differ. A change point says that the difference is more than
noise; where none lies between the two revisions, the series is said to be unchanged.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from dtf.core.trend.finding_track import Tracked
from dtf.core.trend.findings import ChangeKind, Impact
from dtf.core.trend.series import Series


@dataclass(frozen=True, slots=True)
class Difference:
    """A series at two revisions."""

    series: Series
    base_values: tuple[float, ...]
    head_values: tuple[float, ...]
    changes: tuple[Tracked, ...] = ()
    absolute: float = 0.0
    relative: float = 0.0
    relative_low: float = 0.0
    relative_high: float = 0.0
    point_count: int = 0
    """Points of the series up to the head."""

    @property
    def impact(self) -> Impact | None:
        """What the changes add up to; None: there are none."""
        if not self.changes:
            return None
        direction = self.series.is_lower_better
        if direction is None or not self.absolute:
            return Impact.CHANGE
        return Impact.REGRESSION if (self.absolute > 0) == direction else Impact.IMPROVEMENT


def revisions_of(series: Iterable[Series]) -> dict[str, int]:
    """Every revision in these series with the time of its newest point, the oldest first."""
    newest: dict[str, int] = {}
    for each in series:
        for position in each.positions:
            if position.revision:
                newest[position.revision] = max(position.time_ns, newest.get(position.revision, 0))
    return dict(sorted(newest.items(), key=lambda item: item[1]))


def compare_since(series: Series, since_ns: int, is_raised: Callable[[Tracked], bool]) -> Difference | None:
    """The series' newest point beside its newest before an instant, or its first; None: it has no points."""
    if not series.positions:
        return None
    first = series.count - len(series.positions)
    earlier = sum(position.time_ns < since_ns for position in series.positions)
    base = max(earlier - 1, 0)
    between = [
        tracked for tracked in series.standing if tracked.change.index > first + base and is_raised(tracked)
    ]
    values = (series.positions[base].value,), (series.positions[-1].value,)
    return _summed(series, *values, between, series.count)


def compare_series(
    series: Series, base: str, head: str, is_raised: Callable[[Tracked], bool]
) -> Difference | None:
    """The series at two revisions; None: it has a point at neither."""
    first = series.count - len(series.positions)
    at_base = [first + place for place, each in enumerate(series.positions) if each.revision == base]
    at_head = [first + place for place, each in enumerate(series.positions) if each.revision == head]
    if not at_base and not at_head:
        return None
    base_values = tuple(series.positions[index - first].value for index in at_base)
    head_values = tuple(series.positions[index - first].value for index in at_head)
    if not at_base or not at_head:
        return Difference(series, base_values, head_values)
    between = [
        tracked
        for tracked in series.standing
        if at_base[-1] < tracked.change.index <= at_head[-1] and is_raised(tracked)
    ]
    return _summed(series, base_values, head_values, between, at_head[-1] + 1)


def _summed(
    series: Series,
    base_values: tuple[float, ...],
    head_values: tuple[float, ...],
    changes: Sequence[Tracked],
    point_count: int,
) -> Difference:
    levels = [each.change for each in changes if each.change.kind is not ChangeKind.VARIANCE]
    absolute = sum(change.effect.absolute for change in levels)
    half = math.sqrt(
        sum(((change.effect.interval.high - change.effect.interval.low) / 2) ** 2 for change in levels)
    )
    before = abs(levels[0].level_before) if levels else abs(median(base_values))
    share = 1 / before if before else float("nan")
    return Difference(
        series,
        base_values,
        head_values,
        tuple(changes),
        absolute,
        absolute * share,
        (absolute - half) * share,
        (absolute + half) * share,
        point_count,
    )
