"""Change points of a series whose values arrive one by one; a batch is nothing but many of them at once.

    value ─▶ watch (each value, cheap): alarm ─▶ provisional change point
                                        suspicion ─▶ look
             look (at fixed positions, after alarms and suspicions): the window is partitioned anew;
                  provisional ─▶ confirmed | went away; new change points
             at WINDOW values: what lies before the window's older half is frozen and forgotten

When a look happens depends on the values alone, so that a thousand values appended at once and one by one
leave the same state. A block of values is watched at once up to the next look.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dtf.core.trend.changes.arrays import Places, Vector
from dtf.core.trend.changes.codec import (
    change_point_from_plain,
    change_point_to_plain,
    season_from_plain,
    season_to_plain,
    window_from_plain,
    window_to_plain,
)
from dtf.core.trend.changes.columns import columns_of
from dtf.core.trend.changes.evidence import confidence_of
from dtf.core.trend.changes.findings import effect_of, impact_of, settled_after
from dtf.core.trend.changes.look import Season, look_at, season_of
from dtf.core.trend.changes.outcome import AT_ANY_TIME, SCHEDULED, Bar, Known, Outcome, outcome_of
from dtf.core.trend.changes.regime import LEAST_REGIME, LONGEST_REGIME, REACH, Regime, regime_of
from dtf.core.trend.changes.variance import NEWEST, widening
from dtf.core.trend.changes.watch import Alarm, score_since, watch
from dtf.core.trend.changes.waves import is_wave
from dtf.core.trend.changes.window import Window
from dtf.core.trend.findings import ChangeKind, ChangePoint, ChangeState

WINDOW = 1024
"""Finite values that are looked at together at most; a look at so many costs milliseconds."""
LONGEST_WAVE = 128
"""Newest values of which an alarm may be a wave's rise: longer seasons are known by their cycles, or rise slowly."""
KNOWN_CYCLES = 10
"""Cycles in the window from which on a season is known well."""
WAVE_CYCLES = 3
"""Newest cycles of which an alarm may be what is left of a season that is not."""
CONTEXT = 64
"""Values kept before the newer half when the older is frozen, so that a change at its edge has a before."""
LOOKS_AT = (16, 32, 64, 128, 256, 512)
"""Numbers of finite values at which the window is looked at, whatever they say; later only when it is full."""
ALSO_LOOKS_AT = (20, 25, 38, 45, 54, 76, 90, 108, 152, 181, 215, 304, 362, 431)
"""Numbers at which it is looked at with the bar of any time, so that what is appended soon tells what is there."""
SCHEDULE = tuple(sorted({*LOOKS_AT, *ALSO_LOOKS_AT}))
CHECKS_AFTER = (4, 7, 11, 16, 23, 32)
"""Values behind an alarm's place at which it is looked at again."""
STILL_THERE = 3.0
"""Standard errors from the old regime at which a pending alarm is still worth a check."""
STATE_VERSION = 4
"""Rises whenever the same values would leave another state."""
KEPT_FINDINGS = 1_000
"""Newest change points kept."""


