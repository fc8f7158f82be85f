"""A streaming score of how unusual each value is, that says no more than its own past allows.

Two steps of the same kind. Each measure's number is ranked in that measure's past, which makes measures
comparable: minus the logarithm of the chance. The largest of these, and a part of the others, are ranked
again in their own past, and the score is 1 less that chance. So a score of 1 - p or more comes at no more
than a share p of the values of any series that goes on as it was: no law is assumed, memory and spikes are
in the past as well, and having looked in seven ways is paid for.

An alarm is followed by a rest, in which only what is far more unusual is scored: the values that follow
belong to the same thing.
"""

import math
from typing import Any

from dtf.core.trend.anomalies.contexts import LENGTH
from dtf.core.trend.anomalies.measures import OF_ONE_VALUE, SEASONAL, Measure, Measures
from dtf.core.trend.anomalies.mixtures import LIKE
from dtf.core.trend.anomalies.ranks import Ranks
from dtf.core.trend.findings import AnomalyKind

ALARM_SCORE = 0.994
"""For watching long series that have anomalies: at most 6 in a thousand values where there is none, and as an
alarm is followed by a rest about one in a thousand."""
FINDING_SCORE = 0.9999
"""For findings, which have to be rare: once in ten thousand values where nothing is unusual."""
WARM_UP = 30
"""Values that are only learned from, but for what is far beyond all of them."""
EARLY, EARLY_UNTIL = 10, 100
"""Between so many values and so many an error may count by itself: the evidence has too short a past to say much."""
EARLY_CHANCE = 0.001
"""Chance that such an error has at most: in normal noise it is about twenty standard deviations."""
OTHERS_WEIGHT, OTHERS_WEIGHT_IN_RANGE = 1.0, 5.0
"""How often the mean of the other measures' evidence is added to the largest; where the range of values is known, small
differences have less evidence, and what several measures say is worth more."""
PARTS_IN_RANGE = {Measure.ERROR: 0.3, Measure.SPREAD: 0.5}
"""Part of a measure's evidence that counts where the range is known: bursts that are nobody's anomaly are single odd values,
and what is an anomaly is new or lasts, which other measures say."""
SMOOTHING_IN_RANGE = 0.5
"""Part of the evidence before that stays where the range is known: what is odd twice is odder."""
BEYOND_WEIGHT, BEYOND_WEIGHT_IN_RANGE = 0.5, 0.25
"""Part of the evidence beyond the largest ever that is believed: each measure's was extrapolated, and is added up."""
SETTLING = 15.0
"""Values over which means and spreads settle: what is compared with so young a past counts for less."""
REST_KEPT = 4
"""One of so many values in a rest joins the past: else one event takes the places of the rarest there, and the next has
to be rarer than all of it."""
REST_RATIO = 0.05
LEAST_REST, MOST_REST = 20, 250
"""A rest is this share of the values seen, within bounds."""
FAR_MORE = 0.01
"""A chance of less than this part of that of the alarm ends a rest."""
RESTING_SCORE = 0.5
LEAST_DIFFERENCE_RATIO = 1e-3
SMALL_RATIO = 0.05
"""Share of the range of what values can be below which differences say less, in proportion."""
USUAL = {Measure.SPREAD: 0.1, Measure.MIXTURE: LIKE}
"""What is none whatever its rank: twelve values do not tell a spread to a tenth."""
USUAL_CHANCE = 0.01
"""A value that is this rare or rarer by itself is a point anomaly, not a part of a collective one."""
LEAST_CHANCE = 1e-300
LARGEST_VALUE = 1e150
"""What is larger counts as so much: its square has to be a number."""
STATE_VERSION = 3


