"""What a look at the window leaves standing of what was known before, and what is news."""

from dataclasses import dataclass

from dtf.core.trend.changes.findings import SETTLED_AFTER, change_points_of, is_same, matched
from dtf.core.trend.changes.look import Look, Season
from dtf.core.trend.changes.regime import REACH
from dtf.core.trend.changes.window import Window
from dtf.core.trend.findings import ChangeKind, ChangePoint

FEW = 32
"""Values below which more is asked of a change where no look is due."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a change that nothing has told before needs for a look to tell it."""

    behind: int
    """Values from it on: one with fewer is an alarm's matter."""
    confidence: float
    confidence_of_spread: float
    confidence_of_few: float
    """Where a window has less than FEW values: part of a wave looks like a step as well."""


SCHEDULED = Bar(SETTLED_AFTER, 0.0, 0.0, 0.0)
"""At a look of the schedule: partitions and spreads have bars of their own."""
AT_ANY_TIME = Bar(SETTLED_AFTER, 1.0 - 1e-6, 1.0 - 1e-7, 1.0 - 1e-10)
"""At the newest value, where no look is due: someone may ask after each value, and each answer may be wrong."""


@dataclass(frozen=True, slots=True)
class Known:
    """What was known before a look."""

    standing: list[ChangePoint]
    """Those of the window, by index."""
    alarm: ChangePoint | None
    is_pending: bool
    """Whether values to come may yet bear the alarm out."""
    frozen_before: int
    """Position before which nothing is told any more."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look leaves."""

    standing: list[ChangePoint]
    alarm: ChangePoint | None
    """Still pending."""
    news: list[ChangePoint]
    season: Season | None

    @property
    def alive(self) -> list[ChangePoint]:
        """What stands and what is pending, by index."""
        return _by_index([*self.standing, *([self.alarm] if self.alarm else [])])


def outcome_of(look: Look, window: Window, known: Known, bar: Bar, lower_is_better: bool | None) -> Outcome:
    """What stands now that the window looks like this."""
    before = [*known.standing, *([known.alarm] if known.alarm else [])]
    found = [
        change
        for change in change_points_of(look, window, lower_is_better)
        if change.index >= known.frozen_before and _is_told(change, before, window, bar)
    ]
    old, alarm = list(known.standing), known.alarm
    if alarm is not None and (any(_is_told_by(each, alarm) for each in found) or not known.is_pending):
        old, alarm = _by_index([*old, alarm]), None
    standing, news = matched(old, found)
    return Outcome(standing, alarm, news, look.season)


def _is_told(change: ChangePoint, before: list[ChangePoint], window: Window, bar: Bar) -> bool:
    """Whether a look may tell this change."""
    if any(is_same(each, change) for each in before):
        return True
    is_spread = change.kind is ChangeKind.VARIANCE
    least = bar.confidence_of_spread if is_spread else bar.confidence
    if window.length < FEW:
        least = max(least, bar.confidence_of_few)
    return window.count_from(change.index) >= bar.behind and change.confidence >= least


def _is_told_by(change: ChangePoint, alarm: ChangePoint) -> bool:
    """Whether a look's change is what the alarm was about: the same step, or a wider noise that began there."""
    if change.kind is ChangeKind.VARIANCE:
        return (
            change.first_index <= alarm.last_index + REACH and alarm.first_index - REACH <= change.last_index
        )
    return is_same(alarm, change)


def _by_index(changes: list[ChangePoint]) -> list[ChangePoint]:
    return sorted(changes, key=lambda change: change.index)