class ChangeStream:
    """The change points of one series.

    Positions count every value appended; NaN and infinite values count as missing. The order of arrival is
    the order of the series: times are told with the findings and not analysed, so that a late point is the
    newest one, and equal times are two points.
    """

    def __init__(self, *, lower_is_better: bool | None = None) -> None:
        self._lower_is_better = lower_is_better
        self._count = 0
        self._known = 0
        self._window = Window()
        self._frozen: list[ChangePoint] = []
        self._frozen_before = 0
        self._standing: list[ChangePoint] = []
        self._alarm: ChangePoint | None = None
        self._checks: list[int] = []
        self._season: Season | None = None
        self._regime: Regime | None = None
        self._regime_range = (0, 0)
        self._next_fit = LEAST_REGIME
        self._looked_at = 0
        self._view: tuple[int, tuple[ChangePoint, ...]] = (-1, ())

    @property
    def count(self) -> int:
        """Values appended, missing ones included."""
        return self._count

    @property
    def change_points(self) -> tuple[ChangePoint, ...]:
        """What stands now, by index: frozen ones and what a look at the window says at its newest value."""
        if self._view[0] != self._known:
            outcome = self._outcome(AT_ANY_TIME, is_season_due=True)
            self._view = (self._known, (*self._frozen, *outcome.alive))
        return self._view[1]

    def append(self, time: float, value: float, weight: float = 1.0) -> list[ChangePoint]:
        """The change points that are new, or changed in state, kind or place, now that this value is known."""
        return self.extend((time,), (value,), (weight,))

    def extend(
        self,
        times: ArrayLike,
        values: ArrayLike,
        weights: ArrayLike | None = None,
    ) -> list[ChangePoint]:
        """The same as `append` for each in turn, all that they would have returned in one list, but fast.

        Raises ValueError where lengths differ, a time is not finite or a weight is not positive and finite.
        """
        columns = columns_of(times, values, weights)
        news: list[ChangePoint] = []
        start = 0
        while start < len(columns[1]):
            used, said = self._extend_to_news(*(column[start:] for column in columns))
            news += said
            start += used
        return news

    def extend_to_news(
        self, times: ArrayLike, values: ArrayLike, weights: ArrayLike | None = None
    ) -> tuple[int, list[ChangePoint]]:
        """The same up to the first value of which `append` would return something: how many were taken, and that.

        The others are to be given again. Raises ValueError as `extend` does, then having taken none.
        """
        return self._extend_to_news(*columns_of(times, values, weights))

    def _extend_to_news(
        self, times: Vector, values: Vector, weights: Vector
    ) -> tuple[int, list[ChangePoint]]:
        known = np.flatnonzero(np.isfinite(values))
        start = 0
        while start < len(known):
            piece = known[start : start + self._calm()]
            used, said = self._take(self._count + piece, times[piece], values[piece], weights[piece])
            start += used
            if said:
                taken = int(piece[used - 1]) + 1
                self._count += taken
                return taken, said
        self._count += len(values)
        return len(values), []

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as plain data for JSON; no larger than the window and the findings."""
        return {
            "version": STATE_VERSION,
            "lower_is_better": self._lower_is_better,
            "count": self._count,
            "known": self._known,
            "window": window_to_plain(self._window),
            "frozen": [change_point_to_plain(change) for change in self._frozen],
            "frozen_before": self._frozen_before,
            "standing": [change_point_to_plain(change) for change in self._standing],
            "alarm": None if self._alarm is None else change_point_to_plain(self._alarm),
            "checks": list(self._checks),
            "season": season_to_plain(self._season),
            "regime_range": list(self._regime_range),
            "next_fit": self._next_fit,
            "looked_at": self._looked_at,
        }

    @staticmethod
    def restore(state: Mapping[str, Any]) -> "ChangeStream":
        """The stream that `state` was taken of; ValueError where another version of this engine wrote it."""
        if state["version"] != STATE_VERSION:
            raise ValueError(
                f"state of version {state['version']} of change-point streams, this is version {STATE_VERSION}; "
                "append the series' values anew"
            )
        stream = ChangeStream(lower_is_better=state["lower_is_better"])
        stream._count, stream._known = state["count"], state["known"]
        stream._window = window_from_plain(state["window"])
        stream._frozen = [change_point_from_plain(plain) for plain in state["frozen"]]
        stream._frozen_before = state["frozen_before"]
        stream._standing = [change_point_from_plain(plain) for plain in state["standing"]]
        stream._alarm = None if state["alarm"] is None else change_point_from_plain(state["alarm"])
        stream._checks = list(state["checks"])
        stream._season = season_from_plain(state["season"])
        stream._next_fit, stream._looked_at = state["next_fit"], state["looked_at"]
        first, last = state["regime_range"]
        stream._regime_range = (first, last)
        stream._regime = regime_of(*stream._level_values(first, last)) if last > first else None
        return stream

    def _calm(self) -> int:
        """Values until something happens whatever they are; at least 1."""
        nexts = [self._next_fit, *self._checks[:1], *[at for at in SCHEDULE if at > self._known][:1]]
        if self._alarm is None:
            nexts.append(self._known + WINDOW - self._window.length)
        return max(min(nexts) - self._known, 1)

    def _take(
        self, positions: Places, times: Vector, values: Vector, weights: Vector
    ) -> tuple[int, list[ChangePoint]]:
        """Values up to the first that raises an alarm: how many, and what there is to say."""
        fresh = len(positions)
        self._window.add(positions, times, values, weights)
        alarm = self._watched(fresh)
        if alarm is not None:
            self._window.length -= fresh - alarm.offset - 1
            fresh = alarm.offset + 1
        self._known += fresh
        if alarm is not None and alarm.is_sure and not self._is_wave(alarm) and not self._is_wider(alarm):
            return fresh, self._raise(alarm)
        if self._is_look_due() or (alarm is not None and self._known >= self._rest_until()):
            return fresh, self._look()
        if self._known >= self._next_fit:
            self._fit()
        return fresh, []

    def _is_look_due(self) -> bool:
        if self._checks and self._known >= self._checks[0]:
            return True
        return self._known in SCHEDULE or (self._alarm is None and self._window.length >= WINDOW)

    def _watched(self, fresh: int) -> Alarm | None:
        if self._regime is None or self._alarm is not None:
            return None
        end = self._window.length
        start = max(end - fresh - REACH + 1, self._regime_range[1])
        calm = max(self._rest_until() - self._known - 1, 0)
        return watch(self._regime, *self._level_values(start, end), fresh, calm)

    def _rest_until(self) -> int:
        """Number of finite values before which a suspicion is not worth another look."""
        return self._looked_at + max(8, min(self._looked_at, WINDOW) // 16)

    def _is_wave(self, alarm: Alarm) -> bool:
        """Whether the alarm may be a season's that is not known yet, or not well: of a period that is one off, say."""
        end, longest = self._window.length, LONGEST_WAVE
        if self._season is not None:
            if not self._is_season_young():
                return False
            longest = min(longest, WAVE_CYCLES * self._season.period)
        return is_wave(*self._level_values(max(self._regime_start(), end - longest), end), alarm.count)

    def _is_wider(self, alarm: Alarm) -> bool:
        """Whether the alarm may be a noise that spreads more than before."""
        assert self._regime is not None
        end = self._window.length
        newest = self._level_values(max(self._regime_range[1], end - max(NEWEST, alarm.count)), end)[1]
        wider = widening(newest, min(alarm.count, len(newest)), self._regime.memory, self._regime.sigma)
        return alarm.score < self._regime.bar * wider

    def _level_values(self, start: int, end: int) -> tuple[Places, Vector, Vector]:
        """Positions, values without the season, and weights of a stretch of the window."""
        positions, values = self._window.positions[start:end], self._window.values[start:end]
        if self._season is not None:
            values = values - self._season.at(positions)
        return positions, values, self._window.weights[start:end]

    def _raise(self, alarm: Alarm) -> list[ChangePoint]:
        """The alarm as a provisional change point, with its checks."""
        assert self._regime is not None
        end = self._window.length
        place = end - alarm.count
        positions, values, weights = self._level_values(place, end)
        line = self._regime.line
        edge = float(positions[0]) - 0.5
        before, after = line.at(edge), float(values @ weights / weights.sum())
        scale = self._regime.sigma
        variance_before = self._regime.long_run * line.variance_at(edge)
        variance_after = self._regime.long_run * self._regime.weight_unit / float(weights.sum())
        effect = effect_of(
            before, after, scale * (variance_before + variance_after) ** 0.5, scale * variance_before**0.5
        )
        self._alarm = ChangePoint(
            index=int(positions[0]),
            time=float(self._window.times[place]),
            kind=ChangeKind.STEP,
            state=ChangeState.PROVISIONAL,
            confidence=confidence_of(alarm.score**2, self._window.length),
            effect=effect,
            first_index=int(self._window.positions[end - min(alarm.most, end)]),
            last_index=int(self._window.positions[end - alarm.least]),
            level_before=before,
            level_after=after,
            impact=impact_of(ChangeKind.STEP, after - before, self._lower_is_better),
        )
        began = self._known - alarm.count
        self._checks = [
            began + after_values for after_values in CHECKS_AFTER if began + after_values > self._known
        ]
        return [self._alarm]

    def _look(self) -> list[ChangePoint]:
        """A full look, what it changes, and a new regime to watch."""
        self._looked_at = self._known
        bar = self._bar()
        self._checks = [check for check in self._checks if check > self._known]
        is_season_due = self._known in SCHEDULE or self._window.length >= WINDOW
        outcome = self._outcome(bar, is_season_due=is_season_due)
        self._standing, self._alarm = outcome.standing, outcome.alarm
        if self._alarm is None:
            self._checks = self._settling()
            self._season = outcome.season
            if self._window.length >= WINDOW:
                self._freeze()
            self._fit()
        return outcome.news

    def _bar(self) -> Bar:
        """What a change needs at the look that is due."""
        if self._known in self._checks or self._known in LOOKS_AT:
            return SCHEDULED
        return AT_ANY_TIME if self._known in ALSO_LOOKS_AT or self._is_season_young() else SCHEDULED

    def _is_season_young(self) -> bool:
        """Whether the season has so few cycles that its period may be one off: it is soon out of step."""
        return self._season is not None and self._window.length < KNOWN_CYCLES * self._season.period

    def _outcome(self, bar: Bar, *, is_season_due: bool) -> Outcome:
        """What a look now leaves standing; changes nothing."""
        window = self._window
        season = season_of(window.positions, window.values) if is_season_due else self._season
        look = look_at(window.positions, window.values, window.weights, season)
        known = Known(self._standing, self._alarm, self._is_pending(), self._frozen_before)
        return outcome_of(look, window, known, bar, self._lower_is_better)

    def _settling(self) -> list[int]:
        """The number of finite values at which the newest change point can be confirmed, if it is not."""
        newest = self._standing[-1:]
        if not newest or newest[0].state is not ChangeState.PROVISIONAL:
            return []
        missing = settled_after(newest[0].kind) - self._window.count_from(newest[0].index)
        return [self._known + missing] if missing > 0 else []

    def _is_pending(self) -> bool:
        """Whether a full look may yet bear an alarm out: checks are left, and the old regime has not come back."""
        if self._alarm is None or self._regime is None:
            return False
        if not [check for check in self._checks if check > self._known]:
            return False
        newest = self._level_values(self._window.place_of(self._alarm.index), self._window.length)
        return abs(score_since(self._regime, *newest)) >= STILL_THERE

    def _freeze(self) -> None:
        """Settle what lies before the older half of the window for good and forget its values, but for some context."""
        half = self._window.length // 2
        edge = int(self._window.positions[half])
        settled = [change for change in self._standing if change.index < edge]
        self._frozen = [*self._frozen, *settled][-KEPT_FINDINGS:]
        self._standing = self._standing[len(settled) :]
        self._frozen_before = edge
        newest = self._window.place_of(settled[-1].index) if settled else 0
        self._window.cut(max(half - CONTEXT, newest))

    def _fit(self) -> None:
        """Tell the newest regime from its values; not from the very newest, which may be another's."""
        end = self._window.length
        start = self._regime_start()
        length = end - start
        gap = min(max(length // 10, 3), 16)
        first, last = max(start, end - gap - LONGEST_REGIME), end - gap
        self._next_fit = self._known + min(max(length // 6, 3), 96)
        self._regime_range = (first, last)
        self._regime = regime_of(*self._level_values(first, last)) if last > first else None

    def _regime_start(self) -> int:
        newest = self._standing[-1:] or self._frozen[-1:]
        return self._window.place_of(newest[0].index) if newest else 0