class AnomalyDetector:
    """Scores values one at a time, each in about a hundred microseconds at any length.

    `minimum` and `maximum` are what values can be, where that is known: differences of less than a
    twentieth of the range then say less, those of less than a thousandth nothing, and it is also looked at how
    the newest values are spread over the range. A value that is not finite has a score of 0 and is
    forgotten.
    """

    def __init__(self, minimum: float | None = None, maximum: float | None = None) -> None:
        if minimum is not None and maximum is not None and minimum > maximum:
            raise ValueError(f"minimum is {minimum} and maximum {maximum}; the minimum comes first")
        self._bounds = (minimum, maximum)
        self._least_difference = _least_difference(minimum, maximum)
        self._full_size = _full_sizes(minimum, maximum)
        self._others_weight = OTHERS_WEIGHT_IN_RANGE if self._full_size else OTHERS_WEIGHT
        self._parts = PARTS_IN_RANGE if self._full_size else {}
        self._beyond_weight = BEYOND_WEIGHT_IN_RANGE if self._full_size else BEYOND_WEIGHT
        self._measures = Measures(self._least_difference, _range(minimum, maximum))
        self._ranks = {measure: Ranks() for measure in Measure}
        self._evidence = Ranks()
        self._smoothing = SMOOTHING_IN_RANGE if self._full_size else 0.0
        self._smooth_evidence = 0.0
        self._rest = 0
        self._is_resting = False
        self._alarm_chance = 1.0
        self._period = 0
        self._kind = AnomalyKind.POINT

    @property
    def kind(self) -> AnomalyKind:
        """What is most unusual about the newest value: itself, or the stretch it ends."""
        return self._kind

    @property
    def expected(self) -> float:
        """What the newest value was expected to be; NaN before the second one."""
        return self._measures.expected

    @property
    def usual_error(self) -> float:
        """Distance from the expectation within which 95 % of the values have been; NaN before the second one."""
        return self._ranks[Measure.ERROR].quantile(0.95)

    def update(self, time: float, value: float) -> float:
        """The score of `value`, in [0, 1]. `time` may be anything: values are taken as they come."""
        if not math.isfinite(value):
            return 0.0
        found = self._measures.update(min(LARGEST_VALUE, max(-LARGEST_VALUE, value)))
        early = self._early_chance(found)
        evidence = self._weigh(found)
        if self._measures.period != self._period:
            self._period = self._measures.period
            for measure in SEASONAL:
                self._ranks[measure] = Ranks()
        if evidence is None:
            return self._rested(early)
        evidence += self._smoothing * (self._smooth_evidence - evidence)
        self._smooth_evidence = evidence
        place = self._evidence.place(evidence)
        chance = self._evidence.share_at(place) * (1.0 + SETTLING / (1.0 + len(self._evidence)))
        beyond = evidence - self._evidence.largest
        if 0.0 < beyond < math.inf:  # infinite where there is no past
            chance *= math.exp(-self._beyond_weight * beyond)
        score = self._rested(min(chance, early))
        if not self._is_resting or not self._rest % REST_KEPT:
            self._evidence.add(evidence, place)
        return score

    def _early_chance(self, found: dict[Measure, float]) -> float:
        """Of an error far beyond all before, while there are few; 1 for any other."""
        count = self._measures.count
        if not EARLY < count <= EARLY_UNTIL:
            return 1.0
        chance = self._ranks[Measure.ERROR].chance(found[Measure.ERROR]) * (1.0 + SETTLING / count)
        return chance if chance <= EARLY_CHANCE else 1.0

    def _weigh(self, found: dict[Measure, float]) -> float | None:
        """Evidence of all measures against `found` being usual; None while nothing is known."""
        is_warm = self._measures.count > WARM_UP
        weights: list[tuple[float, Measure]] = []
        for measure, number in found.items():
            ranks = self._ranks[measure]
            place = ranks.place(number)
            if is_warm and len(ranks) >= (self._period if measure in SEASONAL else 1):
                is_usual = number <= USUAL.get(measure, self._least_difference)
                chance = 1.0 if is_usual else ranks.chance(number, place)
                weight = -math.log(max(chance, LEAST_CHANCE))
                if measure in self._full_size:
                    weight *= min(1.0, number / self._full_size[measure])
                weights.append((weight, measure))
            ranks.add(number, place)
        if not weights:
            return None
        of_value = max(weight for weight, measure in weights if measure in OF_ONE_VALUE)
        self._kind = AnomalyKind.POINT if of_value >= -math.log(USUAL_CHANCE) else AnomalyKind.COLLECTIVE
        counted = [weight * self._parts.get(measure, 1.0) for weight, measure in weights]
        largest = max(counted)
        others = sum(counted) - largest
        # measures come and go with the season: the largest of many is larger, so their number is taken off
        return largest - math.log(len(counted)) + self._others_weight * others / max(1, len(counted) - 1)

    def _rested(self, chance: float) -> float:
        """The score; an alarm begins a rest."""
        self._is_resting = False
        if self._rest:
            self._rest -= 1
            if chance >= FAR_MORE * self._alarm_chance:
                self._is_resting = True
                return min(max(0.0, 1.0 - chance), RESTING_SCORE)
        if 1.0 - chance >= ALARM_SCORE:
            self._rest = int(min(MOST_REST, max(LEAST_REST, REST_RATIO * self._measures.count)))
            self._alarm_chance = chance
        return max(0.0, 1.0 - chance)

    def state(self) -> dict[str, Any]:
        """As JSON has it; bounded, whatever the length of the series."""
        return {
            "version": STATE_VERSION,
            "bounds": list(self._bounds),
            "measures": self._measures.state(),
            "ranks": {measure.value: ranks.numbers for measure, ranks in self._ranks.items()},
            "evidence": self._evidence.numbers,
            "smooth_evidence": self._smooth_evidence,
            "rest": [self._rest, self._alarm_chance],
            "period": self._period,
            "kind": self._kind.value,
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "AnomalyDetector":
        """The detector whose `state` this is: it goes on as that would have. ValueError for another version's."""
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the state is of version {state.get('version')}, this reads {STATE_VERSION}; replay the series"
            )
        made = cls(*state["bounds"])
        made._measures = Measures.restore(state["measures"], made._least_difference, _range(*made._bounds))
        made._ranks = {measure: Ranks(state["ranks"][measure.value]) for measure in Measure}
        made._evidence = Ranks(state["evidence"])
        made._smooth_evidence = float(state["smooth_evidence"])
        made._rest, made._alarm_chance = int(state["rest"][0]), float(state["rest"][1])
        made._period = int(state["period"])
        made._kind = AnomalyKind(state["kind"])
        return made


def _range(minimum: float | None, maximum: float | None) -> tuple[float, float] | None:
    """Both ends, where they are known and apart."""
    if minimum is None or maximum is None or not 0.0 < maximum - minimum < math.inf:
        return None
    return minimum, maximum


def _full_sizes(minimum: float | None, maximum: float | None) -> dict[Measure, float]:
    """From which size on a measure of differences says all it has to say, where the range is known."""
    bounds = _range(minimum, maximum)
    if bounds is None:
        return {}
    full = SMALL_RATIO * (bounds[1] - bounds[0])
    return {
        Measure.ERROR: full,
        Measure.BEYOND: full,
        Measure.SHIFT: full,
        Measure.STRETCH: full * math.sqrt(LENGTH),
        Measure.SEASON_NEAR: full,
        Measure.SEASON_DAY: full,
    }


def _least_difference(minimum: float | None, maximum: float | None) -> float:
    """What is smaller is no anomaly, by what values can be."""
    if minimum is None or maximum is None or not math.isfinite(maximum - minimum):
        return 0.0
    return LEAST_DIFFERENCE_RATIO * (maximum - minimum)
