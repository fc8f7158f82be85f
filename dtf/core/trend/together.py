"""The metrics of one case, or of one suite, taken together: which run is unusual though each of its values is usual.

A run is unusual by an isolation forest's score, or by how far a metric is from what the others say of it; each
is ranked in its own past, and half of ALARM_SHARE of usual runs reach it at most. A finding needs a metric that is
far from what the others say as well, no value that is unusual by itself (that is its own series' finding),
and no unusual run just before it: where several follow each other the metrics have changed, which the series say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dtf.core.trend.anomalies.multivariate import MultivariateDetector
from dtf.core.trend.anomalies.ranks import Ranks

ALARM_SHARE = 0.01
"""Share of usual runs that may be called unusual at most."""
LEAST_DISTANCE = 4.0
"""How far the worst metric is from what the others say, in its usual (mean absolute) distances: 1 run in 700 of a
normal law, and what a person sees in a plot."""
LEAST_KNOWN = 50
"""Runs whose distances are known before one is judged by them; as many again make the first forest."""
CALM = 5
"""Runs before, of which none was unusual."""
WIDEST_RANGE = 1.1
"""A value further from the median than this many times the furthest known is unusual by itself."""
RESHAPED_AFTER = 20
"""Runs in a row that measured other metrics, from which on these are the metrics."""
RULE_VERSION = 2
"""Rises when the same rows would give other findings."""


class RowValue(NamedTuple):
    """One metric of a run."""

    metric: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """One metric of an unusual run."""

    metric: str
    unit: str
    value: float
    expected: float
    """What the other metrics say."""
    share: float
    """Of all the metrics' distances."""


@dataclass(frozen=True, slots=True)
class Unusual:
    """A run that is unusual taken together."""

    score: float
    contributions: tuple[Contribution, ...]
    """The metric that is furthest from what the others say comes first."""


class Together:
    """Rows in, in the order of the runs. `state` and `restore` carry it over a restart; the forest grows when it is needed."""

    def __init__(self, metrics: Sequence[str]) -> None:
        self._metrics = tuple(metrics)
        self._strange = 0
        self._since_unusual = CALM
        self._distances = Ranks()
        """Of the worst metric of each run."""
        self._saved: Mapping[str, Any] | None = None
        self._detector: MultivariateDetector | None = None

    def append(self, time: float, row: Sequence[RowValue]) -> Unusual | None:
        """Take up a run; what is unusual about it. One that measured other metrics is left out."""
        metrics = tuple(each.metric for each in row)
        if metrics != self._metrics:
            self._meet_strange(metrics)
            return None
        self._strange = 0
        values = [each.value for each in row]
        detector = self._grown()
        explained = detector.explain(values)
        score = detector.update(time, values)
        if explained is None:
            return None
        farthest = max(abs(each.distance) for each in explained)
        chance = min(1.0 - score, self._chance(farthest))
        if chance > ALARM_SHARE / 2:
            self._since_unusual += 1
            return None
        is_calm, self._since_unusual = self._since_unusual >= CALM, 0
        if not is_calm or farthest < LEAST_DISTANCE or any(each.reach > WIDEST_RANGE for each in explained):
            return None
        total = sum(abs(each.distance) for each in explained)
        ordered = sorted(zip(row, explained, strict=True), key=lambda pair: -abs(pair[1].distance))
        return Unusual(
            1.0 - chance,
            tuple(
                Contribution(said.metric, said.unit, said.value, each.expected, abs(each.distance) / total)
                for said, each in ordered
            ),
        )

    def state(self) -> dict[str, Any]:
        """What `restore` takes: plain values, doubles exact."""
        saved = self._saved if self._detector is None else self._detector.state()
        return {
            "metrics": list(self._metrics),
            "strange": self._strange,
            "since_unusual": min(self._since_unusual, CALM),
            "distances": self._distances.numbers,
            "detector": saved,
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "Together":
        """What `state` was taken of."""
        made = cls(state["metrics"])
        made._strange, made._since_unusual = state["strange"], state["since_unusual"]
        made._distances = Ranks(map(float, state["distances"]))
        made._saved = state["detector"]
        return made

    def _chance(self, distance: float) -> float:
        """Share of usual runs whose worst metric is so far off; 1 while too few are known."""
        chance = self._distances.chance(distance) if len(self._distances) >= LEAST_KNOWN else 1.0
        self._distances.add(distance)
        return chance

    def _grown(self) -> MultivariateDetector:
        if self._detector is None:
            if self._saved is None:
                self._detector = MultivariateDetector(len(self._metrics))
            else:
                self._detector = MultivariateDetector.restore(dict(self._saved))
            self._saved = None
        return self._detector

    def _meet_strange(self, metrics: tuple[str, ...]) -> None:
        self._strange += 1
        if self._strange >= RESHAPED_AFTER and len(metrics) > 1:
            self._metrics, self._strange = metrics, 0
            self._distances = Ranks()
            self._saved = self._detector = None
